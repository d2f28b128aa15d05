"""The result of one check of `lq doctor`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum


class CheckState(StrEnum):
    """The state that a check reports."""

    OK = "ok"
    WARN = "warn"  # jobs can train, but may train worse than they could
    FAIL = "fail"  # jobs cannot train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `lq doctor`."""

    name: str  # what was checked, in one or two words
    state: CheckState  # the state that the check found
    says: str  # what the check found, with numbers
    advice: str | None = None  # what to do; None if the state is ok


def ok(name: str, says: str) -> Check:
    """Return a check that found no problem."""
    return Check(name=name, state=CheckState.OK, says=says)


def warn(name: str, says: str, advice: str) -> Check:
    """Return a check that found a problem with which jobs can still train."""
    return Check(name=name, state=CheckState.WARN, says=says, advice=advice)


def fail(name: str, says: str, advice: str) -> Check:
    """Return a check that found a problem with which no job can train."""
    return Check(name=name, state=CheckState.FAIL, says=says, advice=advice)
