"""Why a job cannot train now. Pure: the machine's readings, the time and the zone are arguments.

A reading that the machine does not provide (None) never keeps a job from training: the job would wait forever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import tzinfo
from enum import StrEnum

from jobs.model import time_windows
from jobs.model.job import Dependency
from jobs.model.states import ENDED, Status
from jobs.model.text import duration
from jobs.scheduling.constraints import Constraints

THERMAL = ("nominal", "fair", "serious", "critical")
"""The thermal levels of a machine, named as in Apple's ProcessInfo.ThermalState."""

CHARGE_MARGIN = 3
"""A job that waits for the battery resumes this many percent above its minimum; otherwise it would stop at once."""

POWER_REST_S = 60.0
HEAT_REST_S = 300.0
"""A machine cools down within a minute of a stop, and would be as hot again before the model is loaded."""


class Why(StrEnum):
    """Why a job cannot train now. The first four also stop a running job, and are Reason codes."""

    WINDOW_CLOSED = "window_closed"
    ON_BATTERY = "on_battery"
    TOO_HOT = "too_hot"
    IN_USE = "in_use"  # the machine by its user, or the device by `lq chat` and the like, which stops no running job
    AFTER = "after"  # a predecessor has not ended
    QUEUE_PAUSED = "queue_paused"
    MEMORY = "memory"  # the running jobs leave too little
    BEHIND = "behind"  # a strict job before it cannot start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """The state of the machine; None if the machine does not provide it."""

    mains: bool | None = None  # on mains power
    charge: int | None = None  # of the battery, in percent
    thermal: str | None = None  # one of THERMAL
    idle_s: float | None = None  # since the last use of keyboard, pointer or a terminal, in seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Obstacle:
    why: Why
    text: str  # one line for the user
    until: float | None = None  # when it is certainly over, in unix seconds; None if unknown
    rest_s: float = 0.0  # how long a job that it stopped waits at least, in seconds


def of_constraints(
    constraints: Constraints, reading: Reading, *, now: float, zone: tzinfo | None, runs: bool = False
) -> Obstacle | None:
    """Return which of its own constraints keeps a job from training; a job that `runs` may use up more battery."""
    return (
        _window(constraints, now, zone)
        or _power(constraints, reading, runs)
        or _heat(constraints, reading)
        or _use(constraints, reading)
    )


def _window(constraints: Constraints, now: float, zone: tzinfo | None) -> Obstacle | None:
    if constraints.window is None or time_windows.until(constraints.window, now, zone) is not None:
        return None
    window = constraints.window
    hours = "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (window.start, window.end))
    opens = time_windows.opens(window, now, zone)
    return Obstacle(why=Why.WINDOW_CLOSED, text=f"its window {hours} is closed", until=opens)


def _power(constraints: Constraints, reading: Reading, runs: bool) -> Obstacle | None:
    if reading.mains is not False:
        return None
    if constraints.require_ac:
        text = "the machine runs on battery, and the job requires mains power"
        return Obstacle(why=Why.ON_BATTERY, text=text, rest_s=POWER_REST_S)
    if constraints.min_battery is None or reading.charge is None:
        return None
    resumes = min(100, constraints.min_battery + CHARGE_MARGIN)
    if reading.charge >= (constraints.min_battery if runs else resumes):
        return None
    text = f"the battery is at {reading.charge} %; resumes at {resumes} % or on mains power"
    return Obstacle(why=Why.ON_BATTERY, text=text, rest_s=POWER_REST_S)


def _heat(constraints: Constraints, reading: Reading) -> Obstacle | None:
    if constraints.thermal is None or reading.thermal is None:
        return None
    if THERMAL.index(reading.thermal) < THERMAL.index(constraints.thermal):
        return None
    text = f"the machine is too hot (thermal level {reading.thermal}; the job stops at {constraints.thermal})"
    return Obstacle(why=Why.TOO_HOT, text=text, rest_s=HEAT_REST_S)


def _use(constraints: Constraints, reading: Reading) -> Obstacle | None:
    if constraints.idle_s is None or reading.idle_s is None or reading.idle_s >= constraints.idle_s:
        return None
    text = f"machine in use; resumes after {duration(constraints.idle_s)} idle"
    return Obstacle(why=Why.IN_USE, text=text, rest_s=constraints.idle_s - reading.idle_s)


def of_device(user: str, *, waits: bool) -> Obstacle:
    """Return the obstacle of a verb, such as `lq chat 3`, that uses the device or `waits` for the running jobs."""
    text = f"{user} waits for the device, and comes first" if waits else f"the device is used by {user}"
    return Obstacle(why=Why.IN_USE, text=text)


def of_predecessors(dependencies: Sequence[Dependency]) -> Obstacle | None:
    failed = [dependency for dependency in dependencies if is_hopeless(dependency)]
    if failed:
        text = f"job {failed[0].on}, which must succeed first, is {failed[0].status}; it will be skipped"
        return Obstacle(why=Why.AFTER, text=text)
    unended = [dependency for dependency in dependencies if dependency.status not in ENDED]
    if not unended:
        return None
    ids = ", ".join(str(dependency.on) for dependency in unended[:5]) + (", …" if len(unended) > 5 else "")
    how = "end" if all(dependency.any_end for dependency in unended) else "succeed"
    return Obstacle(why=Why.AFTER, text=f"job{'s' if len(unended) > 1 else ''} {ids} must {how} first")


def is_hopeless(dependency: Dependency) -> bool:
    """Return whether a job can never start, because another that must succeed first has ended otherwise."""
    return not dependency.any_end and dependency.status in ENDED and dependency.status is not Status.SUCCEEDED
