"""Labels of the jobs of a sweep: short and unique, such as `lr=1e-5 r=8`."""

from __future__ import annotations

import dataclasses
import decimal
import math
import re
from collections.abc import Sequence
from typing import Any

from configs.errors import one_line

MAX_NAME = 80  # characters of a job's name, as in jobs/model/spec.py

_MAX_LABEL = 60  # leaves room for the name of the file
_MAX_VALUE = 24

_SHORT = {
    "learning_rate": "lr",
    "lora_parameters.rank": "r",
    "batch_size": "batch",
    "num_layers": "layers",
    "grad_accumulation_steps": "accum",
    "max_seq_length": "length",
    "lr_schedule.arguments[0]": "lr",
}
"""Common short names of keys."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPart:
    """A key of the matrix and one of its values."""

    key: str
    value: Any
    position: int  # of the value in its list, from 1


def labels_of(combinations: Sequence[Sequence[LabelPart]]) -> list[tuple[str, str]]:
    """Return a label for each combination, also as a folder name; all get numbers if two are equal or one is long."""
    words = short_keys([part.key for part in combinations[0]])
    texts = [
        " ".join(f"{word}={_value_text(part)}" for word, part in zip(words, parts, strict=True))
        for parts in combinations
    ]
    names = [re.sub(r"[^A-Za-z0-9.=_+-]+", "_", text).strip("._") or "job" for text in texts]
    return list(zip(_distinct(texts, " #"), _distinct(names, "-"), strict=True))


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return a short, unique name for each dotted key."""
    words = [_SHORT.get(key) or key.rpartition(".")[2] for key in keys]
    return [one_line(key if words.count(word) > 1 else word) for key, word in zip(keys, words, strict=True)]


def short_number(value: float) -> str:
    """Return the shortest usual notation of a number: 1e-5, 0.05, 8."""
    text = repr(value).removesuffix(".0")
    if not math.isfinite(value) or 1 <= abs(value) < 1e10 or value == 0:
        return text
    power = f"{decimal.Decimal(repr(value)).normalize():e}".replace("e+", "e")
    return power if len(power) < len(text) else text


def job_name(sweep: str, label: str) -> str:
    """Return the name of a job of a sweep: the sweep's name, cut if necessary, and the label."""
    return f"{sweep[: MAX_NAME - len(label) - 1].rstrip()} {label}"


def _distinct(texts: Sequence[str], mark: str) -> list[str]:
    unique = len({text.casefold() for text in texts}) == len(texts)  # some file systems ignore case
    if unique and all(len(text) <= _MAX_LABEL for text in texts):
        return list(texts)
    suffixes = [f"{mark}{number}" for number in range(1, len(texts) + 1)]
    return [f"{text[: _MAX_LABEL - len(end)].rstrip()}{end}" for text, end in zip(texts, suffixes, strict=True)]


def _value_text(part: LabelPart) -> str:
    value = part.value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return short_number(value)
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    if isinstance(text, dict) or not text:
        return f"#{part.position}"
    word = one_line(str(text).rstrip("/").rpartition("/")[2]).strip()
    return word if 0 < len(word) <= _MAX_VALUE else f"#{part.position}"
