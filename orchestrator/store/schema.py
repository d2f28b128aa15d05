"""The tables at the newest version. Queries are in the other modules, upgrades from older versions in migrations/."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Named,
    PrimaryKeyConstraint,
    String,
    Table,
    TypedColumns,
    UniqueConstraint,
    false,
    insert,
    text,
)
from sqlalchemy.types import UserDefinedType


class Number(UserDefinedType[float]):
    """A float that may be nan or infinite: SQLite turns nan into NULL, so such values are stored as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the column's type in SQL."""
        return "DOUBLE PRECISION"

    def bind_processor(self, dialect: Dialect) -> Callable[[float | None], float | str | None]:
        """Return the function that converts a float to the stored value."""
        return lambda value: value if value is None or math.isfinite(value) else str(float(value))

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], float | None]:
        """Return the function that converts the stored value to a float."""
        return lambda value: None if value is None else float(value)


def _json() -> JSON[Any]:
    return JSON(none_as_null=True)


Big = BigInteger().with_variant(Integer, "sqlite")
"""An integer that may exceed 4 bytes. On SQLite every integer may."""

_NOT_ENDED = text("ended_at IS NULL")

metadata = MetaData()

_T = TypeVar("_T", bound=TypedColumns)


class JobColumns(TypedColumns):
    """A job, with its latest numbers, so that `lq status` is one query."""

    id = Column(Integer, primary_key=True)
    name: Named[str] = Column(index=True)
    status: Named[str]
    reason: Named[str | None]
    detail: Named[str | None]
    priority: Named[int]
    iters: Named[int]
    job_dir: Named[str]
    spec_json: Named[str]
    submitted_at: Named[float] = Column(Number)
    started_at: Named[float | None] = Column(Number)
    ended_at: Named[float | None] = Column(Number)
    not_before: Named[float | None] = Column(Number)
    stop_request: Named[str | None]
    resumes: Named[str | None]  # at_worker_start if the worker paused the job
    owner_pid: Named[int | None]
    owner_create_time: Named[float | None] = Column(Number)
    owner_boot_id: Named[str | None]
    heartbeat_at: Named[float | None] = Column(Number)
    attempts: Named[int] = Column(server_default=text("0"))
    crashes_from: Named[int] = Column(server_default=text("0"))  # crashes of attempts after this number count
    events_offset: Named[int] = Column(Big, server_default=text("0"))  # bytes of events.jsonl ingested
    last_event_at: Named[float | None] = Column(Number)
    iteration: Named[int] = Column(server_default=text("0"))
    train_loss: Named[float | None] = Column(Number)
    val_loss: Named[float | None] = Column(Number)
    it_s: Named[float | None] = Column(Number)
    cleaned_at: Named[float | None] = Column(Number)  # when `lq clean` deleted its checkpoints and logs
    dismissed_at: Named[float | None] = Column(Number)  # when `lq dismiss` took it off the status view
    group_name: Named[str | None] = Column(index=True)  # of the sweep that it belongs to
    queue_position: Named[float | None] = Column(Number)  # among jobs of its priority, if it was moved; else its id
    inbox_sha256: Named[str | None] = Column(index=True)  # of the file in the inbox that it comes from


jobs = Table(
    "jobs",
    metadata,
    JobColumns,
    Index("ix_jobs_status", "status", "priority", "id"),
    Index("ix_jobs_ended_at", "ended_at", "dismissed_at"),
    sqlite_autoincrement=True,  # ids are never reused
)


class AttemptColumns(TypedColumns):
    """One run of a trainer process."""

    id = Column(Integer, primary_key=True)
    job_id: Named[int] = Column(ForeignKey("jobs.id"))
    number: Named[int]
    child_pid: Named[int | None]
    child_create_time: Named[float | None] = Column(Number)
    child_boot_id: Named[str | None]
    started_at: Named[float] = Column(Number)
    ended_at: Named[float | None] = Column(Number, index=True)
    first_iteration: Named[int | None]
    last_iteration: Named[int | None]
    last_seq: Named[int] = Column(server_default=text("0"))  # of the last event ingested
    phase: Named[str | None]
    resumed_from: Named[str | None]
    quality: Named[str | None]
    self_test: Named[dict[str, Any] | None] = Column(_json())
    exit_code: Named[int | None]
    signal: Named[int | None]
    outcome: Named[str | None]
    reason: Named[str | None]
    detail: Named[str | None]
    stage: Named[int | None]  # index of the stage that it began with
    stderr_tail: Named[str | None]  # last lines of its output, if it crashed
    settled: Named[bool] = Column(server_default=false())  # a Decision about its end has been carried out


attempts = Table(
    "attempts",
    metadata,
    AttemptColumns,
    UniqueConstraint("job_id", "number", name="uq_attempts_job_id_number"),
    # the database itself ensures that no job runs twice
    Index("ix_attempts_running", "job_id", unique=True, sqlite_where=_NOT_ENDED),
    sqlite_autoincrement=True,
)


class MetricColumns(TypedColumns):
    """The columns that all metrics have."""

    id = Column(Integer, primary_key=True)
    job_id: Named[int]
    attempt: Named[int]  # its number
    iteration: Named[int]
    time: Named[float] = Column(Number)
    superseded: Named[bool] = Column(server_default=false())  # a later attempt repeated this iteration


class PointColumns(MetricColumns):
    """A progress point."""

    train_loss: Named[float] = Column(Number)
    learning_rate: Named[float | None] = Column(Number)
    it_s: Named[float | None] = Column(Number)
    tok_s: Named[float | None] = Column(Number)
    tokens: Named[int | None] = Column(Big)
    grad_norm: Named[float | None] = Column(Number)
    active_bytes: Named[int | None] = Column(Big)
    cache_bytes: Named[int | None] = Column(Big)
    peak_bytes: Named[int | None] = Column(Big)
    footprint_bytes: Named[int | None] = Column(Big)
    swap_bytes: Named[int | None] = Column(Big)
    limit_bytes: Named[int | None] = Column(Big)
    skipped: Named[int | None]  # iterations whose update was not applied
    chosen_reward: Named[float | None] = Column(Number)  # mean over the report, of a preference run
    rejected_reward: Named[float | None] = Column(Number)
    accuracy: Named[float | None] = Column(Number)


class ValidationColumns(MetricColumns):
    """A measurement on the validation set or the test set."""

    kind: Named[str]
    loss: Named[float] = Column(Number)
    standard_error: Named[float | None] = Column(Number)
    examples: Named[int]
    seconds: Named[float] = Column(Number)
    row_losses: Named[list[Any] | None] = Column(_json())
    rewards: Named[dict[str, Any] | None] = Column(_json())  # the fields of MeasuredRewards


class CheckpointColumns(MetricColumns):
    """A checkpoint that the trainer reported."""

    path: Named[str]
    size_bytes: Named[int] = Column(Big)
    seconds: Named[float] = Column(Number)


def _series(name: str, columns: type[_T]) -> Table[_T]:
    of_attempt = ForeignKeyConstraint(["job_id", "attempt"], ["attempts.job_id", "attempts.number"])
    return Table(name, metadata, columns, of_attempt, Index(f"ix_{name}_job_id", "job_id", "iteration"))


points = _series("progress_points", PointColumns)
validations = _series("validations", ValidationColumns)
checkpoints = _series("checkpoints", CheckpointColumns)


class IncidentColumns(TypedColumns):
    """Something that the report must mention, with the numbers that a rule used."""

    id = Column(Integer, primary_key=True)
    job_id: Named[int] = Column(ForeignKey("jobs.id"), index=True)
    attempt: Named[int | None]
    time: Named[float] = Column(Number)
    code: Named[str]
    text: Named[str]
    evidence: Named[dict[str, Any]] = Column(_json())


incidents = Table("incidents", metadata, IncidentColumns)


class FactColumns(TypedColumns):
    """Something that only the trainer can measure. A later one of the same name replaces it."""

    job_id: Named[int] = Column(ForeignKey("jobs.id"), primary_key=True)
    name: Named[str] = Column(String(), primary_key=True)
    attempt: Named[int]
    time: Named[float] = Column(Number)
    value: Named[Any] = Column(_json())


facts = Table("facts", metadata, FactColumns)


class OutboxColumns(TypedColumns):
    """A message that is delivered later."""

    id = Column(Integer, primary_key=True)
    job_id: Named[int | None] = Column(ForeignKey("jobs.id"))
    event: Named[str] = Column(index=True)
    key: Named[str] = Column(String(), unique=True)
    title: Named[str]
    body: Named[str]
    attachment: Named[str | None]
    tags: Named[list[str] | None] = Column(_json())
    created_at: Named[float] = Column(Number)
    next_try_at: Named[float | None] = Column(Number)
    settled: Named[str | None]
    services: Named[list[dict[str, Any]]] = Column(_json())
    due_at: Named[float | None] = Column(Number)  # earliest time of its first try


outbox = Table(
    "outbox",
    metadata,
    OutboxColumns,
    Index("ix_outbox_due", "settled", "next_try_at"),
    Index("ix_outbox_kind", "job_id", "event"),
)


class StageColumns(TypedColumns):
    """A stage that a Decision appended to a job's run plan. The first stage comes from the spec."""

    id = Column(Integer, primary_key=True)
    job_id: Named[int] = Column(ForeignKey("jobs.id"), index=True)
    decided_at: Named[float] = Column(Number)
    content: Named[dict[str, Any]] = Column(_json())


stages = Table("stages", metadata, StageColumns)


class FitColumns(TypedColumns):
    """The measured memory and speed of a configuration on this machine."""

    key: Named[str] = Column(String(), primary_key=True)
    fits: Named[bool]
    peak_bytes: Named[int | None] = Column(Big)
    job_id: Named[int]  # the job that measured it
    measured_at: Named[float] = Column(Number)
    it_s: Named[float | None] = Column(Number)  # iterations per second
    start_s: Named[float | None] = Column(Number)  # from the start of a trainer to its first iteration
    validation_s: Named[float | None] = Column(Number)  # one validation


fits = Table("fits", metadata, FitColumns)


class DependencyColumns(TypedColumns):
    """A job that must end before another one may start."""

    job_id: Named[int] = Column(ForeignKey("jobs.id"), primary_key=True)
    on_job_id: Named[int] = Column(ForeignKey("jobs.id"), primary_key=True)
    any_end: Named[bool]  # true: it may end in any state; false: it must succeed


dependencies = Table("dependencies", metadata, DependencyColumns)


class QueueColumns(TypedColumns):
    """The state of the queue, in one row."""

    id = Column(Integer, primary_key=True)
    paused_at: Named[float | None] = Column(Number)
    because: Named[str | None]
    cause: Named[str | None]  # the check of lq doctor whose success resumes it; null if only the user does


queue = Table("queue", metadata, QueueColumns)

_version = Table(
    "alembic_version",
    MetaData(),  # Alembic's own: it is not in `metadata`, so that no revision changes it
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def create_all(connection: Connection, version: str) -> None:
    """Create what the revisions up to `version`, the newest one, would create in an empty database."""
    create_tables(connection)
    _version.create(connection)
    connection.execute(insert(_version).values(version_num=version))


def create_tables(connection: Connection) -> None:
    """Create the tables in an empty database."""
    if connection.dialect.name == "postgresql":  # naming the option above would import that dialect in every command
        (running,) = (index for index in attempts.indexes if index.name == "ix_attempts_running")
        running.dialect_kwargs["postgresql_where"] = _NOT_ENDED
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(queue).values(id=1))
