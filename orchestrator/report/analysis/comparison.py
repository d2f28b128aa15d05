"""Several jobs side by side: their results, which one is best, and by how much."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.model.job import Validation
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from jobs.policies.verdict import Difference
from orchestrator.formatting.text import NONE, duration, figure, loss_with_interval, percent, size, whole
from orchestrator.report.analysis.bootstrap import Bootstrap
from orchestrator.report.analysis.settings_diff import differing, have_one_objective
from orchestrator.report.analysis.verdict import Series
from orchestrator.report.facts import Facts, Measurement
from orchestrator.report.sources import supervised_tokens

SCHEMA = 1
"""Version of the output of `lq compare --json`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A job that is compared."""

    facts: Facts
    series: Series
    spec: Mapping[str, Any]  # the job file, as stored at submit
    reported: Mapping[str, Any]  # facts that the trainer reported, by name

    @property
    def title(self) -> str:
        """Name and id of the job."""
        return f"{self.facts.job.name} (job {self.facts.job.id})"

    @property
    def adapter(self) -> Path:
        """The adapter folder, which exists only if an adapter was published."""
        return JobDir(Path(self.facts.job.job_dir)).adapters

    @property
    def can_win(self) -> bool:
        """Whether the job has ended with an adapter and a validation."""
        return self.facts.job.status in ENDED and self.facts.adapter.best is not None and self.loss < math.inf

    @property
    def loss(self) -> float:
        """Best validation loss; infinite if there is none."""
        best = self.facts.validation.best
        return best.loss if best is not None else math.inf

    @property
    def best_validation(self) -> Validation | None:
        """The validation of the best weights, with its row losses."""
        best = self.facts.validation.best
        return next((one for one in self.series.validations if best and one.iteration == best.iteration), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """The result of a comparison."""

    titles: tuple[str, ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]  # of each differing key the value of each job
    results: tuple[tuple[str, tuple[str, ...]], ...]
    against_first: tuple[Difference | None, ...]  # best validation minus that of the first job, row by row
    why_not: str | None  # why the validations could not be compared row by row


def compare(entries: Sequence[Entry]) -> Compared:
    """Compare two or more jobs with the first one."""
    why_not = why_not_by_row(entries)
    gaps = [None] * len(entries) if why_not else [None, *_behind(entries)]
    return Compared(
        titles=tuple(entry.title for entry in entries),
        settings=tuple(differing([entry.spec for entry in entries])),
        results=tuple(_results(entries)),
        against_first=tuple(gaps),
        why_not=why_not,
    )


def _results(entries: Sequence[Entry]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, read in _RESULTS:
        values = tuple(read(entry.facts) for entry in entries)
        if read is not _accuracy or set(values) != {NONE}:
            yield name, values


DIFFERENT_OBJECTIVES = "the jobs minimize different objectives, so their losses differ in meaning"


def why_not_by_row(entries: Sequence[Entry]) -> str | None:
    """Return why validations cannot be compared row by row; None if they can."""
    files = [{file.name: file.sha256 for file in entry.facts.data} for entry in entries]
    hashes = {names.get("valid.jsonl") for names in files}
    if len(hashes) > 1 or None in hashes:
        return "the jobs were not validated on the same valid.jsonl"
    if not have_one_objective([entry.spec for entry in entries]):
        return DIFFERENT_OBJECTIVES
    best = [entry.best_validation for entry in entries]
    if any(one is None or one.row_losses is None for one in best) or len({one.examples for one in best if one}) > 1:
        return "not every job has row losses of its best validation for the same rows"
    tokens = [supervised_tokens(entry.reported, "valid") for entry in entries]
    if any(one is None for one in tokens):
        return "not every trainer reported the supervised tokens of the validation rows"
    if any(one != tokens[0] for one in tokens):
        return "the jobs do not learn from the same tokens of the validation rows"
    return None


def _behind(entries: Sequence[Entry]) -> list[Difference]:
    """Return the best validation of each job but the first minus that of the first, row by row."""
    weights = supervised_tokens(entries[0].reported, "valid")
    assert weights is not None
    rows = [(best.row_losses or ()) if (best := entry.best_validation) else () for entry in entries]
    known = [place for place, weight in enumerate(weights[: len(rows[0])]) if weight]
    first, *others = [[losses[place] for place in known] for losses in rows]
    return Bootstrap([weights[place] for place in known]).differences(others, first)


def _measured(measurement: Measurement | None) -> str:
    if measurement is None:
        return NONE
    value = loss_with_interval(measurement.loss, measurement.low, measurement.high)
    return f"{value} at {whole(measurement.iteration)}"


def _accuracy(facts: Facts) -> str:
    """Return accuracy and margin of the best validation of a preference objective."""
    rewards = facts.validation.best.rewards if facts.validation.best is not None else None
    return NONE if rewards is None else f"{percent(rewards.accuracy)}, margin {figure(rewards.margin)}"


def _tested(facts: Facts) -> str:
    """Return the last measurement of `lq test`, with the beginning of its data's hash: other data have another loss."""
    if not facts.evaluations:
        return NONE
    last = facts.evaluations[-1]
    data = f", data {last.sha256[:8]}" if last.sha256 else ""
    return f"{loss_with_interval(last.loss, last.low, last.high)} at {whole(last.iteration)}{data}"


_RESULTS: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("status", lambda facts: f"{facts.job.status}{f' ({facts.job.reason})' if facts.job.reason else ''}"),
    ("verdict", lambda facts: facts.findings.ruling.verdict.code if facts.findings.ruling else "none"),
    ("iterations", lambda facts: whole(facts.progress.iterations_done)),
    ("validation before training", lambda facts: _measured(facts.validation.base)),
    ("best validation", lambda facts: _measured(facts.validation.best)),
    ("last validation", lambda facts: _measured(facts.validation.final)),
    ("test", lambda facts: _measured(facts.test)),
    ("accuracy and margin at best", _accuracy),
    ("lq test", _tested),
    ("last train report", lambda facts: figure(facts.train_loss.last.loss if facts.train_loss.last else None)),
    ("speed", lambda facts: figure(facts.progress.it_s, "it/s")),
    ("peak memory", lambda facts: size(facts.progress.peak_bytes)),
    ("time in training", lambda facts: duration(facts.times.trained_seconds)),
    ("restarts", lambda facts: str(len(facts.restarts))),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
    """A job in the ranking."""

    entry: Entry
    loss: float  # its best validation, nats per token
    behind: Difference | None  # that minus the winner's, row by row; None for the winner or if not comparable


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestOf:
    """The jobs of a group, ranked by their best validation."""

    ranked: tuple[Ranked, ...]  # those with an adapter; the first is the winner
    others: tuple[Entry, ...]  # those without a validation or without an adapter
    why_not: str | None  # why they could not be compared row by row

    @property
    def winner(self) -> Ranked | None:
        """The job with the lowest validation loss."""
        return self.ranked[0] if self.ranked else None

    @property
    def runner_up(self) -> Ranked | None:
        """The second in the ranking."""
        return self.ranked[1] if len(self.ranked) > 1 else None

    @property
    def not_apart(self) -> tuple[Ranked, ...]:
        """The jobs whose difference from the winner may be chance: its 95 % interval contains 0."""
        return tuple(job for job in self.ranked[1:] if job.behind is not None and job.behind.low <= 0)


def best_of(entries: Sequence[Entry]) -> BestOf:
    """Rank one or more jobs by their best validation. Only jobs with an adapter and the same objective are ranked."""
    able = sorted((entry for entry in entries if entry.can_win), key=lambda entry: (entry.loss, entry.facts.job.id))
    if len(able) > 1 and not have_one_objective([entry.spec for entry in able]):
        return BestOf(ranked=(), others=tuple(entries), why_not=DIFFERENT_OBJECTIVES)
    why_not = why_not_by_row(able) if len(able) > 1 else None
    behind = [None] * len(able) if why_not or len(able) < 2 else [None, *_behind(able)]
    ranked = [Ranked(entry=entry, loss=entry.loss, behind=gap) for entry, gap in zip(able, behind, strict=True)]
    others = tuple(entry for entry in entries if not entry.can_win)
    return BestOf(ranked=tuple(ranked), others=others, why_not=why_not)
