"""Estimates of memory, time and disk for a run, from a formula and from earlier runs."""
