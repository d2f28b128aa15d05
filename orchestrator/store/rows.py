"""Conversions between rows and the values of jobs/model/job.py."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import Column, RowMapping, Table

from jobs.model.events import finite
from jobs.model.job import Attempt, Incident, Job, Message, NewMessage, ProcessIdentity, ServiceResult, Validation
from jobs.model.states import Status


def fields_of(table: Table[Any], value: type[Any]) -> list[Column[Any]]:
    """Return the columns that have the name of a field of `value`."""
    names = {field.name for field in dataclasses.fields(value)}
    return [column for column in table.columns if column.name in names]


def to_identity(row: RowMapping, who: str) -> ProcessIdentity | None:
    """Read the columns `<who>_pid`, `<who>_create_time` and `<who>_boot_id`."""
    if row[f"{who}_pid"] is None:
        return None
    return ProcessIdentity(pid=row[f"{who}_pid"], create_time=row[f"{who}_create_time"], boot_id=row[f"{who}_boot_id"])


def from_identity(identity: ProcessIdentity | None, who: str) -> dict[str, Any]:
    """Return the columns `<who>_pid`, `<who>_create_time` and `<who>_boot_id`."""
    return {
        f"{who}_pid": identity and identity.pid,
        f"{who}_create_time": identity and identity.create_time,
        f"{who}_boot_id": identity and identity.boot_id,
    }


def to_job(row: RowMapping) -> Job:
    """Read a row of jobs, joined with the process of its running attempt."""
    plain = {name: row[name] for name in _PLAIN_JOB_FIELDS}
    return Job(
        **plain,
        status=Status(row["status"]),
        owner=to_identity(row, "owner"),
        child=to_identity(row, "child"),
    )


_PLAIN_JOB_FIELDS = [field.name for field in dataclasses.fields(Job) if field.name not in {"status", "owner", "child"}]


def to_attempt(row: RowMapping) -> Attempt:
    """Read a row of attempts."""
    plain = {field.name: row[field.name] for field in dataclasses.fields(Attempt) if field.name != "child"}
    return Attempt(**plain, child=to_identity(row, "child"))


def to_validation(**row: Any) -> Validation:
    """Read a row of validations."""
    losses = row["row_losses"]
    return Validation(**row | {"row_losses": None if losses is None else tuple(float(loss) for loss in losses)})


def from_incident(incident: Incident) -> dict[str, Any]:
    """Return the columns of an incident."""
    return {field.name: getattr(incident, field.name) for field in dataclasses.fields(incident)} | {
        "evidence": finite(dict(incident.evidence))
    }


def to_message(row: RowMapping) -> Message:
    """Read a row of outbox."""
    tags = row["tags"]
    services = tuple(ServiceResult(**service) for service in row["services"])
    return Message(**{**row, "tags": None if tags is None else tuple(tags), "services": services})


def from_message(message: NewMessage, now: float, due_at: float) -> dict[str, Any]:
    """Return the columns of a message whose first try is due at `due_at`."""
    tags = None if message.tags is None else list(message.tags)
    plain = dataclasses.asdict(message) | {"tags": tags}
    return plain | {"created_at": now, "next_try_at": due_at, "due_at": due_at, "services": []}
