"""Results of `lq verify`, `lq prune` and `lq clean`."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.maintenance.clean import CleanedJob
from orchestrator.maintenance.prune import PrunedJob
from orchestrator.maintenance.verify import VerifiedJob


@dataclass(frozen=True, kw_only=True)
class VerifyResult:
    """The files that were checked."""

    jobs: list[VerifiedJob]  # in the order given


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """What was deleted, or with --dry-run would be."""

    dry_run: bool  # nothing was deleted
    jobs: list[PrunedJob]  # in the order given


@dataclass(frozen=True, kw_only=True)
class CleanResult:
    """What was deleted, or with --dry-run would be."""

    dry_run: bool  # nothing was deleted
    jobs: list[CleanedJob]
