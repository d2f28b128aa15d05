"""What machines read, field by field: a JSON Schema of every --json and of every JSON file that lq writes.

Begin at catalogue.py. No verb imports this room while it runs, but `lq config schema`: it takes pydantic.
"""
