"""Settings of a job file besides the training itself, each shown by a small run."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
from jobs.model.run_plan import RunPlan
from jobs.policies.exits import NEVER_RETRY
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


def test_no_validation_publishes_the_last(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat, valid=0)
    training = build(data=str(data), steps_per_report=5).finish()
    assert not training.events(Kind.VALIDATION)
    state = training.newest.state()
    assert (state.validation, state.self_test) == (None, None)
    assert list(training.losses()) == list(range(1, 13))  # the last report is shorter
    published = publish(training.job_dir, training.spec, RunPlan.requested(training.spec), job_id=1)
    assert (published.best, published.final) == (12, 12)


def test_small_sets_are_measured_whole(build: Build, tmp_path: Path) -> None:
    """MLX-LM drops rows that do not fill a batch. The rate explodes on purpose, so that the best is not the last."""
    data = rows.write(tmp_path / "data", rows.completions, valid=3, test=5)
    schedule = {"name": "step_decay", "arguments": [1e-3, 1000.0, 6]}
    training = build(data=str(data), batch_size=4, test=True, lr_schedule=schedule).finish()
    validations = [event.data for event in training.events(Kind.VALIDATION)]
    assert [validation["iteration"] for validation in validations] == [0, 6, 12]
    assert {(validation["examples"], len(validation["row_losses"])) for validation in validations} == {(3, 3)}
    best, _ = best_valid(training.job_dir.checkpoints, training.run_plan)
    assert best is not None
    assert best.iteration == 6
    before, last, at_best = (event.data for event in training.events(Kind.TEST))
    assert [before["iteration"], last["iteration"], at_best["iteration"]] == [0, 12, 6]
    assert last["examples"] == at_best["examples"] == 5
    assert at_best["loss"] < last["loss"]
    assert at_best["perplexity"] == pytest.approx(math.exp(at_best["loss"]))
    assert 0 < at_best["standard_error"] < at_best["loss"]


def test_wandb_gets_absolute_iterations(build: Build, tmp_path: Path) -> None:
    """Across a stop, with a validation limited by val_batches and a cache that is not cleared."""
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
    environment = {"PYTHONPATH": path, "NOTES": str(notes)}
    training.stop_half_way(**environment).finish(2, **environment)
    calls = [json.loads(line) for line in notes.read_text().splitlines()]

    started = [call for call in calls if call["call"] == "init"]
    assert [(call["project"], call["config"]["iters"]) for call in started] == [("night", 41)] * 2
    trained = {call["step"]: call for call in calls if "train_loss" in call}
    losses = training.losses()
    ends = [*range(4, 41, 4), 41]
    assert list(trained) == ends
    for end in ends:
        report = [losses[iteration] for iteration in range((end - 1) // 4 * 4 + 1, end + 1)]
        assert trained[end]["train_loss"] == pytest.approx(sum(report) / len(report))
        assert trained[end]["iteration"] == end
    tokens = [trained[end]["trained_tokens"] for end in ends]
    assert tokens == sorted(set(tokens))
    validated = {call["step"]: call["val_loss"] for call in calls if "val_loss" in call}
    assert validated == {iteration: losses[0] for iteration, losses in training.validations().items()}
    assert list(validated) == [0, 8, 16, 24, 32, 40, 41]

    assert {event.data["examples"] for event in training.events(Kind.VALIDATION)} == {2}
    assert training.only(Kind.SELF_TEST)["equal"] is True
    cached = [event.data["memory"]["cache"] for event in training.events(Kind.PROGRESS)]
    assert max(cached) > 100_000  # by default the cache is cleared after each iteration


@pytest.mark.slow
def test_self_test_without_validation(build: Build) -> None:
    training = build(max_seq_length=40, val_batches=0, iters=40, save_every=5).stop_half_way().finish(2)
    warnings = [event.data for event in training.events(Kind.WARNING)]
    assert [warning["code"] for warning in warnings] == ["truncated", "truncated"]
    assert 0 < warnings[0]["data"]["rows"] < 22
    assert warnings[0]["data"]["max_seq_length"] == 40
    assert not training.events(Kind.VALIDATION)
    test = training.only(Kind.SELF_TEST)
    assert (test["equal"], test["examples"]) == (True, 4)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"report_to": "stdout"}, "report_to"),
        ({"report_to": "wandb"}, "report_to"),
        ({"num_layers": 3}, "num_layers"),
        ({"lora_parameters": {"rank": 4, "scale": 1.0, "keys": ["no_such_layer"]}}, "lora_parameters.keys"),
        ({"batch_size": 23}, "batch_size is 23"),
        ({"lr_schedule": {"name": "no_such_schedule", "arguments": [1.0]}}, "lr_schedule"),
        ({"optimizer_config": {"adam": {"momentum": 1}}}, "optimizer"),
        ({"resume_adapter_file": "/no/such/file.safetensors"}, "/no/such/file.safetensors"),
    ],
)
def test_unusable_settings_are_refused(build: Build, changes: dict[str, Any], names: str) -> None:
    training = build(**changes)
    assert training.run() == NEVER_RETRY
    ended = training.only(Kind.ENDED)
    assert ended["outcome"] == "refused"
    assert names in ended["detail"]
    assert "\n" not in ended["detail"]
    assert not training.checkpoints


@pytest.mark.slow
def test_newer_run_plan_is_refused(build: Build) -> None:
    training = build()
    content = json.loads(training.job_dir.run_plan.read_text())
    training.job_dir.run_plan.write_text(json.dumps(content | {"version": content["version"] + 1}))
    assert training.run() == NEVER_RETRY
    ended = training.only(Kind.ENDED)
    assert (ended["outcome"], ended["reason"]) == ("refused", "config_invalid")
    assert f"version {content['version'] + 1}" in ended["detail"]
