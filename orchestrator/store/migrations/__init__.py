"""The Alembic revisions. Alembic loads them; no other module imports them."""
