"""Child processes: start, adopt, stop, lock."""
