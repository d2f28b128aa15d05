"""The first version: jobs, attempts, what was seen on the way, incidents, outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    _create_jobs()
    _create_attempts()
    _create_points()
    _create_validations()
    _create_checkpoints()
    _create_incidents()
    _create_outbox()


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
        sa.Column("events_offset", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("last_event_at", sa.DOUBLE_PRECISION),
        sa.Column("iteration", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("train_loss", sa.DOUBLE_PRECISION),
        sa.Column("val_loss", sa.DOUBLE_PRECISION),
        sa.Column("it_s", sa.DOUBLE_PRECISION),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_status", "jobs", ["status", "priority", "id"])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), nullable=False),
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
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.text("0")),
        sa.UniqueConstraint("job_id", "number", name="uq_attempts_job_id_number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempts_living", "attempts", ["job_id"], unique=True, sqlite_where=sa.text("ended_at IS NULL"))


def _seen() -> list[sa.Column[int] | sa.Column[float] | sa.Column[bool]]:
    return [
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("time", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("superseded", sa.Boolean, nullable=False, server_default=sa.text("0")),
    ]


def _of_attempt() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["job_id", "attempt"], ["attempts.job_id", "attempts.number"])


def _create_points() -> None:
    op.create_table(
        "progress_points",
        *_seen(),
        sa.Column("train_loss", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("learning_rate", sa.DOUBLE_PRECISION),
        sa.Column("it_s", sa.DOUBLE_PRECISION),
        sa.Column("tok_s", sa.DOUBLE_PRECISION),
        sa.Column("tokens", sa.Integer),
        sa.Column("grad_norm", sa.DOUBLE_PRECISION),
        sa.Column("active_bytes", sa.Integer),
        sa.Column("cache_bytes", sa.Integer),
        sa.Column("peak_bytes", sa.Integer),
        sa.Column("footprint_bytes", sa.Integer),
        _of_attempt(),
    )
    op.create_index("ix_progress_points_job_id", "progress_points", ["job_id", "iteration"])


def _create_validations() -> None:
    op.create_table(
        "validations",
        *_seen(),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("loss", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("standard_error", sa.DOUBLE_PRECISION),
        sa.Column("examples", sa.Integer, nullable=False),
        sa.Column("seconds", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("row_losses", sa.JSON),
        _of_attempt(),
    )
    op.create_index("ix_validations_job_id", "validations", ["job_id", "iteration"])


def _create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        *_seen(),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("seconds", sa.DOUBLE_PRECISION, nullable=False),
        _of_attempt(),
    )
    op.create_index("ix_checkpoints_job_id", "checkpoints", ["job_id", "iteration"])


def _create_incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("time", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
    )
    op.create_index("ix_incidents_job_id", "incidents", ["job_id"])


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
    )
    op.create_index("ix_outbox_due", "outbox", ["settled", "next_try_at"])
