"""How many iterations of each report did not count, when a job was cleaned, when a message is first due."""

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
