"""The loss guard: rollbacks, quarantine and early stop of real runs.

The causes are real too: a learning rate that is far too high, rows of random text, a row that gives NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Event, Kind
from orchestrator.demo.tiny_model import build_data
from orchestrator.store.store import Store
from tests.harness import FIRST_EVER_S, Lq, Result, Training, Workshop, kill, result
from tests.poison import rubbish, spoil, with_a_hole

pytestmark = pytest.mark.timeout(240, func_only=True)

JUMP = 120
"""The iteration after which the learning rate rises many times."""


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data for an epoch of 30 batches."""
    folder = tmp_path_factory.mktemp("sums")
    build_data(folder, train=120, valid=16, test=8)
    return folder


def jumping(workshop: Workshop, data: Path, file: Path, *, times: float, **lq: Any) -> Path:
    """Write a job file whose learning rate rises many times."""
    return workshop.job_file(
        file,
        data=str(data),
        fine_tune_type="full",
        optimizer="sgd",
        optimizer_config={"sgd": {"momentum": 0.9}},
        lr_schedule={"name": "step_decay", "arguments": [0.1, times, JUMP]},
        iters=220,
        batch_size=4,
        grad_accumulation_steps=1,
        steps_per_report=2,
        steps_per_eval=20,
        save_every=10,
        lq=lq,
    )


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory, workshop: Workshop, sums: Path) -> Iterator[Training]:
    """A run with rollbacks that reached its end without kills."""
    folder = tmp_path_factory.mktemp("recovered")
    lq = Lq(folder / "home")
    try:
        training = lq.submit(jumping(workshop, sums, folder / "job.yaml", times=8))
        training.wait(seconds=FIRST_EVER_S)
        yield training
    finally:
        lq.leave()


@pytest.fixture(scope="module")
def uninterrupted_result(recovered: Training) -> Result:
    """The result of that run."""
    return result(recovered)


def incidents(training: Training, *codes: str) -> list[dict[str, Any]]:
    return [one for one in training.facts()["incidents"] if one["code"] in codes]


@pytest.mark.slow
def test_high_learning_rate_is_reduced(recovered: Training) -> None:
    spikes = incidents(recovered, "spike")
    assert [one["evidence"]["rollback"] for one in spikes] == [1, 2]
    assert all(one["evidence"]["first_flag"] > JUMP > 0 for one in spikes)
    assert all(one["evidence"]["back_to"] <= JUMP for one in spikes)
    losses = {one["iteration"]: one["loss"] for one in recovered.facts()["validations"]}
    healthy = min(loss for iteration, loss in losses.items() if iteration <= JUMP)
    assert losses[220] <= healthy
    shown = recovered.lq("show", recovered.id, "--verbose").out
    assert " 50 (rollback step 2 of 3)" in " ".join(shown.split())
    assert "learning rate x 1 -> 0.5" in " ".join(shown.split())


@pytest.mark.slow
def test_autopsy_ranks_rows_by_loss(recovered: Training) -> None:
    for autopsy, spike in zip(incidents(recovered, "autopsy"), incidents(recovered, "spike"), strict=True):
        rows = autopsy["evidence"]["rows"]
        assert [row["loss"] for row in rows] == sorted((row["loss"] for row in rows), reverse=True)
        assert all(row["line"] == f"train.jsonl:{row['row'] + 1}" for row in rows)
        assert autopsy["evidence"]["first_flag"] == spike["evidence"]["first_flag"]


def has_exploded(event: Event) -> bool:
    """Return whether the losses of a progress event have exploded."""
    losses = event.data["losses"]
    return bool(losses) and event.data["iteration"] > JUMP + 10 and sum(losses) / len(losses) > 4.0


def kill_trainer_at_spike(training: Training) -> None:
    training.until(Kind.PROGRESS, has_exploded)
    kill(training.trainer())


def kill_worker_before_spike(training: Training) -> None:
    """Kill the worker before the spike; the trainer continues far past it."""
    worker = training.lq.worker()
    training.until(Kind.PROGRESS, lambda event: event.data["iteration"] >= 60)
    kill(worker)
    training.until(Kind.ENDED)
    training.lq.start_worker()


def kill_worker_at_spike(training: Training) -> None:
    training.until(Kind.PROGRESS, has_exploded)
    kill(training.lq.worker())
    training.lq.start_worker()


def kill_trainer_at_restart(training: Training) -> None:
    training.until(Kind.STARTED, lambda event: event.attempt == 2)
    kill(training.trainer())


def kill_both_after_autopsy(training: Training) -> None:
    training.until(Kind.WARNING, lambda event: event.attempt == 2 and event.data["code"] == "autopsy")
    kill(training.trainer())
    kill(training.lq.worker())
    training.lq.start_worker()


def kill_trainer_on_new_stage(training: Training) -> None:
    training.until(Kind.CHECKPOINT, lambda event: event.attempt == 2)
    kill(training.trainer())


KILLS = (
    kill_worker_before_spike,
    kill_worker_at_spike,
    kill_trainer_at_spike,
    kill_both_after_autopsy,
    kill_trainer_at_restart,
    kill_trainer_on_new_stage,
)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("kill_at", KILLS)
def test_killed_rollback_gives_same_result(
    kill_at: Callable[[Training], None],
    lq: Lq,
    workshop: Workshop,
    sums: Path,
    uninterrupted_result: Result,
    tmp_path: Path,
) -> None:
    training = lq.submit(jumping(workshop, sums, tmp_path / "job.yaml", times=8))
    kill_at(training)
    training.wait()
    assert result(training) == uninterrupted_result


@pytest.mark.slow
@pytest.mark.longest
def test_diverged_run_publishes_its_best(lq: Lq, workshop: Workshop, sums: Path, tmp_path: Path) -> None:
    training = lq.submit(jumping(workshop, sums, tmp_path / "job.yaml", times=400))
    after = lq.submit(workshop.job_file(tmp_path / "next.yaml", iters=20, save_every=20))
    training.wait(expect=100)
    facts = training.facts()
    assert (facts["job"]["status"], facts["job"]["reason"]) == ("failed", "diverged")
    assert [one["evidence"]["rollback"] for one in incidents(training, "spike")] == [1, 2, 3]
    assert incidents(training, "diverged")
    about = json.loads((training.folder.adapters / "lq.json").read_text())
    best = min((one["loss"], one["iteration"]) for one in facts["validations"] if one["iteration"] <= JUMP)
    assert (about["best"]["validation_loss"], about["best"]["iteration"]) == best
    assert training.adapter_sha256("adapters.safetensors")
    after.wait()
    left = sorted(path.name for path in training.folder.adapters.glob("*_adapters.safetensors"))
    assert left[-1] == "final_adapters.safetensors"
    assert all(int(name.split("_")[0]) <= JUMP for name in left[:-1])


@pytest.mark.slow
@pytest.mark.longest
def test_bad_rows_are_skipped_and_named(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    data = tmp_path / "data"
    build_data(data, train=240, valid=16, test=0)
    poisoned = range(100, 116)
    rubbish(data / "train.jsonl", poisoned)
    # with this seed three batches of them come within four iterations, first in the third epoch
    training = lq.submit(
        workshop.job_file(
            tmp_path / "job.yaml",
            data=str(data),
            seed=601,
            fine_tune_type="full",
            optimizer="sgd",
            optimizer_config={"sgd": {"momentum": 0.9}},
            lr_schedule=None,
            learning_rate=0.1,
            iters=230,
            batch_size=4,
            grad_accumulation_steps=1,
            steps_per_report=1,
            steps_per_eval=20,
        )
    )
    training.wait()
    (spike,) = incidents(training, "spike")
    (autopsy,) = incidents(training, "autopsy")
    worst = [row["row"] for row in autopsy["evidence"]["rows"][:3]]
    assert set(worst) <= set(poisoned)
    assert f"train.jsonl:{worst[0] + 1}" in training.lq("show", training.id, "--verbose").out
    (stage,) = json.loads(training.folder.run_plan.read_text())["stages"][1:]
    start, end = stage["skipped"]
    assert spike["evidence"]["back_to"] <= start < spike["evidence"]["first_flag"] <= end
    losses = {one["iteration"]: one["loss"] for one in training.facts()["validations"]}
    healthy = min(loss for iteration, loss in losses.items() if iteration <= spike["evidence"]["back_to"])
    assert losses[230] <= healthy


@pytest.mark.slow
@pytest.mark.longest
def test_disabled_guard_only_reports(lq: Lq, workshop: Workshop, sums: Path, tmp_path: Path) -> None:
    training = lq.submit(jumping(workshop, sums, tmp_path / "job.yaml", times=400, spike={"enabled": False}))
    training.wait()
    (spike,) = incidents(training, "spike")
    assert spike["evidence"]["action"] == "none; lq.spike.enabled is false"
    assert len(training.facts()["attempts"]) == 1


def holed(workshop: Workshop, folder: Path) -> Path:
    """Write a job file with a row for which the model gives NaN."""
    model, data = folder / "model", folder / "data"
    with_a_hole(workshop.model, model)
    build_data(data, train=104, valid=8, test=0)
    spoil(data / "train.jsonl", [16], " ~")
    return workshop.job_file(
        folder / "holed.yaml",
        model=str(model),
        data=str(data),
        batch_size=4,
        grad_accumulation_steps=1,
        lr_schedule=None,
        learning_rate=1e-2,
        iters=90,
        steps_per_report=5,
        save_every=10,
        steps_per_eval=90,
    )


def idle(workshop: Workshop, folder: Path) -> Path:
    """Write a job file with an early stop whose loss does not improve."""
    return workshop.job_file(
        folder / "idle.yaml",
        lr_schedule=None,
        learning_rate=1e-9,
        iters=4000,
        steps_per_eval=8,
        lq={"early_stop": {"patience": 3, "min_delta": 0.01}},
    )


def test_row_with_nan_is_quarantined(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    training = lq.submit(holed(workshop, tmp_path))
    training.wait()
    not_applied = incidents(training, "not_applied")
    # the trainer may reach the row once more before it stops; the rollback gives that up
    assert {row["line"] for one in not_applied for row in one["evidence"]["rows"]} == {"train.jsonl:17"}
    (quarantined,) = incidents(training, "quarantined")
    assert quarantined["evidence"]["rows"] == ["train.jsonl:17"]
    assert quarantined["evidence"]["iteration"] == not_applied[1]["evidence"]["iteration"]
    last = training.facts()["attempts"][-1]["number"]
    progress = [event for event in training.events(Kind.PROGRESS) if event.attempt == last]
    assert all(math.isfinite(float(loss)) for event in progress for loss in event.data["losses"])


@pytest.mark.slow
def test_early_stop_ends_the_run(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    training = lq.submit(idle(workshop, tmp_path))
    training.wait()
    facts = training.facts()
    assert (facts["job"]["status"], facts["job"]["reason"]) == ("succeeded", "early_stopped")
    assert facts["job"]["iteration"] == 24
    (stop,) = incidents(training, "early_stopped")
    assert stop["evidence"]["iterations_saved"] == 3976
    about = json.loads((training.folder.adapters / "lq.json").read_text())
    assert about["final"]["iteration"] == 24
    assert "early stop" in training.lq("show", training.id, "--verbose").out


def outcome_of(training: Training) -> tuple[str, str, list[tuple[int, float]], list[tuple[int, float]]]:
    """Return both adapters, and the reports and validations that led to them."""
    training.wait()
    with Store.open(training.lq.home / "lq.db") as store:
        reports = [(point.iteration, point.train_loss) for point in store.metrics.points(training.id)]
        validations = [(one.iteration, one.loss) for one in store.metrics.validations(training.id)]
    names = ("adapters.safetensors", "final_adapters.safetensors")
    best, final = (training.adapter_sha256(name) for name in names)
    return best, final, reports, validations


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("kind", [holed, idle])
def test_quarantine_and_stop_survive_kills(
    kind: Callable[[Workshop, Path], Path], lq: Lq, workshop: Workshop, tmp_path: Path
) -> None:
    """The worker is killed before the alarm, then worker and trainer during the reaction to it."""
    file = kind(workshop, tmp_path)
    expected = outcome_of(lq.submit(file))
    training = lq.submit(file)
    training.until(Kind.PROGRESS)
    kill(lq.worker())
    training.until(Kind.PROGRESS, lambda event: event.data["iteration"] >= 60)
    lq.start_worker()
    training.until(Kind.STARTED, lambda event: event.attempt == 2)
    kill(training.trainer())
    kill(lq.worker())
    lq.start_worker()
    assert outcome_of(training) == expected
    assert len(incidents(training, "quarantined", "early_stopped")) == 1


# --- rates that are too high, without a spike ---


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with enough validation rows for a verdict."""
    folder = tmp_path_factory.mktemp("many")
    build_data(folder, train=96, valid=60, test=8)
    return folder


def plain(workshop: Workshop, data: Path, file: Path, **changes: Any) -> Path:
    """Write a job file with a constant rate and few settings."""
    settings: dict[str, Any] = {
        "data": str(data),
        "optimizer": "adam",
        "batch_size": 4,
        "grad_accumulation_steps": 1,
        "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0},
        "learning_rate": 2e-3,
        "lr_schedule": None,
        "save_every": 50,
        "seed": 1,
    }
    return workshop.job_file(file, **settings | changes)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("enabled", [True, False])
def test_model_without_gradient_diverges(workshop: Workshop, many: Path, tmp_path: Path, *, enabled: bool) -> None:
    """The rate grows until every gradient is exactly 0; the loss rises too little for a spike."""
    lq = Lq(tmp_path / "home")
    growing = {"name": "exponential_decay", "arguments": [1e-2, 1.06]}
    guard = {"spike": {"max_rollbacks": 1, "enabled": enabled}}
    file = plain(workshop, many, tmp_path / "job.yaml", iters=360, lr_schedule=growing, steps_per_eval=150, lq=guard)
    try:
        training = lq.submit(file)
        training.wait(expect=100 if enabled else 0, seconds=FIRST_EVER_S)
        facts = training.facts()
        report = json.loads((training.folder.report / "report.json").read_text())
        assert report["findings"]["ruling"]["verdict"]["code"] == "DIVERGED"
        assert report["findings"]["phases"][-1]["name"] == "no learning"
        assert (
            "learning_rate" in report["findings"]["ruling"]["advice"]
            or "arguments" in report["findings"]["ruling"]["advice"]
        )
        codes = [one["code"] for one in facts["incidents"]]
        assert codes == (["no_gradient", "diverged"] if enabled else ["no_gradient"])
        assert facts["job"]["reason"] == ("diverged" if enabled else "completed")
    finally:
        lq.leave()


@pytest.mark.slow
@pytest.mark.longest
def test_high_constant_rate_regresses(workshop: Workshop, many: Path, tmp_path: Path) -> None:
    lq = Lq(tmp_path / "home")
    try:
        training = lq.submit(plain(workshop, many, tmp_path / "job.yaml", iters=800, steps_per_eval=100))
        training.wait(seconds=FIRST_EVER_S)
        ruling = json.loads((training.folder.report / "report.json").read_text())["findings"]["ruling"]
        assert ruling["verdict"]["code"] == "REGRESSED"
        assert ruling["final_minus_best"]["low"] > 0
        assert ruling["train_after_best"]["high"] >= 0
        assert "--set learning_rate=0.001" in ruling["advice"]
    finally:
        lq.leave()
