"""Copies events from events.jsonl into the store; each event exactly once, even if several processes call this."""

from __future__ import annotations

from pathlib import Path

from jobs.model.events import Event
from jobs.model.job import Incident
from orchestrator.store.store import Store
from workers.events.log import Read, read

BATCH = 2000  # events in one transaction, so that other writers are not blocked for long


def ingest(store: Store, job_id: int, events_path: Path, steps_per_report: int, now: float) -> list[Event]:
    """Ingest what the trainer has written since the last call, and return the new events.

    An incomplete last line is left for the next call. Complete lines that are not events are skipped and recorded as
    an incident `events_unreadable` for each read. A file that is shorter than what was already read of it is a new
    file: it is read from its start, with an incident `events_lost`.
    """
    taken: list[Event] = []
    offset = _offset(store, job_id, events_path, now)
    while (chunk := read(events_path, offset)).offset > offset:
        starts = range(0, max(1, len(chunk.events)), BATCH)
        for start in starts:
            # Only the last batch moves the offset, because the reader returns one offset for all lines. If the worker
            # stops between two batches, the events are read again, and the store skips those that it has.
            last, events = start == starts[-1], chunk.events[start : start + BATCH]
            if not store.events.ingest(
                job_id,
                events,
                offset_before=offset,
                offset_after=chunk.offset if last else offset,
                steps_per_report=steps_per_report,
                now=now,
                incidents=[_unreadable(job_id, chunk, offset, now)] if last and chunk.unreadable else [],
            ):
                break  # another process ingested these events; continue from its offset
            taken += events
        offset = store.events.offset(job_id)
    return taken


def _offset(store: Store, job_id: int, events_path: Path, now: float) -> int:
    """Return the offset to continue from. For a new file the store skips known events by attempt and seq."""
    offset = store.events.offset(job_id)
    size = events_path.stat().st_size if events_path.exists() else offset
    if size >= offset:
        return offset
    lost = Incident(
        job_id=job_id,
        attempt=None,
        time=now,
        code="events_lost",
        text=f"events.jsonl was deleted or cut after {offset} bytes of it were read; {size} bytes are left of it; "
        "the events that were read are kept",
        evidence={"read": offset, "there": size},
    )
    store.events.ingest(job_id, [], offset_before=offset, offset_after=0, steps_per_report=1, now=now, incidents=[lost])
    return store.events.offset(job_id)


def _unreadable(job_id: int, chunk: Read, offset: int, now: float) -> Incident:
    lines = chunk.unreadable
    return Incident(
        job_id=job_id,
        attempt=None,
        time=now,
        code="events_unreadable",
        text=f"{len(lines)} line{'s' * (len(lines) != 1)} of events.jsonl skipped; the first: {lines[0]}",
        evidence={"lines": len(lines), "first": lines[0], "between_bytes": [offset, chunk.offset]},
    )
