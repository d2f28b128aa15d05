"""A sweep from one job file: its training, comparison, notification and cancellation."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.model.events import Kind
from jobs.model.job_dir import JobDir
from orchestrator.demo.tiny_model import build_data
from tests.harness import Lq, Workshop, until

pytestmark = pytest.mark.timeout(700, func_only=True)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("undisturbed")  # it compiles the kernels
def test_sweep_is_trained_and_compared(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    lq.settings(notify={"services": [{"url": "json://127.0.0.1:9/", "name": "phone"}]})
    build_data(tmp_path / "data", train=50, valid=60, test=0)
    file = workshop.job_file(
        tmp_path / "night.yaml",
        data=str(tmp_path / "data"),
        iters=20,
        steps_per_eval=10,
        lr_schedule=None,
        learning_rate=1.0,
        adapter_path=str(tmp_path / "out"),
        lq={
            "matrix": {
                "learning_rate": [1e-6, 5e-3],
                "lora_parameters.rank": [4, 8],
                "exclude": [{"learning_rate": 1e-6, "lora_parameters.rank": 8}],
            }
        },
    )
    jobs = lq.json("submit", file)["jobs"]
    assert [job["group"] for job in jobs] == ["night"] * 3
    lq("wait", "--group", "night", "--timeout", 500, seconds=510)

    status = lq.look("status", "--group", "night")["jobs"]
    assert {job["status"] for job in status} == {"succeeded"}
    losses = [job["best_val_loss"] for job in status]
    assert losses == sorted(losses)
    (best,) = (job for job in status if job["best"])
    assert best["settings"]["learning_rate"] == "0.005"

    compared = lq.json("compare", "--group", "night")
    winner = compared["best_of"]
    assert compared["not_compared_because"] is None
    assert (winner["id"], winner["loss"]) == (best["id"], best["best_val_loss"])
    assert winner["runner_up_minus_best"]["rows"] == 60
    assert winner["runner_up_minus_best"]["paired"]
    # a learning rate that hardly changes the weights is worse beyond chance
    assert not {job["id"] for job in status if job["settings"]["learning_rate"] == "1e-06"} & set(
        winner["not_told_apart"]
    )
    adapter = Path(winner["adapter"])
    published = tmp_path / "out" / f"lr=0.005_r={best['settings']['lora_parameters.rank']}".replace("0.005", "5e-3")
    assert (published / "adapters.safetensors").read_bytes() == (adapter / "adapters.safetensors").read_bytes()
    lq.command(
        "mlx_lm.generate", "--model", workshop.model, "--adapter-path", adapter, "--prompt", "2", "--max-tokens", 2
    )

    title = "lq: night (group of 3) finished"
    undelivered = until(
        lambda: [one for one in lq.look("notify", "list")["undelivered"] if one["title"] == title],
        "the message of the group",
        seconds=150,
        every=1.0,
    )
    assert undelivered[0]["body"].splitlines()[1].startswith(f"best: {best['name']} (job {best['id']})")
    assert [one["event"] for one in lq.look("notify", "list")["undelivered"]] == ["finished"]


@pytest.mark.slow
@pytest.mark.usefixtures("undisturbed")
def test_running_sweep_can_be_cancelled(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(tmp_path / "night.yaml", iters=100_000, lq={"matrix": {"seed": [1, 2, 3]}})
    jobs = lq.json("submit", file)["jobs"]
    events = JobDir(Path(jobs[0]["job_dir"])).events
    until(lambda: events.exists() and f'"{Kind.PROGRESS.value}"' in events.read_text(), "the first job to train")
    lq("cancel", "--group", "night")
    status = lq.look("status", "--group", "night")["jobs"]
    assert {job["id"]: job["status"] for job in status} == {1: "cancelled", 2: "cancelled", 3: "cancelled"}
    assert [job["attempts"] for job in status] == [1, 0, 0]
