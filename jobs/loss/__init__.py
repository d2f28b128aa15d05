"""The loss detector and what it looks at."""
