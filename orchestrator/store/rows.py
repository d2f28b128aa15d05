"""Conversions between rows and the values of jobs/model/job.py."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from sqlalchemy import Column, RowMapping, Table

from jobs.model.events import MeasuredRewards, finite
from jobs.model.job import Attempt, Incident, Job, Message, NewMessage, ProcessIdentity, ServiceResult, Validation
from jobs.model.states import Status

_T = TypeVar("_T")


def fields_of(table: Table[Any], value: type[Any]) -> list[Column[Any]]:
    """Return the columns that have the name of a field of `value`."""
    return [column for column in table.columns if column.name in _names(value)]


def from_row(value: type[_T], row: RowMapping, **others: Any) -> _T:
    """Read a value from the columns that have the names of its fields; `others` are fields without such a column."""
    return value(**{name: row[name] for name in _names(value) if name not in others}, **others)


def _names(value: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(value))


def to_identity(row: RowMapping, who: str) -> ProcessIdentity | None:
    """Read the columns `<who>_pid`, `<who>_create_time` and `<who>_boot_id`."""
    fields = {name: row[f"{who}_{name}"] for name in _names(ProcessIdentity)}
    return None if fields["pid"] is None else ProcessIdentity(**fields)


def from_identity(identity: ProcessIdentity | None, who: str) -> dict[str, Any]:
    """Return the columns `<who>_pid`, `<who>_create_time` and `<who>_boot_id`."""
    return {f"{who}_{name}": identity and getattr(identity, name) for name in _names(ProcessIdentity)}


def to_job(row: RowMapping) -> Job:
    """Read a row of jobs, joined with the process of its running attempt."""
    identities = {"owner": to_identity(row, "owner"), "child": to_identity(row, "child")}
    return from_row(Job, row, status=Status(row["status"]), **identities)


def to_attempt(row: RowMapping) -> Attempt:
    """Read a row of attempts."""
    return from_row(Attempt, row, child=to_identity(row, "child"))


def to_validation(row: RowMapping) -> Validation:
    """Read a row of validations."""
    losses, rewards = row["row_losses"], row["rewards"]
    return from_row(
        Validation,
        row,
        row_losses=None if losses is None else tuple(float(loss) for loss in losses),
        rewards=None if rewards is None else MeasuredRewards.from_data(rewards),
    )


def from_incident(incident: Incident) -> dict[str, Any]:
    """Return the columns of an incident."""
    return vars(incident) | {"evidence": finite(dict(incident.evidence))}


def to_message(row: RowMapping) -> Message:
    """Read a row of outbox."""
    tags = None if row["tags"] is None else tuple(row["tags"])
    return from_row(Message, row, tags=tags, services=tuple(ServiceResult(**service) for service in row["services"]))


def from_message(message: NewMessage, now: float, due_at: float) -> dict[str, Any]:
    """Return the columns of a message whose first try is due at `due_at`."""
    tags = None if message.tags is None else list(message.tags)
    plain = dataclasses.asdict(message) | {"tags": tags}
    return plain | {"created_at": now, "next_try_at": due_at, "due_at": due_at, "services": []}
