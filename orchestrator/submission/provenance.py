"""provenance.json of a job, written at submit: where the job came from, and what it runs on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.model.job import Job
from orchestrator.estimation import disk
from orchestrator.model_files.hashes import FileHash, to_json
from workers.checkpoints import publishing
from workers.system import processor

if TYPE_CHECKING:
    from orchestrator.submission.submit import Checked

VERSION = 2
_PACKAGES = ("lq", "mlx", "mlx-lm", "huey", "sqlalchemy", "numpy", "transformers", "tokenizers")


def provenance(checked: Checked, files: Sequence[FileHash]) -> dict[str, Any]:
    """Return the content of provenance.json; `files` are the model's."""
    loaded = checked.loaded
    return {
        "version": VERSION,
        "submitted": {
            "file": str(loaded.source),
            "sha256": hashlib.sha256(loaded.content).hexdigest(),
            "set": list(loaded.sets),
            "matrix": dict(loaded.varied),
            "retry_of": checked.retry_of,
        },
        "host": {"name": platform.node(), "platform": platform.platform(), "machine": processor.machine()},
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "model": {"name": loaded.spec.model, "files": to_json(files)},
        "data": dataclasses.asdict(checked.facts),
        publishing.AGREED: dict(checked.overwrites),
        disk.RECORDED: disk.recorded(checked.need),
    }


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def read(job: Job) -> Mapping[str, Any]:
    """Return the content of a job's provenance.json; empty if it cannot be read."""
    try:
        content = json.loads(job.dir.provenance.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def train_rows(job: Job) -> int | None:
    """Return the rows of the training set at submit; None if they were not counted."""
    return _rows(job, "train.jsonl")


def valid_rows(job: Job) -> int | None:
    """Return the rows of the validation set at submit, 0 if there is none; None if they were not counted."""
    return _rows(job, "valid.jsonl", 0)


def _rows(job: Job, name: str, absent: int | None = None) -> int | None:
    try:
        data = read(job)["data"]
        rows = data["files"][name]["rows"] if name in data["files"] or data["source"] != "folder" else absent
        return None if rows is None else int(rows)
    except (ValueError, KeyError, TypeError):
        return None
