"""What a job file may ask for besides the training itself: each as one small run shows it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
from jobs.model.run_plan import RunPlan
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import FIRST_EVER_S
from workers.checkpoints.adapters import publish
from workers.checkpoints.storage import best_valid

pytestmark = pytest.mark.timeout(FIRST_EVER_S)

WANDB = """
import json, os
def _note(**call):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(call) + "\\n")
def init(**arguments):
    _note(call="init", **arguments)
def log(data, step=None):
    _note(call="log", step=step, **data)
"""


def test_without_a_validation_set_it_trains_and_publishes_the_last_weights(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat, valid=0)
    training = build(data=str(data), steps_per_report=5).finish()
    assert not training.events(Kind.VALIDATION)
    state = training.newest.state()
    assert (state["validation"], state["self_test"]) == (None, None)
    assert list(training.losses()) == list(range(1, 13))  # the last report is shorter
    spec = training.spec
    published = publish(training.job_dir, spec, RunPlan.requested(spec), job_id=1)
    assert (published.best, published.final) == (12, 12)


def test_a_validation_set_smaller_than_a_batch_is_measured_whole_and_the_test_set_too(
    build: Build, tmp_path: Path
) -> None:
    """MLX-LM drops the rows that fill no batch. Here the rate explodes on purpose, so that the best is not the last."""
    data = rows.write(tmp_path / "data", rows.completions, valid=3, test=5)
    training = build(
        data=str(data),
        batch_size=4,
        test=True,
        lr_schedule={"name": "step_decay", "arguments": [1e-3, 1000.0, 6]},
    ).finish()
    validations = training.events(Kind.VALIDATION)
    assert [event.data["iteration"] for event in validations] == [0, 6, 12]
    assert {event.data["examples"] for event in validations} == {3}
    assert all(len(event.data["row_losses"]) == 3 for event in validations)
    best = best_valid(training.job_dir.checkpoints, training.run_plan)
    assert best is not None
    assert best.iteration == 6
    before, last, at_best = (event.data for event in training.events(Kind.TEST))
    assert before["iteration"] == 0
    assert (last["iteration"], at_best["iteration"]) == (12, 6)
    assert last["examples"] == at_best["examples"] == 5
    assert at_best["loss"] < last["loss"]
    assert at_best["perplexity"] == pytest.approx(math.exp(at_best["loss"]))
    assert 0 < at_best["standard_error"] < at_best["loss"]


def test_wandb_hears_of_absolute_iterations_across_a_stop_and_val_batches_limits_validation(
    build: Build, tmp_path: Path
) -> None:
    package, notes = tmp_path / "site", tmp_path / "notes.jsonl"
    package.mkdir()
    (package / "wandb.py").write_text(WANDB)
    training = build(
        report_to="wandb",
        project_name="night",
        iters=41,
        steps_per_report=4,
        steps_per_eval=8,
        save_every=6,
        val_batches=1,
        clear_cache_threshold="1GB",
    )
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    surroundings = {"PYTHONPATH": path, "NOTES": str(notes)}
    training.stopped_half_way(**surroundings).finish(2, **surroundings)
    told = [json.loads(line) for line in notes.read_text().splitlines()]

    begun = [note for note in told if note["call"] == "init"]
    assert [(note["project"], note["config"]["iters"]) for note in begun] == [("night", 41), ("night", 41)]
    trained = {note["step"]: note for note in told if "train_loss" in note}
    losses = training.losses()
    ends = [*range(4, 41, 4), 41]
    assert list(trained) == ends
    for end in ends:
        report = [losses[iteration] for iteration in range((end - 1) // 4 * 4 + 1, end + 1)]
        assert trained[end]["train_loss"] == pytest.approx(sum(report) / len(report))
        assert trained[end]["iteration"] == end
    tokens = [trained[end]["trained_tokens"] for end in ends]
    assert tokens == sorted(set(tokens))
    validated = {note["step"]: note["val_loss"] for note in told if "val_loss" in note}
    assert validated == {iteration: found[0] for iteration, found in training.validations().items()}
    assert list(validated) == [0, 8, 16, 24, 32, 40, 41]

    assert {event.data["examples"] for event in training.events(Kind.VALIDATION)} == {2}
    assert training.said(Kind.SELF_TEST)["equal"] is True
    kept = [event.data["memory"]["cache"] for event in training.events(Kind.PROGRESS)]
    assert max(kept) > 100_000  # by default the cache is emptied after each iteration


@pytest.mark.slow
def test_rows_that_are_cut_are_told_and_a_resume_proves_itself_without_validation(build: Build) -> None:
    training = build(max_seq_length=40, val_batches=0, iters=40, save_every=5).stopped_half_way().finish(2)
    warnings = [event.data for event in training.events(Kind.WARNING)]
    assert [warning["code"] for warning in warnings] == ["truncated", "truncated"]
    assert 0 < warnings[0]["data"]["rows"] < 22
    assert (
        warnings[0]["text"]
        == f"{warnings[0]['data']['rows']} of 22 training rows are longer than 40 tokens and are cut"
    )
    assert not training.events(Kind.VALIDATION)
    proof = training.said(Kind.SELF_TEST)
    assert (proof["equal"], proof["examples"]) == (True, 4)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"report_to": "stdout"}, "report_to: stdout callback doesn't exist"),
        ({"report_to": "wandb"}, "report_to: wandb is not installed"),
        ({"num_layers": 3}, "num_layers is 3, but "),
        (
            {"lora_parameters": {"rank": 4, "scale": 1.0, "keys": ["no_such_layer"]}},
            "lora_parameters.keys names no linear layer of this model",
        ),
        ({"batch_size": 23}, "the training set has 22 rows, but batch_size is 23"),
        ({"lr_schedule": {"name": "no_such_schedule", "arguments": [1.0]}}, "optimizer or lr_schedule: "),
        ({"optimizer_config": {"adam": {"momentum": 1}}}, "optimizer or lr_schedule: "),
        ({"resume_adapter_file": "/no/such/file.safetensors"}, "resume_adapter_file /no/such/file.safetensors cannot"),
    ],
)
def test_what_cannot_be_trained_is_refused_once_and_for_all(build: Build, changes: dict[str, Any], says: str) -> None:
    training = build(**changes)
    assert training.run() == 78
    ended = training.said(Kind.ENDED)
    assert ended["outcome"] == "refused"
    assert ended["detail"].startswith(says)
    assert "\n" not in ended["detail"]
    assert not training.checkpoints


@pytest.mark.slow
def test_a_run_plan_this_lq_cannot_run_is_refused(build: Build) -> None:
    training = build()
    run_plan = json.loads(training.job_dir.run_plan.read_text())
    training.job_dir.run_plan.write_text(json.dumps(run_plan | {"version": run_plan["version"] + 1}))
    assert training.run() == 78
    assert training.said(Kind.ENDED)["detail"].startswith("run_plan.json has version 4")
