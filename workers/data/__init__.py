"""Tokenized data sets, batches and their order."""
