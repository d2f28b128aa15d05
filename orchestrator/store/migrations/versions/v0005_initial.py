"""The initial version: every table, on SQLite and on PostgreSQL. Versions 1 to 4 were never released."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NOT_ENDED = sa.text("ended_at IS NULL")


def upgrade() -> None:
    """Create all tables."""
    _create_jobs()
    _create_attempts()
    _create_metrics()
    _create_incidents()
    _create_facts()
    _create_outbox()
    _create_stages()
    _create_fits()
    _create_dependencies()
    _create_queue()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("detail", sa.String),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("iters", sa.Integer, nullable=False),
        sa.Column("job_dir", sa.String, nullable=False),
        sa.Column("spec_json", sa.String, nullable=False),
        sa.Column("submitted_at", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("started_at", sa.DOUBLE_PRECISION),
        sa.Column("ended_at", sa.DOUBLE_PRECISION),
        sa.Column("not_before", sa.DOUBLE_PRECISION),
        sa.Column("stop_request", sa.String),
        sa.Column("resumes", sa.String),
        sa.Column("owner_pid", sa.Integer),
        sa.Column("owner_create_time", sa.DOUBLE_PRECISION),
        sa.Column("owner_boot_id", sa.String),
        sa.Column("heartbeat_at", sa.DOUBLE_PRECISION),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("crashes_from", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("events_offset", BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("last_event_at", sa.DOUBLE_PRECISION),
        sa.Column("iteration", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("train_loss", sa.DOUBLE_PRECISION),
        sa.Column("val_loss", sa.DOUBLE_PRECISION),
        sa.Column("it_s", sa.DOUBLE_PRECISION),
        sa.Column("cleaned_at", sa.DOUBLE_PRECISION),
        sa.Column("group_name", sa.String),
        sa.Column("queue_position", sa.DOUBLE_PRECISION),
        sa.Column("inbox_sha256", sa.String),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_status", "jobs", ["status", "priority", "id"])
    for name in ("ended_at", "group_name", "inbox_sha256", "name"):
        op.create_index(f"ix_jobs_{name}", "jobs", [name])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, primary_key=True),
        _job_id(),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("child_pid", sa.Integer),
        sa.Column("child_create_time", sa.DOUBLE_PRECISION),
        sa.Column("child_boot_id", sa.String),
        sa.Column("started_at", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("ended_at", sa.DOUBLE_PRECISION),
        sa.Column("first_iteration", sa.Integer),
        sa.Column("last_iteration", sa.Integer),
        sa.Column("last_seq", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("phase", sa.String),
        sa.Column("resumed_from", sa.String),
        sa.Column("quality", sa.String),
        sa.Column("self_test", sa.JSON),
        sa.Column("exit_code", sa.Integer),
        sa.Column("signal", sa.Integer),
        sa.Column("outcome", sa.String),
        sa.Column("reason", sa.String),
        sa.Column("detail", sa.String),
        sa.Column("stage", sa.Integer),
        sa.Column("stderr_tail", sa.String),
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.UniqueConstraint("job_id", "number", name="uq_attempts_job_id_number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempts_ended_at", "attempts", ["ended_at"])
    op.create_index(
        "ix_attempts_running", "attempts", ["job_id"], unique=True, sqlite_where=NOT_ENDED, postgresql_where=NOT_ENDED
    )


def _create_metrics() -> None:
    _create_series(
        "progress_points",
        sa.Column("train_loss", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("learning_rate", sa.DOUBLE_PRECISION),
        sa.Column("it_s", sa.DOUBLE_PRECISION),
        sa.Column("tok_s", sa.DOUBLE_PRECISION),
        sa.Column("tokens", BIG),
        sa.Column("grad_norm", sa.DOUBLE_PRECISION),
        *(sa.Column(f"{kind}_bytes", BIG) for kind in ("active", "cache", "peak", "footprint", "swap", "limit")),
        sa.Column("skipped", sa.Integer),
    )
    _create_series(
        "validations",
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("loss", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("standard_error", sa.DOUBLE_PRECISION),
        sa.Column("examples", sa.Integer, nullable=False),
        sa.Column("seconds", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("row_losses", sa.JSON),
    )
    _create_series(
        "checkpoints",
        sa.Column("path", sa.String, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("seconds", sa.DOUBLE_PRECISION, nullable=False),
    )


def _create_series(name: str, *columns: sa.Column[Any]) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("time", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("superseded", sa.Boolean, nullable=False, server_default=sa.false()),
        *columns,
        sa.ForeignKeyConstraint(["job_id", "attempt"], ["attempts.job_id", "attempts.number"]),
    )
    op.create_index(f"ix_{name}_job_id", name, ["job_id", "iteration"])


def _create_incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer, primary_key=True),
        _job_id(),
        sa.Column("attempt", sa.Integer),
        sa.Column("time", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
    )
    op.create_index("ix_incidents_job_id", "incidents", ["job_id"])


def _create_facts() -> None:
    op.create_table(
        "facts",
        _job_id(primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("time", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id")),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False, unique=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("attachment", sa.String),
        sa.Column("tags", sa.JSON),
        sa.Column("created_at", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("next_try_at", sa.DOUBLE_PRECISION),
        sa.Column("settled", sa.String),
        sa.Column("services", sa.JSON, nullable=False),
        sa.Column("due_at", sa.DOUBLE_PRECISION),
    )
    op.create_index("ix_outbox_due", "outbox", ["settled", "next_try_at"])
    op.create_index("ix_outbox_event", "outbox", ["event"])
    op.create_index("ix_outbox_kind", "outbox", ["job_id", "event"])


def _create_stages() -> None:
    op.create_table(
        "stages",
        sa.Column("id", sa.Integer, primary_key=True),
        _job_id(),
        sa.Column("decided_at", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
    )
    op.create_index("ix_stages_job_id", "stages", ["job_id"])


def _create_fits() -> None:
    op.create_table(
        "fits",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("fits", sa.Boolean, nullable=False),
        sa.Column("peak_bytes", BIG),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("measured_at", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("it_s", sa.DOUBLE_PRECISION),
        sa.Column("start_s", sa.DOUBLE_PRECISION),
        sa.Column("validation_s", sa.DOUBLE_PRECISION),
    )


def _create_dependencies() -> None:
    op.create_table(
        "dependencies",
        _job_id(primary_key=True),
        sa.Column("on_job_id", sa.Integer, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("any_end", sa.Boolean, nullable=False),
    )


def _create_queue() -> None:
    op.create_table(
        "queue",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("paused_at", sa.DOUBLE_PRECISION),
        sa.Column("because", sa.String),
    )
    op.execute("INSERT INTO queue (id) VALUES (1)")


def _job_id(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), primary_key=primary_key, nullable=False)
