"""How a mistake of the user is put into one line: FILE:LINE, what is wrong, what to write instead.

Only wording and places live here; which keys and values are right is said by jobs/model/spec.py and its neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jobs.model.errors import ConfigInvalid, Line, located

Where = tuple[str | int, ...]
"""The way to a value: keys and list positions from the top of the file, `("lq", "notify", "on", 0)`."""

_LONGEST_SHOWN = 60  # characters of a user's value in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong in a file."""

    where: Where
    line: Line | None
    text: str  # what is wrong and what to do


def one_line(text: str) -> str:
    """Return `text` with everything that would break the line, or hide in a terminal, escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def dotted(where: Where) -> str:
    """Return `lq.notify.on[0]` for `("lq", "notify", "on", 0)`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")


def show(value: object) -> str:
    """Return a value as the user wrote it, short enough for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def invalid(source: Path, line: Line | None, text: str) -> ConfigInvalid:
    """Return the error for one mistake, ready to raise."""
    return ConfigInvalid(told(source, line, text))


def told(source: Path, line: Line | None, text: str) -> str:
    """Return the line for one mistake; a key that its place names already is not named twice."""
    if isinstance(line, str):
        text = text.removeprefix(f"{line.rpartition(' ')[2]}: ")
    return one_line(located(source, line, text))


def first_of(source: Path, faults: Sequence[Fault]) -> ConfigInvalid:
    """Return the error for the fault that stands first in the file; the others are counted.

    Args:
        source: the file.
        faults: at least one.
    """
    ordered = sorted(faults, key=lambda fault: fault.line if isinstance(fault.line, int) else 0)
    others = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
    return invalid(source, ordered[0].line, ordered[0].text + others)
