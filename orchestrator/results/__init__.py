"""The results that verbs build and print with `--json`, the JSON files of lq as types, and the JSON Schemas of both.

Start at catalogue.py. A verb imports its result module only to print JSON, so that `lq status` starts fast.
"""
