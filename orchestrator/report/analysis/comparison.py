"""Several jobs side by side: their results, which one is best, and by how much."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.model.job import Validation
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from jobs.policies.verdict import Difference
from orchestrator.formatting.text import NOT_MEASURED, duration, figure, loss_with_interval, size, whole
from orchestrator.report.analysis.bootstrap import Bootstrap
from orchestrator.report.analysis.settings_diff import differing
from orchestrator.report.analysis.verdict import Series
from orchestrator.report.facts import Facts, Measurement
from orchestrator.report.sources import learned

SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A job that is compared."""

    facts: Facts
    series: Series
    spec: Mapping[str, Any]  # the job file, as frozen at submit
    told: Mapping[str, Any]  # what the trainer alone saw

    @property
    def title(self) -> str:
        """Its name and id."""
        return f"{self.facts.job.name} (job {self.facts.job.id})"

    @property
    def adapter(self) -> Path:
        """Where its finished adapter lies, or would."""
        return JobDir(Path(self.facts.job.job_dir)).adapters

    @property
    def has_adapter(self) -> bool:
        """Whether it has ended and its adapter can be used."""
        return self.facts.job.status in ENDED and self.facts.adapter.best is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """What a comparison says."""

    titles: tuple[str, ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]  # of each differing key the value of each job
    results: tuple[tuple[str, tuple[str, ...]], ...]
    against_first: tuple[Difference | None, ...]  # best validation minus that of the first job, row by row
    why_not: str | None  # why it could not be compared row by row


def compare(entries: Sequence[Entry]) -> Compared:
    """Compare jobs.

    Args:
        entries: two or more; the first is what the others are compared with.
    """
    why_not = why_not_by_row(entries)
    against = tuple(None if why_not else _against(entries[0], entry) for entry in entries)
    return Compared(
        titles=tuple(entry.title for entry in entries),
        settings=tuple(differing([entry.spec for entry in entries])),
        results=tuple((name, tuple(read(entry.facts) for entry in entries)) for name, read in _RESULTS),
        against_first=against,
        why_not=why_not,
    )


def why_not_by_row(entries: Sequence[Entry]) -> str | None:
    """Say why validations cannot be compared row by row, None where they can."""
    hashes = {_valid_hash(entry.facts) for entry in entries}
    if len(hashes) > 1 or None in hashes:
        return "the jobs were not validated on the same valid.jsonl"
    rows = {(best.row_losses is None, best.examples) if best else None for best in map(best_validation, entries)}
    if len(rows) > 1 or None in rows or any(row and row[0] for row in rows):
        return "not every job has its best validation by row, over the same rows"
    tokens = [learned(entry.told, "valid") for entry in entries]
    if any(one is None for one in tokens):
        return "not every trainer told how many tokens each validation row has"
    if any(one != tokens[0] for one in tokens):
        return "the jobs do not learn from the same tokens of the validation rows"
    return None


def _valid_hash(facts: Facts) -> str | None:
    return next((file.sha256 for file in facts.data if file.name == "valid.jsonl"), None)


def best_validation(entry: Entry) -> Validation | None:
    """Return the validation of the weights that a job published."""
    best = entry.facts.validation.best
    return next((one for one in entry.series.validations if best and one.iteration == best.iteration), None)


def _against(first: Entry, other: Entry) -> Difference | None:
    mine, base, weights = best_validation(other), best_validation(first), learned(first.told, "valid")
    if other is first or mine is None or base is None or weights is None:
        return None
    assert mine.row_losses is not None
    assert base.row_losses is not None
    known = [place for place, weight in enumerate(weights[: base.examples]) if weight]
    bootstrap = Bootstrap([weights[place] for place in known])
    return bootstrap.differences(
        [[mine.row_losses[place] for place in known]], [base.row_losses[place] for place in known]
    )[0]


def _measured(found: Measurement | None) -> str:
    if found is None:
        return NOT_MEASURED
    return f"{loss_with_interval(found.loss, found.low, found.high)} at {whole(found.iteration)}"


_RESULTS: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("status", lambda facts: f"{facts.job.status}{f' ({facts.job.reason})' if facts.job.reason else ''}"),
    ("verdict", lambda facts: facts.findings.ruling.verdict.code if facts.findings.ruling else "none"),
    ("iterations", lambda facts: whole(facts.progress.iterations_done)),
    ("validation before training", lambda facts: _measured(facts.validation.base)),
    ("best validation", lambda facts: _measured(facts.validation.best)),
    ("last validation", lambda facts: _measured(facts.validation.final)),
    ("test", lambda facts: _measured(facts.test)),
    ("last train report", lambda facts: figure(facts.train_loss.last.loss if facts.train_loss.last else None)),
    ("speed", lambda facts: figure(facts.progress.it_s, "it/s")),
    ("peak memory", lambda facts: size(facts.progress.peak_bytes)),
    ("time in training", lambda facts: duration(facts.times.trained_seconds)),
    ("restarts", lambda facts: str(len(facts.restarts))),
)
"""What is said of each job."""


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
