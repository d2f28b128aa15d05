"""What the jobs of a sweep are called: `lr=1e-5 r=8`, short and never the same twice. Pure."""

from __future__ import annotations

import dataclasses
import decimal
import math
import re
from collections.abc import Sequence
from typing import Any

from configs.errors import one_line

LONGEST_NAME = 80  # characters, as jobs/model/spec.py has it
_LONGEST_LABEL = 60  # leaves the file's own name some place
_LONGEST_VALUE = 24

_SHORT = {
    "learning_rate": "lr",
    "lora_parameters.rank": "r",
    "batch_size": "batch",
    "num_layers": "layers",
    "grad_accumulation_steps": "accum",
    "max_seq_length": "length",
    "lr_schedule.arguments[0]": "lr",
}
"""What people call these keys."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPart:
    """A value of a key of the matrix."""

    key: str
    value: Any
    place: int  # among the values, from 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """What tells a job of a sweep from the others."""

    text: str
    folder: str  # the same as a folder's name


def labels_of(combinations: Sequence[Sequence[LabelPart]]) -> list[Label]:
    """Return a label for each combination; where two would be alike, or one too long, all carry their numbers.

    Args:
        combinations: at least one; each has the same keys in the same order.
    """
    words = short_keys([choice.key for choice in combinations[0]])
    texts = [
        " ".join(f"{word}={_word(choice)}" for word, choice in zip(words, one, strict=True)) for one in combinations
    ]
    return [
        Label(text=text, folder=folder)
        for text, folder in zip(
            _told_apart(texts, " #"), _told_apart([_folder(text) for text in texts], "-"), strict=True
        )
    ]


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return what dotted keys are called beside each other: short, and no two alike."""
    words = [_SHORT.get(key) or key.rpartition(".")[2] for key in keys]
    return [one_line(key if words.count(word) > 1 else word) for key, word in zip(keys, words, strict=True)]


def short_number(value: float) -> str:
    """Return a number as people write it: 1e-5, 0.05, 8."""
    text = repr(value).removesuffix(".0")
    if not math.isfinite(value) or 1 <= abs(value) < 1e10 or value == 0:
        return text
    power = f"{decimal.Decimal(repr(value)).normalize():e}".replace("e+", "e")
    return power if len(power) < len(text) else text


def named(base: str, label: str) -> str:
    """Return the name of a job of a sweep: the sweep's and the label, the former cut where both are too long."""
    room = LONGEST_NAME - len(label) - 1
    return f"{base[:room].rstrip()} {label}"


def _told_apart(texts: Sequence[str], mark: str) -> list[str]:
    alike = len({text.casefold() for text in texts}) < len(texts)  # file systems may not tell A from a
    if not alike and all(len(text) <= _LONGEST_LABEL for text in texts):
        return list(texts)
    numbers = [f"{mark}{number}" for number in range(1, len(texts) + 1)]
    return [
        f"{text[: _LONGEST_LABEL - len(number)].rstrip()}{number}" for text, number in zip(texts, numbers, strict=True)
    ]


def _word(choice: LabelPart) -> str:
    value = choice.value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return short_number(value)
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    if isinstance(text, dict) or not text:
        return f"#{choice.place}"
    word = one_line(str(text).rstrip("/").rpartition("/")[2]).strip()
    return word if 0 < len(word) <= _LONGEST_VALUE else f"#{choice.place}"


def _folder(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=_+-]+", "_", label).strip("._") or "job"
