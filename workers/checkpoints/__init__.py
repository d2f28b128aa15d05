"""Checkpoints, adapters and the files they consist of."""
