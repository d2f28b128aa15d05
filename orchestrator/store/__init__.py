"""The store: the records of every job, in SQLite. The only package that speaks SQL; it takes and returns values."""
