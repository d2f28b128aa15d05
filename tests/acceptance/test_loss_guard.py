"""The loss goes wrong, for real: it is seen, the run goes back, and ends well or says that it did not.

No number is injected: a learning rate that is far too high, rows of rubbish, a row the model cannot take.
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
"""The iteration after which the learning rate is many times what it was."""


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data enough for an epoch of 30 batches."""
    folder = tmp_path_factory.mktemp("sums")
    build_data(folder, train=120, valid=16, test=8)
    return folder


def jumping(workshop: Workshop, data: Path, file: Path, *, times: float, **lq: Any) -> Path:
    """Write a job whose learning rate jumps."""
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
    """Give a run that went wrong and came to its end, with nothing else disturbing it."""
    folder = tmp_path_factory.mktemp("recovered")
    lq = Lq(folder / "home")
    try:
        training = lq.submit(jumping(workshop, sums, folder / "job.yaml", times=8))
        training.wait(seconds=FIRST_EVER_S)
        yield training
    finally:
        lq.leave()


@pytest.fixture(scope="module")
def as_it_was(recovered: Training) -> Result:
    """What that run came to."""
    return result(recovered)


def incidents(training: Training, *codes: str) -> list[dict[str, Any]]:
    return [one for one in training.facts()["incidents"] if one["code"] in codes]


@pytest.mark.slow
def test_a_learning_rate_that_is_too_high_is_cut_until_the_run_ends_well(recovered: Training) -> None:
    spikes = incidents(recovered, "spike")
    assert [one["evidence"]["rollback"] for one in spikes] == [1, 2]
    assert all(one["evidence"]["first_flag"] > JUMP > 0 for one in spikes)
    assert all(one["evidence"]["back_to"] <= JUMP for one in spikes)
    losses = {one["iteration"]: one["loss"] for one in recovered.facts()["validations"]}
    healthy = min(loss for iteration, loss in losses.items() if iteration <= JUMP)
    assert losses[220] <= healthy
    shown = recovered.lq("show", recovered.id).out
    assert "rolled back to iteration 50 (rollback step 2 of 3)" in " ".join(shown.split())
    assert "learning rate x 1 -> 0.5" in " ".join(shown.split())


@pytest.mark.slow
def test_the_rows_around_a_spike_are_named_by_their_own_loss(recovered: Training) -> None:
    for autopsy, spike in zip(incidents(recovered, "autopsy"), incidents(recovered, "spike"), strict=True):
        rows = autopsy["evidence"]["rows"]
        assert [row["loss"] for row in rows] == sorted((row["loss"] for row in rows), reverse=True)
        assert all(row["line"] == f"train.jsonl:{row['row'] + 1}" for row in rows)
        assert autopsy["evidence"]["first_flag"] == spike["evidence"]["first_flag"]


def is_wrong(event: Event) -> bool:
    """Say whether a progress event tells losses that have exploded."""
    losses = event.data["losses"]
    return bool(losses) and event.data["iteration"] > JUMP + 10 and sum(losses) / len(losses) > 4.0


def trainer_as_it_goes_wrong(training: Training) -> None:
    training.until(Kind.PROGRESS, is_wrong)
    kill(training.trainer())


def worker_before_it_looks(training: Training) -> None:
    """Kill the worker while the run is sound; the trainer trains on, far past the spike."""
    worker = training.lq.worker()
    training.until(Kind.PROGRESS, lambda event: event.data["iteration"] >= 60)
    kill(worker)
    training.until(Kind.ENDED)
    training.lq.start_worker()


def worker_as_it_goes_wrong(training: Training) -> None:
    training.until(Kind.PROGRESS, is_wrong)
    kill(training.lq.worker())
    training.lq.start_worker()


def trainer_as_it_sets_out_again(training: Training) -> None:
    training.until(Kind.STARTED, lambda event: event.attempt == 2)
    kill(training.trainer())


def both_after_the_autopsy(training: Training) -> None:
    training.until(Kind.WARNING, lambda event: event.attempt == 2 and event.data["code"] == "autopsy")
    kill(training.trainer())
    kill(training.lq.worker())
    training.lq.start_worker()


def trainer_on_its_new_stage(training: Training) -> None:
    training.until(Kind.CHECKPOINT, lambda event: event.attempt == 2)
    kill(training.trainer())


STRIKES = (
    worker_before_it_looks,
    worker_as_it_goes_wrong,
    trainer_as_it_goes_wrong,
    both_after_the_autopsy,
    trainer_as_it_sets_out_again,
    trainer_on_its_new_stage,
)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("strike", STRIKES)
def test_a_rollback_that_is_killed_ends_as_if_it_had_not_been(
    strike: Callable[[Training], None], lq: Lq, workshop: Workshop, sums: Path, as_it_was: Result, tmp_path: Path
) -> None:
    training = lq.submit(jumping(workshop, sums, tmp_path / "job.yaml", times=8))
    strike(training)
    training.wait()
    assert result(training) == as_it_was


@pytest.mark.slow
@pytest.mark.longest
def test_a_run_that_cannot_be_mended_ends_with_the_best_it_had_and_the_next_one_starts(
    lq: Lq, workshop: Workshop, sums: Path, tmp_path: Path
) -> None:
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
def test_poisoned_rows_that_come_together_are_gone_back_from_left_out_and_named(
    lq: Lq, workshop: Workshop, tmp_path: Path
) -> None:
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
    assert f"train.jsonl:{worst[0] + 1}" in training.lq("show", training.id).out
    (stage,) = json.loads(training.folder.run_plan.read_text())["stages"][1:]
    start, end = stage["skipped"]
    assert spike["evidence"]["back_to"] <= start < spike["evidence"]["first_flag"] <= end
    losses = {one["iteration"]: one["loss"] for one in training.facts()["validations"]}
    healthy = min(loss for iteration, loss in losses.items() if iteration <= spike["evidence"]["back_to"])
    assert losses[230] <= healthy


@pytest.mark.slow
@pytest.mark.longest
def test_a_guard_that_is_switched_off_tells_and_does_nothing(
    lq: Lq, workshop: Workshop, sums: Path, tmp_path: Path
) -> None:
    training = lq.submit(jumping(workshop, sums, tmp_path / "job.yaml", times=400, spike={"enabled": False}))
    training.wait()
    (told,) = incidents(training, "spike")
    assert "nothing is done" in told["text"]
    assert len(training.facts()["attempts"]) == 1


def holed(workshop: Workshop, folder: Path) -> Path:
    """Write a job with a row that its model cannot take."""
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
    """Write a job that gets no better, and asks to end then."""
    return workshop.job_file(
        folder / "idle.yaml",
        lr_schedule=None,
        learning_rate=1e-9,
        iters=4000,
        steps_per_eval=8,
        lq={"early_stop": {"patience": 3, "min_delta": 0.01}},
    )


def test_a_row_the_model_cannot_take_costs_two_updates_and_is_left_out(
    lq: Lq, workshop: Workshop, tmp_path: Path
) -> None:
    training = lq.submit(holed(workshop, tmp_path))
    training.wait()
    told = incidents(training, "not_applied")
    # the trainer may meet the row once more before it hears that it is to stop; that is given up
    assert {row["line"] for one in told for row in one["evidence"]["rows"]} == {"train.jsonl:17"}
    (quarantined,) = incidents(training, "quarantined")
    assert quarantined["evidence"]["rows"] == ["train.jsonl:17"]
    assert quarantined["evidence"]["iteration"] == told[1]["evidence"]["iteration"]
    last = training.facts()["attempts"][-1]["number"]
    progress = [event for event in training.events(Kind.PROGRESS) if event.attempt == last]
    assert all(math.isfinite(float(loss)) for event in progress for loss in event.data["losses"])


@pytest.mark.slow
def test_a_run_that_gets_no_better_ends_there_however_far_it_came(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    training = lq.submit(idle(workshop, tmp_path))
    training.wait()
    facts = training.facts()
    assert (facts["job"]["status"], facts["job"]["reason"]) == ("succeeded", "early_stopped")
    assert facts["job"]["iteration"] == 24
    (told,) = incidents(training, "early_stopped")
    assert told["evidence"]["iterations_saved"] == 3976
    about = json.loads((training.folder.adapters / "lq.json").read_text())
    assert about["final"]["iteration"] == 24
    assert "early stop" in training.lq("show", training.id).out


def came_to(training: Training) -> tuple[str, str, list[tuple[int, float]], list[tuple[int, float]]]:
    """Return both adapters, and the reports and validations that led to them; what was given up is left out."""
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
def test_leaving_rows_out_and_ending_early_survive_kills(
    kind: Callable[[Workshop, Path], Path], lq: Lq, workshop: Workshop, tmp_path: Path
) -> None:
    """The worker dies while the run is sound and the trainer trains on; the next one, and both, as they answer."""
    file = kind(workshop, tmp_path)
    undisturbed = came_to(lq.submit(file))
    training = lq.submit(file)
    training.until(Kind.PROGRESS)
    kill(lq.worker())
    training.until(Kind.PROGRESS, lambda event: event.data["iteration"] >= 60)
    lq.start_worker()
    training.until(Kind.STARTED, lambda event: event.attempt == 2)
    kill(training.trainer())
    kill(lq.worker())
    lq.start_worker()
    assert came_to(training) == undisturbed
    assert len(incidents(training, "quarantined", "early_stopped")) == 1
