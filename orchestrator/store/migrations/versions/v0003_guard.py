"""Lost iterations, swap and limit, what the trainer alone sees, when a job was cleaned, when a message is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it all; nothing that was there changes."""
    op.add_column("progress_points", sa.Column("skipped", sa.Integer))
    op.add_column("jobs", sa.Column("cleaned_at", sa.DOUBLE_PRECISION))
    op.add_column("outbox", sa.Column("due_at", sa.DOUBLE_PRECISION))
    op.create_index("ix_outbox_kind", "outbox", ["job_id", "event"])
    for name in ("swap_bytes", "limit_bytes"):
        op.add_column("progress_points", sa.Column(name, sa.Integer))
    op.create_table(
        "facts",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("time", sa.DOUBLE_PRECISION, nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
