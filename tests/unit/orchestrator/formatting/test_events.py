"""What `lq logs` makes of what the trainer tells for the report."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.model.events import Event, Kind
from orchestrator.formatting.events import line

DATASET = {"train": {"rows": 1422, "tokens": 84_000}, "valid": {"rows": 53}, "test": {"rows": 0}}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("dataset", DATASET, "data      1,422 train, 53 valid, 0 test rows; 84,000 tokens to train on"),
        ("parameters", {"trained": 8192, "total": 31_008}, "adapter   8,192 of 31,008 parameters are trained"),
        (
            "answer.after.0",
            {"iteration": 1500, "prompt": "Q:\nA:", "answer": "x" * 90},
            f"answer      1,500  Q: A: -> {'x' * 59}…",
        ),
        ("battery.before", [0.5, True], None),
    ],
)
def test_only_some_facts_have_a_line(name: str, value: Any, words: str | None) -> None:
    event = Event(seq=1, time=0.0, awake=0.0, attempt=1, kind=Kind.FACT, data={"name": name, "value": value})
    told = line(event)
    assert told is None if words is None else (told or "").endswith(words)
