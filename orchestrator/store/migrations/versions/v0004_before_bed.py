"""What jobs wait for, groups, an order that people change, files that were dropped, how fast configurations ran."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add it all; nothing that was there changes."""
    op.add_column("jobs", sa.Column("group_name", sa.String))
    op.add_column("jobs", sa.Column("place", sa.DOUBLE_PRECISION))
    op.add_column("jobs", sa.Column("dropped_sha256", sa.String))
    for name in ("it_s", "start_s", "validation_s"):
        op.add_column("fits", sa.Column(name, sa.DOUBLE_PRECISION))
    op.create_table(
        "dependencies",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("on_job_id", sa.Integer, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("any_end", sa.Boolean, nullable=False),
    )
    op.create_index("ix_jobs_group_name", "jobs", ["group_name"])
    op.create_index("ix_jobs_dropped_sha256", "jobs", ["dropped_sha256"])
