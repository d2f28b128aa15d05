"""The length of a run, written as epochs or as shares: `lq.epochs`, and percentages in `lr_schedule`.

They become `iters` and numbers of updates before a file is checked, so that nothing else has to know of them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from configs.errors import KeyPath, Problem
from configs.optimizers import SCHEDULES, STEPS
from configs.overrides import Override, apply_overrides
from configs.paths import data_folder
from configs.yaml_text import Document
from jobs.model.spec import JobSpec

EPOCHS: KeyPath = ("lq", "epochs")
WARMUP: KeyPath = ("lr_schedule", "warmup")

SHARE = r"\s*(\d+(?:\.\d+)?)\s*%\s*"
"""A share of a run, such as 10%."""


def with_length(document: Document, *, current: Path) -> tuple[Document, list[str], list[Problem]]:
    """Return a document without a matrix with numbers of iterations and updates, notes for the user, and problems."""
    iters, notes, problems = _iterations(document, current)
    changes: dict[KeyPath, Any] = {} if iters is None else {("iters",): iters}
    changes |= _updates(document, iters or _number(document.value, "iters"))
    overrides = [
        Override(key_path=key_path, value=value, lines={key_path: line})
        for key_path, value in changes.items()
        if (line := document.line(EPOCHS if key_path == ("iters",) else key_path)) is not None
    ]
    return apply_overrides(document, overrides), notes, problems


def _iterations(document: Document, current: Path) -> tuple[int | None, list[str], list[Problem]]:
    """Return the iterations of `lq.epochs`, notes and problems; None without epochs that can be calculated."""
    own = document.value.get("lq")
    epochs = own.get(EPOCHS[-1]) if isinstance(own, dict) else None
    batch_size, accumulated = (_number(document.value, key) for key in ("batch_size", "grad_accumulation_steps"))
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs < 1e9:
        return None, [], []  # absent, or refused by the check of the types
    if batch_size < 1 or accumulated < 1:
        return None, [], []
    rows = _rows(document, current)
    if rows is None:
        text = "the rows of a data set of the hub are not known before the download; set iters"
        return None, [], [document.problem(EPOCHS, text)]
    updates = math.ceil(epochs * (rows // batch_size) / accumulated)
    iters = max(updates, 1) * accumulated
    given = document.value.get("iters")
    if given is not None and _number(document.value, "iters") != iters:
        text = f"{epochs:g} epochs are {iters:,} iterations, but iters is {given}; remove one of them"
        return None, [], [document.problem(EPOCHS, text)]
    return iters, [f"{epochs:g} epochs of {rows:,} rows: {iters:,} iterations"] if given is None else [], []


def _rows(document: Document, current: Path) -> int | None:
    """Return the lines of train.jsonl, 0 if it cannot be read; None for a data set of the hub."""
    folder = data_folder(document, current)
    if folder is None:
        return None
    try:
        with (folder / "train.jsonl").open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0  # the check of the data names the file


def _updates(document: Document, iters: int) -> dict[KeyPath, int]:
    """Return the numbers of updates for the shares in `lr_schedule`: of the run, or of what follows the warm-up."""
    schedule = document.value.get("lr_schedule")
    if not isinstance(schedule, dict):
        return {}
    total = max(1, iters // max(1, _number(document.value, "grad_accumulation_steps")))
    changes: dict[KeyPath, int] = {}
    warmup = schedule.get(WARMUP[-1], 0)
    if (share := _share(warmup)) is not None:
        warmup = changes[WARMUP] = round(share * total)
    arguments, names = schedule.get("arguments"), SCHEDULES.get(str(schedule.get("name")), ())
    if isinstance(arguments, list) and isinstance(warmup, int):
        for index, (name, value) in enumerate(zip(names, arguments, strict=False)):
            if name in STEPS and (share := _share(value)) is not None:
                changes["lr_schedule", "arguments", index] = max(1, round(share * (total - warmup)))
    return changes


def _share(value: object) -> float | None:
    match = re.fullmatch(SHARE, value) if isinstance(value, str) else None
    return float(match[1]) / 100 if match is not None and float(match[1]) <= 100 else None


def _number(value: dict[str, Any], key: str) -> int:
    """Return a whole number of the file, or the default; 0 if the file has something else."""
    given = value.get(key)
    if given is None:
        given = JobSpec.model_fields[key].default
    return int(given) if isinstance(given, int | float) and given == int(given) and not isinstance(given, bool) else 0
