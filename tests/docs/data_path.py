"""docs/explanation/data-path.svg: how a job file becomes a report."""

from __future__ import annotations

from tests.docs.diagram import Arrow, Box, svg

PAGE = "docs/explanation/data-path.svg"

_STORE, _FILE = "#f5ecd7", "#eaeef2"

_BOXES = {
    "job file": Box(x=90, y=60, lines=("job file", "first.yaml"), width=120, fill=_FILE),
    "submit": Box(x=310, y=60, lines=("submission", "configs: checked"), width=150, fill="#dde7f5"),
    "queue": Box(x=560, y=60, lines=("wake-up signal", "queue.db"), width=140, fill=_FILE),
    "store": Box(x=310, y=200, lines=("store", "lq.db"), width=150, fill=_STORE),
    "worker": Box(x=560, y=200, lines=("worker", "orchestrator/worker"), width=160, fill="#dde7f5"),
    "trainer": Box(x=860, y=200, lines=("trainer", "workers/mlx"), width=130, fill="#dde7f5"),
    "policies": Box(x=860, y=60, lines=("policies", "jobs/policies"), width=130, fill="#d8e8d8"),
    "events": Box(x=720, y=340, lines=("events.jsonl",), width=130, fill=_FILE),
    "report": Box(x=90, y=170, lines=("report",), width=120, fill=_FILE),
    "messages": Box(x=90, y=240, lines=("messages",), width=120, fill=_FILE),
}
_ARROWS = [
    Arrow(start="job file", end="submit"),
    Arrow(start="submit", end="store", label="one transaction"),
    Arrow(start="submit", end="queue", dashed=True),
    Arrow(start="queue", end="worker", label="can be lost", dashed=True),
    Arrow(start="store", end="worker", label="claim", bend=22),
    Arrow(start="worker", end="store", label="decision", bend=22),
    Arrow(start="worker", end="policies", label="evidence", bend=22),
    Arrow(start="policies", end="worker", label="decision", bend=22),
    Arrow(start="worker", end="trainer", label="run plan, signals"),
    Arrow(start="trainer", end="events", label="one line per write"),
    Arrow(start="events", end="store", label="ingest: each event once"),
    Arrow(start="store", end="report"),
    Arrow(start="store", end="messages"),
]


def page() -> str:
    """Return the text of the picture."""
    return svg(_BOXES, _ARROWS, width=950, height=390, title="Data path")
