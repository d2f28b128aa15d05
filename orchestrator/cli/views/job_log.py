"""What is told of a job, in lines: what its trainer says, and between that what lq saw and decided, each once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import takewhile

from jobs.model.events import Event, Kind
from jobs.model.job import Incident
from orchestrator.core.app import App
from orchestrator.formatting.events import incident_line, line, style_of, style_of_incident


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """A line, and what it tells of."""

    of: Event | Incident
    text: str
    style: str  # orchestrator/cli/views/terminal.py


class AttemptRunner:
    """A job's story from its beginning.

    What a trainer warns of is an event of its own and, as soon as the worker has read that, an incident of the same
    time; whichever is found first is told, and the other is not.
    """

    def __init__(self, app: App, job_id: int) -> None:
        """Begin with the job's first incident.

        Args:
            app: where the job is.
            job_id: the job.
        """
        self._app, self._job_id = app, job_id
        self._incidents_at: list[float] = []  # times of the incidents that were read
        self._warned_at: set[float] = set()  # times of the events that may come as incidents too

    def of(self, event: Event) -> Iterator[Told]:
        """Yield what an event tells, after what was decided before the attempt that it begins."""
        if event.kind is Kind.STARTED:
            yield from self._incidents(event.time)
        if event.kind in (Kind.WARNING, Kind.SELF_TEST):
            if event.time in self._incidents_at:
                return
            self._warned_at.add(event.time)
        text = line(event)
        if text is not None:
            yield Told(of=event, text=text, style=style_of(event))

    def so_far(self) -> Iterator[Told]:
        """Yield what lq saw and decided since, once all that the trainer has said is told."""
        return self._incidents(None)

    def _incidents(self, before: float | None) -> Iterator[Told]:
        found = self._app.store.incidents.of(self._job_id)[len(self._incidents_at) :]
        due = list(takewhile(lambda one: before is None or one.time < before, found))
        self._incidents_at += [one.time for one in due]
        for one in due:
            if one.time not in self._warned_at:
                yield Told(of=one, text=incident_line(one), style=style_of_incident(one))
