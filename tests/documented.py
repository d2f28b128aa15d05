"""What machines are given, against what is documented: nothing undocumented, nothing missing."""

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
    """Return what checks against a documented schema."""
    return Draft202012Validator(schema(name))


def require(name: str, content: Any) -> None:
    """Insist that something is as it is documented.

    Args:
        name: as in `lq config schema --of NAME`.
        content: what was read.
    """
    errors = [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(content)]
    assert not errors, f"{NAMES[name]} is not as documented:\n" + "\n".join(errors[:5])


def require_printed(words: Sequence[str | float | Path], text: str) -> None:
    """Insist that what a verb printed with --json is as it is documented.

    Args:
        words: the command line, without `lq`.
        text: what it printed.
    """
    typed = [str(word) for word in words if not str(word).startswith("--")]
    name = next((name for name in ("-".join(typed[:2]), typed[0]) if name in CATALOGUE), None)
    assert name is not None, f"what lq {' '.join(typed[:2])} prints with --json is documented nowhere"
    for one in text.splitlines() if name in ("logs", "run") else [text]:
        require(name, json.loads(one))


def require_lines(path: Path) -> int:
    """Insist that every whole line of an events.jsonl, or of one that was compressed, is as documented; count them."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("}\n")]
    for line in lines:
        require("events", json.loads(line))
    return len(lines)


def require_folder(job_dir: Path) -> None:
    """Insist that every JSON file of a job that was trained is as documented."""
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
