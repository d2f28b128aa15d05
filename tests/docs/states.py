"""docs/explanation/states.svg: the states of a job and their changes, from the table in jobs/model/states.py."""

from __future__ import annotations

from jobs.model.states import ENDED, LEGAL, Status
from tests.docs.diagram import Arrow, Box, svg

PAGE = "docs/explanation/states.svg"

_PLACES = {
    Status.WAITING: (400, 105),
    Status.HELD: (80, 190),
    Status.QUEUED: (280, 190),
    Status.RUNNING: (580, 190),
    Status.PAUSED: (450, 270),
    Status.SKIPPED: (80, 400),
    Status.CANCELLED: (280, 400),
    Status.FAILED: (480, 400),
    Status.SUCCEEDED: (660, 400),
}
"""The centre of each state in the picture, in pixels."""

_BENDS = {
    (Status.HELD, Status.QUEUED): 14,
    (Status.QUEUED, Status.HELD): 14,
    (Status.QUEUED, Status.CANCELLED): 14,
    (Status.CANCELLED, Status.QUEUED): 14,
    (Status.RUNNING, Status.HELD): -340,
    (Status.RUNNING, Status.CANCELLED): -105,
}
"""Arrows that are not straight; see `Arrow.bend`."""


def page() -> str:
    """Return the text of the picture."""
    boxes = {
        str(status): Box(x=x, y=y, lines=(str(status),), fill="#d8e8d8" if status in ENDED else "#dde7f5")
        for status, (x, y) in _PLACES.items()
    }
    return svg(boxes, arrows(), width=740, height=440, title="States of a job")


def arrows() -> list[Arrow]:
    """Return an arrow for each legal change."""
    changes = [(old, new) for old in Status for new in Status if new in LEGAL[old]]
    return [Arrow(start=str(old), end=str(new), bend=_BENDS.get((old, new), 0)) for old, new in changes]
