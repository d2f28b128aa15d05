"""The facts of a report, collected from the store and the job folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model import run_plan as run_plans
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from orchestrator.artifacts import evaluate
from orchestrator.artifacts.evaluate import WeightsMeasurement
from orchestrator.artifacts.weights import Weights
from orchestrator.report.analysis.comparison import Entry, compare
from orchestrator.report.collect import collect, collect_all
from orchestrator.report.facts import Facts
from orchestrator.report.make import to_json
from orchestrator.report.render.report import render
from tests.unit.orchestrator.report_runs import (
    ERROR,
    START,
    TWO_RESTARTS,
    WORKER,
    PlayedAttempt,
    Run,
    killed,
    train_loss,
)

END = START + 405.0


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Run]:
    """A run of 600 iterations with two restarts, published."""
    lora = {"rank": 16, "scale": 2.0, "dropout": 0.05}
    run = Run(tmp_path, model="/models/it's $5", grad_accumulation_steps=8, lora_parameters=lora)
    with run.store:
        run.play(*TWO_RESTARTS)
        run.publish()
        yield run


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Run]:
    """A job that was claimed but not started."""
    run = Run(tmp_path)
    with run.store:
        yield run


def _facts(run: Run, **changes: Any) -> Facts:
    return collect(run.store, run.id, now=END, **changes)


def test_changes_come_from_the_run_plan(finished: Run) -> None:
    requested = RunPlan.requested(finished.spec)
    stage = dataclasses.replace(
        requested.stages[0],
        first_example=1200,
        batch_size=2,
        grad_accumulation_steps=16,
        grad_checkpoint=True,
        because="out_of_memory: batch 4 -> 2",
    )
    (finished.folder / "run_plan.json").write_text(
        json.dumps(run_plans.to_json(RunPlan(stages=(*requested.stages, stage))))
    )
    [change] = _facts(finished).findings.changes
    assert change.first_iteration == 300
    assert change.changes.split(", ") == ["batch 4 -> 2", "accumulation 8 -> 16", "gradient checkpointing off -> on"]
    assert change.because == "out_of_memory: batch 4 -> 2"


def test_restart_cost_is_measured(finished: Run) -> None:
    first, second, third = _facts(finished).attempts
    assert (first.repeated_iterations, second.repeated_iterations, third.repeated_iterations) == (0, 37, 50)
    assert first.idle_seconds is None
    assert second.idle_seconds == pytest.approx(200 - (5 + 337 / 2))
    # 5 s of loading, then the repeated iterations at 2 a second
    assert second.catch_up_seconds == pytest.approx(5 + 37 / 2)
    assert third.catch_up_seconds == pytest.approx(5 + 50 / 2)


def test_crash_while_loading_repeats_nothing(fresh: Run) -> None:
    fresh.play(killed(first=0, last=337, begins=0, quality="fresh"))
    attempt = fresh.store.attempts.begin(fresh.id, owner=WORKER, now=START + 300)
    ending = Ending(outcome=Outcome.CRASHED, reason=Reason.CRASHED, detail="exit code 1")
    fresh.store.attempts.end(attempt.id, ending=ending, exit_code=1, signal=None, now=START + 301)
    fresh.play(PlayedAttempt(first=300, last=600, begins=310))
    facts = _facts(fresh)
    assert [attempt.repeated_iterations for attempt in facts.attempts] == [0, None, 37]


def test_losses_have_iterations(finished: Run) -> None:
    facts = _facts(finished)
    train, validation = facts.train_loss, facts.validation
    assert [found and found.iteration for found in (train.first, train.last, train.lowest)] == [10, 600, 600]
    assert train.last is not None
    assert train.last.loss == pytest.approx(train_loss(600))
    measured = (validation.base, validation.best, validation.final)
    assert [found and found.iteration for found in measured] == [0, 500, 600]
    assert [found and found.standard_error for found in measured] == [ERROR] * 3
    assert validation.count == 7  # those that a resume repeated count once
    assert [(test.iteration, test.loss) for test in facts.tests] == [(600, 0.7)]


def test_progress_counts_rows_and_epochs(finished: Run) -> None:
    progress = _facts(finished).progress
    assert (progress.iterations_done, progress.rows_seen, progress.epochs) == (600, 2400, 48.0)
    assert (progress.it_s, progress.tok_s, progress.tokens, progress.peak_bytes) == (2.0, 100.0, 30_000, 4_174_000_000)


def test_trajectory_has_about_twelve_rows(finished: Run) -> None:
    rows = _facts(finished).trajectory
    iterations = [row.iteration for row in rows]
    assert 8 <= len(rows) <= 14
    assert iterations == sorted(set(iterations))
    assert (iterations[0], iterations[-1]) == (0, 600)
    assert rows[0].train_loss is None
    assert 500 in iterations  # the best
    assert sum(row.val_loss is not None for row in rows) == 7


def test_adapter_has_hash_and_iteration(finished: Run) -> None:
    adapter = _facts(finished).adapter
    assert adapter.best is not None
    assert adapter.final is not None
    assert (adapter.best.iteration, adapter.final.iteration) == (500, 600)
    assert adapter.best.sha256 == hashlib.sha256(b"best").hexdigest()
    (finished.folder / "adapters/lq.json").unlink()
    unknown = _facts(finished).adapter.best
    assert unknown is not None
    assert unknown.iteration is None


def test_deleted_checkpoints_are_marked(finished: Run) -> None:
    checkpoints = _facts(finished).checkpoints
    assert [record.iteration for record in checkpoints] == [100, 200, 300, 400, 500, 600]
    assert [record.iteration for record in checkpoints if record.on_disk] == [500, 600]


def test_missing_files_are_listed(fresh: Run) -> None:
    for name in ("config.yaml", "run_plan.json", "provenance.json"):
        (fresh.folder / name).unlink()
    facts = _facts(fresh)
    assert facts.settings is None
    assert (facts.progress.rows_seen, facts.progress.epochs, facts.data) == (None, None, ())
    assert len(facts.unread) == 3
    assert render(facts)


def test_provenance_may_lack_keys(fresh: Run) -> None:
    (fresh.folder / "provenance.json").write_text('{"data": {"files": {"train.jsonl": {"rows": null}, "x": 3}}}')
    facts = _facts(fresh)
    assert [(file.name, file.rows, file.sha256) for file in facts.data] == [("train.jsonl", None, None)]
    assert (facts.versions, facts.host) == ({}, {})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_unreadable_files_are_listed(fresh: Run, content: bytes) -> None:
    for name in ("config.yaml", "run_plan.json", "provenance.json"):
        (fresh.folder / name).write_bytes(content)
    facts = _facts(fresh)
    assert {"run_plan.json", "provenance.json"} <= {line.split(":")[0] for line in facts.unread}
    assert all("\n" not in line for line in facts.unread)
    assert render(facts)


def test_not_finite_losses_are_counted(fresh: Run) -> None:
    fresh.play(PlayedAttempt(first=0, last=100, begins=0, losses={50: "nan", 60: "inf"}))
    facts = _facts(fresh)
    assert (facts.train_loss.reports, facts.train_loss.not_finite) == (10, 2)
    assert facts.train_loss.lowest is not None
    assert facts.train_loss.lowest.iteration == 100
    assert {row.get("train_loss") for row in json.loads(json.dumps(to_json(facts), allow_nan=False))["trajectory"]} & {
        "nan",
        "inf",
    }


def test_lq_test_results_are_kept(finished: Run, tmp_path: Path) -> None:
    job = finished.store.jobs.get(finished.id)
    file, other = tmp_path / "test.jsonl", tmp_path / "other.jsonl"
    file.write_text("one")
    other.write_text("two")
    for iteration, path, loss in ((500, file, 0.9), (500, file, 0.8), (600, file, 0.7), (500, other, 0.6)):
        weights = Weights(path=None, iteration=iteration, words="best")
        measured = WeightsMeasurement(
            kind="now", iteration=iteration, loss=loss, standard_error=0.1, low=0.5, high=math.inf, rows=20
        )
        evaluate.keep(job, weights, path, measured)
    facts, series = collect_all(finished.store, finished.id, now=END)
    assert [one.loss for one in facts.evaluations] == [0.9, 0.8, 0.7, 0.6]
    assert [one.loss for one in facts.latest_evaluations] == [0.8, 0.7, 0.6], "one of each pair of weights and data"
    assert facts.evaluations[0].sha256 == hashlib.sha256(b"one").hexdigest()
    assert facts.evaluations[0].high == math.inf
    text = render(facts)
    assert text.count("lq test 3") == 2
    assert "0.9000" not in text
    compared = compare([Entry(facts=one, series=series, spec={}, reported={}) for one in (facts, facts)])
    assert dict(compared.results)["lq test"][0].startswith("0.6000 (0.5000 to inf) at 500, data ")
    (finished.folder / "report/evaluations.json").write_text('{"version": 1, "evaluations": [{}]}')
    broken = _facts(finished)
    assert broken.evaluations == ()
    assert any(line.startswith("evaluations.json") for line in broken.unread)
