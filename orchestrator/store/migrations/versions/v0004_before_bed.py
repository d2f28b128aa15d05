"""What jobs wait for, groups, a changed order, dropped files, how fast configurations ran; long histories."""

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
    _long_histories()


def _long_histories() -> None:
    """Make what is asked about ten thousand jobs and a million points cost no look at each of them."""
    op.add_column("jobs", sa.Column("thinned_from", sa.Integer))
    op.create_index("ix_jobs_name", "jobs", ["name"])
    op.create_index("ix_jobs_ended_at", "jobs", ["ended_at"])
    op.create_index("ix_attempts_ended_at", "attempts", ["ended_at"])
    op.create_index("ix_outbox_event", "outbox", ["event"])
