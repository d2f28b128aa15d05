"""Checks JSON against the documented schemas: no undocumented field, no missing field."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from orchestrator.results.catalogue import CATALOGUE, NAMES, schema


@functools.cache
def validator(name: str) -> Draft202012Validator:
    """Return the validator of a schema."""
    return Draft202012Validator(schema(name))


def require(name: str, content: Any) -> None:
    """Assert that content matches its schema.

    Args:
        name: as in `lq config schema --of NAME`.
    """
    errors = [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(content)]
    assert not errors, f"{NAMES[name]} does not match its schema:\n" + "\n".join(errors[:5])


def require_printed(words: Sequence[str | float | Path], text: str) -> None:
    """Assert that the output of a verb with --json matches its schema.

    Args:
        words: the command line without `lq`.
        text: the output.
    """
    typed = [str(word) for word in words if not str(word).startswith("--")]
    names = ("check-row",) if "--show-row" in words else ("-".join(typed[:2]), typed[0])
    name = next((name for name in names if name in CATALOGUE), None)
    assert name is not None, f"lq {' '.join(typed[:2])} --json has no schema"
    for one in text.splitlines() if name in ("logs", "run") else [text]:
        require(name, json.loads(one))


def require_lines(path: Path) -> int:
    """Assert that every complete line of events.jsonl or events.jsonl.gz matches its schema; return their number."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("}\n")]
    for line in lines:
        require("events", json.loads(line))
    return len(lines)


def require_folder(job_dir: Path) -> None:
    """Assert that every JSON file of a trained job matches its schema."""
    (events,) = job_dir.glob("events.jsonl*")
    assert require_lines(events)
    for name, pattern in {
        "run_plan": "run_plan.json",
        "provenance": "provenance.json",
        "report": "report/report.json",
        "state": "checkpoints/step-*/state.json",
        "manifest": "checkpoints/step-*/manifest.json",
    }.items():
        found = sorted(job_dir.glob(pattern))
        assert found, f"no {pattern}"
        for path in found:
            require(name, json.loads(path.read_text()))
