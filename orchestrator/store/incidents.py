"""Incidents: what the report must mention, with the numbers that a rule used."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from jobs.model.job import Incident, NewMessage
from orchestrator.store.database import Records
from orchestrator.store.outbox import insert_messages
from orchestrator.store.rows import fields_of, from_incident
from orchestrator.store.schema import incidents


class IncidentRecords(Records):
    """Incidents of jobs."""

    def of(self, job_id: int) -> list[Incident]:
        """Return the incidents of a job in the order in which they were recorded."""
        query = select(*fields_of(incidents, Incident)).where(incidents.c.job_id == job_id).order_by(incidents.c.id)
        return [Incident(**row) for row in self._rows(query)]

    def add(self, incident: Incident, messages: Sequence[NewMessage] = ()) -> None:
        """Record an incident without another change of the store, and the messages that it causes."""
        with self._database.writing() as db:
            insert_incidents(db, [incident])
            insert_messages(db, messages, incident.time)


def insert_incidents(db: Connection, new: Sequence[Incident]) -> None:
    """Record incidents together with their cause."""
    if new:
        db.execute(insert(incidents), [from_incident(incident) for incident in new])
