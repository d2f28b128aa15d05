"""The timeline of a run and the changes of its settings."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from jobs.model.job import Incident
from jobs.model.run_plan import Stage
from orchestrator.report.analysis.settings_diff import differences
from orchestrator.report.analysis.timeline import guilty
from orchestrator.report.collect import collect
from orchestrator.report.facts import Findings
from orchestrator.report.render.report import render
from tests.unit.orchestrator.report_runs import START, Run
from tests.unit.orchestrator.series_runs import (
    played_with_facts,
    rolled_back,
)

LATER = START + 1e6


def _findings(run: Run, **changes: Any) -> Findings:
    with run.store:
        return collect(run.store, run.id, now=LATER, **changes).findings


def test_rollback_has_evidence_and_cost(tmp_path: Path) -> None:
    found = _findings(rolled_back(tmp_path))
    assert [one.code for one in found.happenings] == ["spike", "autopsy", "spike", "autopsy"]
    first = found.happenings[0]
    assert first.what.endswith("(attempt 1, iteration 1,030)")
    assert re.findall(r"[\d.,]*\d", first.evidence) == ["7.634", "1,030", "62.0", "0.812"]
    assert first.action.endswith("resume quality exact")
    assert first.cost_iterations == 430
    assert first.cost_seconds == pytest.approx(217, abs=1)


def test_rollbacks_change_the_run_plan(tmp_path: Path) -> None:
    run = rolled_back(tmp_path)
    with run.store:
        facts = collect(run.store, run.id, now=LATER)
    assert [(one.first_iteration, one.because) for one in facts.findings.changes] == [
        (600, "spike at iteration 1030"),
        (900, "spike at iteration 1260"),
    ]


def _incident(code: str, text: str, **evidence: Any) -> Incident:
    return Incident(job_id=1, attempt=1, time=START + 50, code=code, text=text, evidence=evidence)


@pytest.mark.parametrize(
    "code", ["suspect", "drift", "not_finite", "overfitting", "quarantined", "early_stopped", "diverged", "a_new_one"]
)
def test_every_incident_is_in_the_timeline(tmp_path: Path, code: str) -> None:
    run = played_with_facts(tmp_path)
    run.store.incidents.add(_incident(code, "what | it saw", iteration=70, rows=["train.jsonl:3"]))
    with run.store:
        facts = collect(run.store, run.id, now=LATER)
    [one] = facts.findings.happenings
    assert "what | it saw" in one.what + one.evidence
    assert one.iteration == 70
    assert "what \\| it saw" in render(facts)


def test_guilty_rows_are_ranked_once() -> None:
    rows = [{"line": "train.jsonl:4", "loss": 2.0}, {"file": "train.jsonl", "line": 9, "loss": "nan"}]
    again = [{"line": "train.jsonl:4", "loss": 3.0}, {"line": "train.jsonl:5", "loss": None}]
    found = guilty(
        [_incident("autopsy", "x", rows=rows), _incident("autopsy", "y", rows=again), _incident("spike", "z")]
    )
    assert [(one.place, one.loss) for one in found] == [("train.jsonl:9", math.inf), ("train.jsonl:4", 3.0)]


def test_stage_differences_are_named() -> None:
    one = Stage(first_example=0, batch_size=4, grad_accumulation_steps=2, grad_checkpoint=False, max_seq_length=2048)
    other = Stage(
        first_example=80,
        batch_size=2,
        grad_accumulation_steps=4,
        grad_checkpoint=True,
        max_seq_length=512,
        learning_rate_factor=0.5,
        salt=3,
        segment=500,
        because="spike",
    )
    assert differences(one, one) == "as requested"
    assert differences(one, other).split(", ") == [
        "batch 4 -> 2",
        "accumulation 2 -> 4",
        "gradient checkpointing off -> on",
        "max_seq_length 2048 -> 512",
        "learning rate x 1 -> 0.5",
        "data order salt 0 -> 3",
        "segment none -> 500",
    ]
