"""The entry point of Alembic: run the revisions inside the transaction that `versions.upgrade` received."""

from __future__ import annotations

from alembic import context

# transactional_ddl: SQLite and PostgreSQL can roll back tables too, so a failed upgrade changes nothing
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
