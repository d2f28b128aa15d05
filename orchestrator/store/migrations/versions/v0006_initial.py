"""The initial version: every table, on SQLite and on PostgreSQL. Versions 1 to 5 were never released.

This version is not released either, so its tables are those of schema.py. Its release writes them out here.
"""

from __future__ import annotations

from alembic import op

from orchestrator.store.schema import create_tables

revision = "0006"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    create_tables(op.get_bind())
