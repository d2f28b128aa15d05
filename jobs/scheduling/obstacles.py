"""Why a job may not train now. Pure: the machine's readings, the time and the zone are arguments.

What the machine does not tell (None) never keeps a job from training: it would wait for ever.
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
from jobs.model.time_windows import TimeWindow
from jobs.scheduling.constraints import Constraints

THERMAL = ("nominal", "fair", "serious", "critical")
"""The thermal levels of a machine, in the words of Apple's ProcessInfo.ThermalState."""

CHARGE_MARGIN = 3
"""A job that waits for the battery goes on only so many percent above what it asks for, or it would stop at once."""

POWER_REST_S = 60.0
HEAT_REST_S = 300.0
"""A machine cools down within a minute of a stop, and would be as hot again before the model is loaded."""


class Why(StrEnum):
    """Why a job may not train now. The first four stop a running job too, and are Reason codes."""

    WINDOW_CLOSED = "window_closed"
    ON_BATTERY = "on_battery"
    TOO_HOT = "too_hot"
    IN_USE = "in_use"  # by its user; or the device is, by `lq chat` and its like, which stops no running job
    AFTER = "after"  # a job it comes after has not ended
    MEMORY = "memory"  # what runs leaves too little
    BEHIND = "behind"  # a strict job before it may not start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What the machine says of itself; None where it does not."""

    mains: bool | None = None  # on mains power
    charge: int | None = None  # of the battery, in percent
    thermal: str | None = None  # one of THERMAL
    idle_s: float | None = None  # since somebody last used keyboard, pointer or a terminal, in seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Obstacle:
    """What keeps a job from training."""

    why: Why
    text: str  # one line for a person
    until: float | None = None  # when it is over for certain, in unix seconds; None where nobody knows
    rest_s: float = 0.0  # how long a job that was stopped for it waits at least, in seconds


def of_constraints(
    constraints: Constraints, reading: Reading, *, now: float, zone: tzinfo | None, runs: bool = False
) -> Obstacle | None:
    """Say what its own terms have against a job's training now.

    Args:
        constraints: what it asked for.
        reading: what the machine says.
        now: unix seconds.
        zone: whose hours; None for the machine's own zone.
        runs: whether it trains already; then it may go on where it might not start.
    """
    found = (
        _window(constraints, now, zone),
        _power(constraints, reading, runs),
        _heat(constraints, reading),
        _use(constraints, reading),
    )
    return next((one for one in found if one is not None), None)


def _window(constraints: Constraints, now: float, zone: tzinfo | None) -> Obstacle | None:
    if constraints.window is None or time_windows.until(constraints.window, now, zone) is not None:
        return None
    opens = time_windows.opens(constraints.window, now, zone)
    return Obstacle(why=Why.WINDOW_CLOSED, text=f"its window {_hours(constraints.window)} is closed", until=opens)


def _power(constraints: Constraints, reading: Reading, runs: bool) -> Obstacle | None:
    if reading.mains is not False:
        return None
    if constraints.require_ac:
        text = "the machine runs on battery, and it asks for mains power"
        return Obstacle(why=Why.ON_BATTERY, text=text, rest_s=POWER_REST_S)
    if constraints.min_battery is None or reading.charge is None:
        return None
    least = constraints.min_battery if runs else min(100, constraints.min_battery + CHARGE_MARGIN)
    if reading.charge >= least:
        return None
    goes_on = min(100, constraints.min_battery + CHARGE_MARGIN)
    text = f"the battery is at {reading.charge} %, and it goes on at {goes_on} % or on mains power"
    return Obstacle(why=Why.ON_BATTERY, text=text, rest_s=POWER_REST_S)


def _heat(constraints: Constraints, reading: Reading) -> Obstacle | None:
    if constraints.thermal is None or reading.thermal is None:
        return None
    if THERMAL.index(reading.thermal) < THERMAL.index(constraints.thermal):
        return None
    text = f"the machine is too hot (thermal level {reading.thermal}; it stops at {constraints.thermal})"
    return Obstacle(why=Why.TOO_HOT, text=text, rest_s=HEAT_REST_S)


def _use(constraints: Constraints, reading: Reading) -> Obstacle | None:
    if constraints.idle_s is None or reading.idle_s is None or reading.idle_s >= constraints.idle_s:
        return None
    text = f"somebody uses the machine, and it goes on {duration(constraints.idle_s)} after the last touch"
    return Obstacle(why=Why.IN_USE, text=text, rest_s=constraints.idle_s - reading.idle_s)


def of_device(user: str, *, waits: bool) -> Obstacle:
    """Say that another verb has the device, or has the next turn.

    Args:
        user: such as `lq chat 3`.
        waits: whether it waits for the running jobs still.
    """
    text = f"{user} waits for the device, and comes first" if waits else f"the device is used by {user}"
    return Obstacle(why=Why.IN_USE, text=text)


def of_predecessors(dependencies: Sequence[Dependency]) -> Obstacle | None:
    """Say which jobs must end before a job may start; None where none must.

    Args:
        dependencies: of this job.
    """
    open_ones = [one for one in dependencies if one.status not in ENDED]
    failed = [one for one in dependencies if is_hopeless(one)]
    if failed:
        text = f"job {failed[0].on}, which must succeed first, is {failed[0].status}; it will be skipped"
        return Obstacle(why=Why.AFTER, text=text)
    if not open_ones:
        return None
    ids = ", ".join(str(one.on) for one in open_ones[:5]) + (", …" if len(open_ones) > 5 else "")
    how = "end" if all(one.any_end for one in open_ones) else "succeed"
    return Obstacle(why=Why.AFTER, text=f"job{'s' if len(open_ones) > 1 else ''} {ids} must {how} first")


def is_hopeless(dependency: Dependency) -> bool:
    """Say whether a job can never start, because one that must succeed first has ended otherwise."""
    return not dependency.any_end and dependency.status in ENDED and dependency.status is not Status.SUCCEEDED


def _hours(window: TimeWindow) -> str:
    return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (window.start, window.end))
