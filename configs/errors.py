"""Error messages for the user's files, a line for each mistake: FILE:LINE, what is wrong, what to write instead.

This module only formats. jobs/model/spec.py and the other modules of this package decide what is valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jobs.model.errors import ConfigInvalid, InvalidInput, Line, located

KeyPath = tuple[str | int, ...]
"""The path to a value: keys and list indexes from the top of the file, `("lq", "notify", "on", 0)`."""

_MAX_SHOWN = 60  # characters of a user's value in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in a file."""

    key_path: KeyPath
    line: Line | None
    text: str  # what is wrong and what to do
    error: type[InvalidInput] = ConfigInvalid


def one_line(text: str) -> str:
    """Return `text` with every line break and unprintable character escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def dotted(key_path: KeyPath) -> str:
    """Return `lq.notify.on[0]` for `("lq", "notify", "on", 0)`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key_path).removeprefix(".")


def as_written(value: object) -> str:
    """Return a value as the user wrote it, shortened for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def invalid(source: Path, line: Line | None, text: str) -> ConfigInvalid:
    """Return the error for one mistake."""
    return ConfigInvalid(error_line(source, line, text))


def error_line(source: Path, line: Line | None, text: str) -> str:
    """Return the message for one mistake. A key that `line` (`--set KEY`) contains is not repeated."""
    if isinstance(line, str):
        text = text.removeprefix(f"{line.rpartition(' ')[2]}: ")
    return one_line(located(source, line, text))


def all_problems(source: Path, problems: Sequence[Problem]) -> InvalidInput:
    """Return the error for all problems of a file: one line each, in the order of the file."""
    ordered = sorted(problems, key=lambda problem: problem.line if isinstance(problem.line, int) else 0)
    lines = dict.fromkeys(error_line(source, problem.line, problem.text) for problem in ordered)
    kinds = {problem.error for problem in problems}
    return (kinds.pop() if len(kinds) == 1 else ConfigInvalid)("\n".join(lines))
