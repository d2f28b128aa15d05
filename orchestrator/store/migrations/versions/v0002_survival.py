"""Run plans, memory fits, the state of the queue, more columns of attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add it all; nothing that was there changes."""
    op.add_column("attempts", sa.Column("stage", sa.Integer))
    op.add_column("attempts", sa.Column("stderr_tail", sa.String))
    op.create_table(
        "stages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("decided_at", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
    )
    op.create_index("ix_stages_job_id", "stages", ["job_id"])
    op.create_table(
        "fits",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("fits", sa.Boolean, nullable=False),
        sa.Column("peak_bytes", sa.Integer),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("seen_at", sa.DOUBLE_PRECISION, nullable=False),
    )
    op.create_table(
        "queue",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("paused_at", sa.DOUBLE_PRECISION),
        sa.Column("because", sa.String),
    )
    op.execute("INSERT INTO queue (id) VALUES (1)")
