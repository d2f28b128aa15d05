"""Forecasts for the queue: plans, dry runs and start times."""
