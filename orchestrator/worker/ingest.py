"""From events.jsonl into the store. Whoever calls, however often: every event is taken in once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.model.events import Event
from jobs.model.job import Incident
from orchestrator.store.store import Store
from workers.events.log import Read, read

BATCH = 2000
"""Events in one transaction, so that other writers get their turn."""


def ingest(store: Store, job_id: int, events_path: Path, steps_per_report: int, now: float) -> list[Event]:
    """Take in what the child has written since the last time.

    Args:
        store: knows how far the file was read.
        job_id: whose events.
        events_path: the job's events.jsonl; absent means nothing to do.
        steps_per_report: iterations per report.
        now: unix seconds.

    Returns:
        The events this call took in. A line torn off at the end is left for the next call; complete lines that are no
        events are passed over and recorded as one incident `events_unreadable` a read. A file that is shorter than
        what was read of it is another one: it is read from its beginning, with an incident `events_lost`.

    Raises:
        NoSuchJob: no job has this id.
    """
    taken: list[Event] = []
    offset = _offset(store, job_id, events_path, now)
    while (found := read(events_path, offset)).offset > offset:
        for events, before, after, incidents in _batches(job_id, found, offset, now):
            if not store.events.ingest(
                job_id,
                events,
                offset_before=before,
                offset_after=after,
                steps_per_report=steps_per_report,
                now=now,
                incidents=incidents,
            ):
                break  # another process took them in; go on from where it stands
            taken += events
        offset = store.events.offset(job_id)
    return taken


def _offset(store: Store, job_id: int, events_path: Path, now: float) -> int:
    """Return where to go on. By attempt and seq the store tells what it has from what is new in another file."""
    offset = store.events.offset(job_id)
    size = events_path.stat().st_size if events_path.exists() else offset
    if size >= offset:
        return offset
    text = (
        f"events.jsonl was deleted or cut: {offset} bytes had been read of it, {size} are there; what was read is kept"
    )
    lost = Incident(
        job_id=job_id, attempt=None, time=now, code="events_lost", text=text, evidence={"read": offset, "there": size}
    )
    store.events.ingest(job_id, [], offset_before=offset, offset_after=0, steps_per_report=1, now=now, incidents=[lost])
    return store.events.offset(job_id)


def _batches(
    job_id: int, found: Read, offset: int, now: float
) -> Iterator[tuple[list[Event], int, int, list[Incident]]]:
    """Split a read into (events, offset before, offset after, incidents).

    Only the last batch moves the offset: the reader says where the lines end, not where each one does. If this stops
    half way, the events are read again, and the store passes over those it has.
    """
    starts = range(0, max(1, len(found.events)), BATCH)
    for start in starts:
        last = start == starts[-1]
        incidents = [_incident(job_id, found, offset, now)] if last and found.unreadable else []
        yield found.events[start : start + BATCH], offset, found.offset if last else offset, incidents


def _incident(job_id: int, found: Read, offset: int, now: float) -> Incident:
    lines = found.unreadable
    return Incident(
        job_id=job_id,
        attempt=None,
        time=now,
        code="events_unreadable",
        text=f"{len(lines)} line{'s' * (len(lines) != 1)} of events.jsonl passed over; the first: {lines[0]}",
        evidence={"lines": len(lines), "between_bytes": [offset, found.offset]},
    )
