"""The states of a job and the legal changes between them (docs/explanation/architecture.md#states-of-a-job)."""

from __future__ import annotations

from enum import StrEnum

from jobs.model.errors import NotAllowed


class Status(StrEnum):
    """The state of a job."""

    HELD = "held"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.SKIPPED})
LIVE = frozenset(Status) - ENDED
RETRIABLE = frozenset({Status.FAILED, Status.CANCELLED})

LEGAL: dict[Status, frozenset[Status]] = {
    Status.HELD: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.HELD, Status.CANCELLED, Status.SKIPPED}),
    Status.RUNNING: frozenset(
        {Status.WAITING, Status.PAUSED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.HELD}
    ),
    Status.WAITING: frozenset({Status.QUEUED, Status.CANCELLED, Status.HELD}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset({Status.QUEUED}),  # lq extend
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
    Status.SKIPPED: frozenset(),
}


def require_legal(job_id: int, old: Status, new: Status) -> None:
    """Raise NotAllowed unless the change from `old` to `new` is legal."""
    if new not in LEGAL[old]:
        raise NotAllowed(f"job {job_id} is {old} and cannot become {new}; see: lq show {job_id}")
