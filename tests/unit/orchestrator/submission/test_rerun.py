"""lq retry --set and lq extend: what is kept, what is refused, and what they queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.load import load_frozen
from jobs.model.job import Job
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.submission.submit import check_all, enqueue_all
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import WORKER, Home
from tests.unit.orchestrator.job_files import save


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    build_model(folder / "model")
    build_data(folder / "data", train=8, valid=2, test=0)
    return folder


def ended(
    home: Home,
    app: App,
    shop: Path,
    status: Status = Status.SUCCEEDED,
    reason: Reason = Reason.COMPLETED,
    **settings: Any,
) -> Job:
    """Return a job of 100 iterations that has ended with a checkpoint at its end."""
    file = shop / "night.yaml"
    lq = {"priority": 3, "group": "sums"} | settings.pop("lq", {})
    content = {"model": "model", "data": "data", "iters": 100, "batch_size": 2, "num_layers": -1, "lq": lq} | settings
    file.write_text(json.dumps(content))
    (job,) = enqueue_all(app, check_all(app, [file]))
    assert home.store.leases.claim(WORKER, 2.0) is not None
    attempt = home.store.attempts.begin(job.id, owner=WORKER, now=3.0)
    ending = Ending(outcome=Outcome.DONE, reason=reason, detail="x")
    home.store.attempts.end(attempt.id, ending=ending, exit_code=0, signal=None, now=4.0)
    home.store.leases.settle(job.id, Decision(status=status, reason=reason, detail="x"), owner=WORKER, now=5.0)
    save(job, 100)
    return home.store.jobs.get(job.id)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_retry_with_settings_is_a_new_job(home: Home, app: App, here: InProcess, shop: Path, status: Status) -> None:
    old = ended(home, app, shop, status)
    (new,) = here.json("retry", old.id, "--set", "learning_rate=1e-4", "--set", "lora_parameters.rank=4")["jobs"]
    job = home.store.jobs.get(new["id"])
    spec, before = home.store.spec(job.id), home.store.spec(old.id)
    assert (job.status, job.attempts, job.group_name, job.priority) == (Status.QUEUED, 0, "sums", 3)
    assert (spec.learning_rate, spec.lora_parameters.rank, spec.data) == (1e-4, 4, before.data)
    assert json.loads(job.dir.provenance.read_text())["submitted"]["retry_of"] == old.id
    assert (home.store.jobs.get(old.id).status, home.store.spec(old.id)) == (status, before)


def test_retry_from_takes_the_weights(home: Home, app: App, here: InProcess, shop: Path) -> None:
    old = ended(home, app, shop)
    (new,) = here.json("retry", old.id, "--set", "iters=50", "--from", 100)["jobs"]
    weights = home.store.spec(new["id"]).resume_adapter_file
    assert weights == str(old.dir.checkpoints / "step-0000100" / "adapters.safetensors")
    assert "no checkpoint of iteration 70" in here("retry", old.id, "--set", "iters=50", "--from", 70, expect=5).err


@pytest.mark.parametrize(
    ("words", "code", "fact"),
    [
        (["--set", "iters=100"], 2, "changes nothing"),
        (["--set", "itres=100"], 2, "did you mean 'iters'"),
        (["--set", "learning_rate=-1"], 2, "learning_rate"),
        (["--set", "lq.matrix.seed=[1, 2]"], 2, "matrix"),
        (["--set", "data=nowhere"], 2, "nowhere"),
        (["--set", "iters=50", "--fresh"], 2, "--set cannot be used together"),
        ([], 5, "--set KEY=VALUE"),
    ],
)
def test_senseless_retry_is_refused(
    home: Home, app: App, here: InProcess, shop: Path, words: list[str], code: int, fact: str
) -> None:
    old = ended(home, app, shop)
    assert fact in here("retry", old.id, *words, expect=code).err
    assert [job.id for job in home.store.jobs.overview(all_jobs=True)] == [old.id]


def test_live_job_is_not_retried_with_settings(home: Home, app: App, here: InProcess, shop: Path) -> None:
    (job,) = enqueue_all(app, check_all(app, [written(shop)]))
    assert "queued" in here("retry", job.id, "--set", "iters=50", expect=5).err


def written(shop: Path) -> Path:
    """Return a job file."""
    file = shop / "one.yaml"
    file.write_text("model: model\ndata: data\nbatch_size: 2\nnum_layers: -1\n")
    return file


def test_own_adapter_path_may_be_replaced(home: Home, app: App, here: InProcess, shop: Path, tmp_path: Path) -> None:
    target = tmp_path / "published"
    old = ended(home, app, shop, adapter_path=str(target))
    target.mkdir()
    (target / "adapters.safetensors").write_bytes(b"of another tool")
    assert "adapter_path" in here("retry", old.id, "--set", "iters=50", expect=5).err
    (target / "lq.json").write_text(json.dumps({"job": old.id}))
    assert "queued" in here("retry", old.id, "--set", "iters=50").out


def test_extend_queues_the_same_job(home: Home, app: App, here: InProcess, shop: Path) -> None:
    old = ended(home, app, shop)
    (changed,) = here.json("extend", old.id, "--iters", 250)["jobs"]
    job = home.store.jobs.get(old.id)
    assert (changed["id"], job.status, job.iters, job.ended_at) == (old.id, Status.QUEUED, 250, None)
    assert home.store.spec(job.id).iters == load_frozen(job.dir.config).iters == 250
    (incident,) = home.store.incidents.of(job.id)
    assert (incident.code, incident.evidence["iters"]) == ("extended", 250)


@pytest.mark.parametrize(
    ("settings", "words", "code", "fact"),
    [
        ({}, ["--iters", "100"], 2, "100 iterations already"),
        (
            {"lr_schedule": {"name": "cosine_decay", "arguments": [1e-4, 100]}},
            ["--iters", "200"],
            2,
            "arguments[1]=200",
        ),
        ({"status": Status.FAILED}, ["--iters", "200"], 5, "lq retry"),
        ({"reason": Reason.EARLY_STOPPED}, ["--iters", "200"], 5, "early_stop=null"),
        ({"gone": True}, ["--iters", "200"], 5, "checkpoints were deleted"),
    ],
)
def test_senseless_extension_is_refused(
    home: Home, app: App, here: InProcess, shop: Path, settings: dict[str, Any], words: list[str], code: int, fact: str
) -> None:
    settings = dict(settings)
    gone = settings.pop("gone", False)
    old = ended(home, app, shop, **settings)
    if gone:
        for file in old.dir.checkpoints.glob("*/manifest.json"):
            file.unlink()
    before = old.dir.config.read_bytes()
    assert fact in here("extend", old.id, *words, expect=code).err
    assert (home.store.jobs.get(old.id).status, old.dir.config.read_bytes()) == (old.status, before)


def test_schedule_that_ends_is_mentioned(home: Home, app: App, here: InProcess, shop: Path) -> None:
    schedule = {"name": "linear_schedule", "arguments": [1e-4, 1e-5, 100]}
    steady = ended(home, app, shop, lr_schedule={"name": "exponential_decay", "arguments": [1e-4, 0.99]})
    old = ended(home, app, shop, lr_schedule=schedule)
    said = here("extend", old.id, "--iters", 200).err
    assert all(fact in said for fact in ("100 updates", "1e-05", "arguments[2]=200"))
    assert here("extend", steady.id, "--iters", 200).err == ""
