"""Job files as people publish them: each with where its style comes from, and what should become of it."""
