"""Alembic's entry: runs the versions inside the transaction that the store has already begun."""

from __future__ import annotations

from alembic import context

# transactional_ddl: SQLite can roll back tables too, so a failed version leaves the store as it was
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
