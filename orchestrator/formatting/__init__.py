"""Numbers, sizes, durations, times, Markdown and event lines as text."""
