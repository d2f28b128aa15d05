"""What is known about a model from its files, without loading it. Start at files.py."""
