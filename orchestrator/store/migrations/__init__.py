"""The way from any older store to the newest version. Alembic runs it; nothing else imports it."""
