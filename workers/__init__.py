"""One training run and its keeper. No SQL, no Huey, no network."""
