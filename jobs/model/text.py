"""Numbers, sizes, shares and durations as text. `orchestrator/formatting/text.py` adds times and terminal forms."""

from __future__ import annotations

from collections.abc import Iterable

NONE = "–"
"""Text of a value that is not known."""


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: 1 restart, 2 restarts, 15,000 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(words: Iterable[object], last_joiner: str = "and") -> str:
    """Return words as a list in a sentence: 3, 5 and 8."""
    *first, last = map(str, words)
    return f"{', '.join(first)} {last_joiner} {last}" if first else last


def percent(share: float | None) -> str:
    """Return a share as a percentage with three digits: 0.00598 -> 0.598 %."""
    return NONE if share is None else f"{100 * share:.3g} %"


def size(count: float | None) -> str:
    """Return bytes with three digits in decimal units, as MLX-LM does: 12 kB, 1.2 MB, 3.41 GB."""
    if count is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 100 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float | None) -> str:
    """Return a duration in at most two units: 4.2 s, 59 s, 4 min 12 s, 8 h 18 min, 2 d 3 h, 10 min."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for unit, length, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
