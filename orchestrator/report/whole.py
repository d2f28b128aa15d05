"""The progress points of a run that the store has thinned, whole again out of its events.jsonl."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jobs.model.errors import EventInvalid
from jobs.model.job import Job, ProgressPoint
from orchestrator.formatting.text import whole
from orchestrator.store.folding import Fold
from orchestrator.store.store import Store
from workers.events import log as event_log
from workers.files.job_dir import JobDir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Points:
    """The progress points of one job."""

    leading: Sequence[ProgressPoint]  # to the present weights, by iteration
    every: Sequence[ProgressPoint]  # superseded ones too, in the order in which they came
    missing: str | None = None  # why some are not there, for a person; None where all are


def points_of(store: Store, job: Job, *, steps_per_report: int | None) -> Points:
    """Return the points of a job, all there ever were where that is possible.

    Args:
        store: where the job is.
        job: the job.
        steps_per_report: iterations per report; None where that is not known.
    """
    leading = store.points(job.id)
    every = store.points(job.id, superseded=True) if job.attempts > 1 else leading
    if job.thinned_from is None:
        return Points(leading=leading, every=every)
    try:
        again = _told(job, steps_per_report) if steps_per_report is not None else []
        why = "does not have them all"
    except EventInvalid as error:
        again, why = [], str(error)
    if len(again) != job.thinned_from or not _holds(again, every):
        return Points(leading=leading, every=every, missing=_missing(job.thinned_from, len(every), why))
    return Points(leading=_leading(again, leading), every=again)


def _told(job: Job, steps_per_report: int) -> list[ProgressPoint]:
    """Fold the events of a job anew; empty where they are gone."""
    fold = Fold(job.id, seen=dict.fromkeys(range(1, job.attempts + 1), 0), steps_per_report=steps_per_report)
    path, offset = JobDir(Path(job.job_dir)).events, 0
    while (found := event_log.read(path, offset)).offset > offset:
        for event in found.events:
            fold.add(event)
        offset = found.offset
    return [ProgressPoint(**{name: row[name] for name in row if name != "job_id"}) for row in fold.points]


def _holds(again: Sequence[ProgressPoint], left: Sequence[ProgressPoint]) -> bool:
    """Say whether it is the same run: all that is left stands in what was told."""
    told = {(one.attempt, one.iteration): repr(one.train_loss) for one in again}
    return all(told.get((one.attempt, one.iteration)) == repr(one.train_loss) for one in left)


def _leading(again: Sequence[ProgressPoint], left: Sequence[ProgressPoint]) -> list[ProgressPoint]:
    """Return those that lead to the present weights: of each attempt up to the last that is left and does."""
    until: dict[int, int] = {}
    for one in left:
        until[one.attempt] = max(one.iteration, until.get(one.attempt, -1))
    return sorted((one for one in again if one.iteration <= until.get(one.attempt, -1)), key=lambda one: one.iteration)


def _missing(there_were: int, left: int, why: str) -> str:
    return (
        f"events.jsonl: {why}; the store has let go of old progress reports, so curves, medians and trends come from "
        f"{whole(left)} of {whole(there_were)}, the outline of them, and phases are not told"
    )
