"""Durable file writes and the paths of a job's files."""
