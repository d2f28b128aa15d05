"""Formulas for memory, time and disk. Pure functions."""
