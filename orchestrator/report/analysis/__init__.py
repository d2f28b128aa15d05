"""The rules and statistics of a report. Values in, values out."""
