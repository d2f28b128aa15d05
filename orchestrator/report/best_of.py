"""Which job of several did best, by how much, and which cannot be told from it. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from jobs.policies.verdict import Difference
from orchestrator.report.bootstrap import Bootstrap
from orchestrator.report.comparison import Entry, best_validation, why_not_by_row
from orchestrator.report.told import learned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
    """A job that was validated, among the others."""

    entry: Entry
    loss: float  # its best validation, nats per token
    behind: Difference | None  # that minus the winner's, row by row; None for the winner, or where it cannot be said

    @property
    def apart(self) -> bool:
        """Whether it is worse than the winner beyond doubt: its 95 % interval lies above 0."""
        return self.behind is not None and self.behind.low > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestOf:
    """The jobs of a comparison in the order of their best validation."""

    ranked: tuple[Ranked, ...]  # those with an adapter; the first is the winner
    others: tuple[Entry, ...]  # without a validation or without an adapter
    why_not: str | None  # why they could not be compared row by row; None where they were

    @property
    def winner(self) -> Ranked | None:
        """The job of the lowest validation loss."""
        return self.ranked[0] if self.ranked else None

    @property
    def runner_up(self) -> Ranked | None:
        """The next one."""
        return self.ranked[1] if len(self.ranked) > 1 else None

    @property
    def not_apart(self) -> tuple[Ranked, ...]:
        """The jobs that cannot be told from the winner."""
        return tuple(one for one in self.ranked[1:] if one.behind is not None and not one.apart)


def best_of(entries: Sequence[Entry]) -> BestOf:
    """Rank jobs by their best validation.

    Args:
        entries: one or more. Those whose adapter is not there to be used (not ended, or ended without one) are set
            apart.
    """
    able = sorted(filter(_may_win, entries), key=lambda entry: (_loss(entry), entry.facts.job.id))
    why_not = why_not_by_row(able) if len(able) > 1 else None
    behind = [None] * len(able) if why_not or len(able) < 2 else [None, *_behind(able)]
    ranked = [Ranked(entry=entry, loss=_loss(entry), behind=gap) for entry, gap in zip(able, behind, strict=True)]
    others = tuple(entry for entry in entries if not _may_win(entry))
    return BestOf(ranked=tuple(ranked), others=others, why_not=why_not)


def _may_win(entry: Entry) -> bool:
    return entry.has_adapter and _loss(entry) < math.inf


def _loss(entry: Entry) -> float:
    best = entry.facts.validation.best
    return best.loss if best is not None else math.inf


def _behind(able: Sequence[Entry]) -> list[Difference]:
    """Return the best validation of each but the first minus that of the first, row by row."""
    weights = learned(able[0].told, "valid")
    rows = [(best.row_losses or ()) if (best := best_validation(entry)) else () for entry in able]
    assert weights is not None
    known = [place for place, weight in enumerate(weights[: len(rows[0])]) if weight]
    kept = [[losses[place] for place in known] for losses in rows]
    return Bootstrap([weights[place] for place in known]).differences(kept[1:], kept[0])
