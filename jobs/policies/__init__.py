"""Rules that decide what lq does: pure functions that take values and return a decision."""
