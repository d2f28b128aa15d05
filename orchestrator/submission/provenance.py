"""The row counts that a job's provenance.json records at submit."""

from __future__ import annotations

import json

from jobs.model.job import Job


def train_rows(job: Job) -> int | None:
    """Return the rows of the training set as counted at submit; None where they were not."""
    return _rows(job, "train.jsonl")


def valid_rows(job: Job) -> int | None:
    """Return the rows of the validation set as counted at submit, 0 where there is none; None where they were not."""
    return _rows(job, "valid.jsonl", 0)


def _rows(job: Job, name: str, absent: int | None = None) -> int | None:
    try:
        data = json.loads(job.dir.provenance.read_text())["data"]
        rows = data["files"][name]["rows"] if name in data["files"] or data["source"] != "folder" else absent
        return None if rows is None else int(rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None
