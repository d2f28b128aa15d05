"""What machines read: the fields of --json as scripts have read them so far, the exit codes of `lq wait`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model.outcomes import Reason
from jobs.model.spec import LqSpec
from jobs.model.states import Status
from orchestrator.demo.tiny_model import build_data, build_model
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, Seen, one_of_each
from workers.system import processes

STATUS = {"schema", "worker", "machine", "queue", "messages", "inbox", "jobs"}
JOB = {
    "id",
    "name",
    "status",
    "reason",
    "iteration",
    "iters",
    "train_loss",
    "val_loss",
    "it_s",
    "eta_seconds",
    "attempts",
    "pid",
    "job_dir",
    "priority",
    "group",
    "kept_by",
    "starts_at",
    "not_before",
    "ends_at",
    "verdict",
    "best_val_loss",
    "best_val_iteration",
    "phase",
    "memory",
    "incidents",
    "newest_incident",
    "started_at",
    "ended_at",
}
MACHINE = {"kept_awake", "mains", "battery_percent", "memory_free_bytes", "memory_bytes"}
MEMORY = {"footprint_bytes", "peak_bytes", "limit_bytes"}
INCIDENT = {"time", "code", "text"}
KEPT_BY = {"why", "text", "until", "rest_s"}
SHOW = {
    "schema",
    "job",
    "spec",
    "attempts",
    "validations",
    "tests",
    "checkpoints",
    "incidents",
    "messages",
}


def strictly(text: str) -> dict[str, Any]:
    """Read JSON as other programs do: NaN and Infinity are no JSON."""
    content: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert content["schema"] == 1
    return content


def test_submit_says_which_jobs_it_queued(home: Home, tmp_path: Path) -> None:
    build_model(tmp_path / "model")
    build_data(tmp_path / "data")
    file = tmp_path / "night.yaml"
    file.write_text("model: model\ndata: data\nnum_layers: -1\n")

    answer = InProcess(home.path)("submit", "--json", file, file)

    content = strictly(answer.out)
    assert set(content) == {"schema", "dry_run", "jobs"}
    assert content["dry_run"] is False
    alike: dict[str, Any] = {"name": "night", "group": None, "settings": {}, "status": "queued"}
    assert content["jobs"] == [
        {"id": number, "job_dir": str(home.jobs / f"{number}-night")} | alike for number in (1, 2)
    ]
    assert answer.err == ""


def test_status_gives_every_documented_field_of_a_job_in_any_state(home: Home) -> None:
    ids = one_of_each(home)
    content = strictly(InProcess(home.path)("status", "--json").out)
    assert set(content) == STATUS
    assert content["worker"] == {"alive": False, "pid": None, "started_at": None}
    assert set(content["machine"]) == MACHINE
    assert content["queue"] == {"paused": False, "because": None}
    assert content["messages"] == {"waiting": 0, "gave_up": 0}
    assert {job["status"]: job["id"] for job in content["jobs"]} == ids
    assert all(set(job) == JOB for job in content["jobs"])


def test_status_tells_that_the_queue_is_paused_and_why(home: Home) -> None:
    home.queued()
    home.store.queue.pause("jobs 3 and 4 both died of crashed", 1.0)
    assert strictly(InProcess(home.path)("status", "--json").out)["queue"] == {
        "paused": True,
        "because": "jobs 3 and 4 both died of crashed",
    }


def test_status_of_a_home_without_jobs_has_every_field(tmp_path: Path) -> None:
    content = strictly(InProcess(tmp_path / "none")("status", "--json").out)
    assert set(content) == STATUS
    assert content["queue"] == {"paused": False, "because": None}


def test_status_of_a_running_job_tells_how_far_it_is(home: Home) -> None:
    job = home.running("night", seen=Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0))
    (told,) = strictly(InProcess(home.path)("status", "--json").out)["jobs"]
    assert told.pop("ends_at") == pytest.approx(time.time() + 250, abs=60)
    assert set(told["memory"]) == MEMORY
    assert told == {
        "id": job.id,
        "name": "night",
        "status": "running",
        "reason": None,
        "iteration": 500,
        "iters": 1000,
        "train_loss": 1.25,
        "val_loss": 1.5,
        "it_s": 2.0,
        "eta_seconds": 251.5,
        "attempts": 1,
        "pid": None,
        "job_dir": job.job_dir,
        "priority": 0,
        "group": None,
        "kept_by": None,
        "starts_at": None,
        "not_before": None,
        "verdict": None,
        "best_val_loss": 1.5,
        "best_val_iteration": 500,
        "phase": None,
        "memory": dict.fromkeys(MEMORY),
        "incidents": 0,
        "newest_incident": None,
        "started_at": job.started_at,
        "ended_at": None,
    }


def test_status_gives_the_pid_of_a_living_trainer_and_of_no_other(home: Home) -> None:
    with subprocess.Popen(["sleep", "60"]) as trainer:
        home.running(child=processes.identity(trainer.pid))
        (alive,) = strictly(InProcess(home.path)("status", "--json").out)["jobs"]
        trainer.kill()
        trainer.wait()
        (dead,) = strictly(InProcess(home.path)("status", "--json").out)["jobs"]
    assert alive["pid"] == trainer.pid
    assert dead["pid"] is None


def test_a_loss_that_is_no_number_is_still_json(home: Home) -> None:
    job = home.running(seen=Seen(iteration=10, train_loss=float("nan"), val_loss=float("inf"), it_s=2.0))
    (told,) = strictly(InProcess(home.path)("status", "--json").out)["jobs"]
    assert (told["train_loss"], told["val_loss"]) == ("nan", "inf")
    strictly(InProcess(home.path)("show", job.id, "--json").out)


def test_status_lists_twenty_ended_jobs_and_with_all_every_one(home: Home) -> None:
    made = [home.cancelled().id for _ in range(22)]
    lq = InProcess(home.path)
    assert [job["id"] for job in strictly(lq("status", "--json").out)["jobs"]] == made[-20:]
    assert [job["id"] for job in strictly(lq("status", "--all", "--json").out)["jobs"]] == made


def test_show_gives_everything_about_one_job(home: Home) -> None:
    job = home.ended(Status.FAILED, Reason.KILLED, "exit code 1", seen=Seen(
        iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0
    ))  # fmt: skip
    content = strictly(InProcess(home.path)("show", job.id, "--json").out)
    assert set(content) == SHOW
    assert set(content["job"]) == JOB | {"detail", "submitted_at", "cleaned_at"}
    assert content["job"]["detail"] == "exit code 1"
    assert content["spec"]["iters"] == 1000
    assert [attempt["reason"] for attempt in content["attempts"]] == ["killed"]
    assert [one["loss"] for one in content["validations"]] == [1.5]


def test_logs_gives_the_events_as_they_are(home: Home) -> None:
    job = home.queued()
    line = '{"v":1,"seq":1,"time":1.0,"awake":1.0,"attempt":1,"kind":"phase","phase":"load"}'
    (Path(job.job_dir) / "events.jsonl").write_text(f"{line}\n")
    assert json.loads(InProcess(home.path)("logs", job.id, "--json").out) == json.loads(line)


def test_report_gives_report_json(home: Home) -> None:
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED)
    content = strictly(InProcess(home.path)("report", job.id, "--json").out)
    assert content == json.loads((Path(job.job_dir) / "report" / "report.json").read_text())


def test_worker_status_says_that_none_runs(home: Home) -> None:
    answer = InProcess(home.path)("worker", "status", "--json", expect=4)
    assert strictly(answer.out) == {"schema": 1, "worker": {"alive": False, "pid": None, "started_at": None}}
    assert answer.err == f"lq: no worker runs for {home.path}; start one: lq worker --detach\n"


def test_notify_list_names_services_and_never_their_urls(home: Home) -> None:
    home.write_settings("notify: {services: [{url: 'json://u:secret@127.0.0.1:9/', name: phone, tags: [me]}]}\n")
    answer = InProcess(home.path)("notify", "list", "--json")
    hears = ["recovered", "spike_handled", "needs_you", "deadline", "failed", "finished", "digest"]
    entry = {"name": "phone", "tags": ["me"], "on": hears}
    rest: dict[str, Any] = {"digest": None, "quiet": None, "ping": False, "undelivered": []}
    assert strictly(answer.out) == {"schema": 1, "services": [entry]} | rest


def test_notify_test_says_what_became_of_each_service(home: Home) -> None:
    home.write_settings("notify: {services: [{url: 'json://127.0.0.1:9/', name: phone}]}\n")
    answer = InProcess(home.path)("notify", "test", "--json", expect=6)
    assert strictly(answer.out) == {
        "schema": 1,
        "services": [{"name": "phone", "delivered": False, "result": "failed"}],
        "ping": None,
    }


def test_config_schema_knows_the_keys_of_mlx_lm_and_of_lq(tmp_path: Path) -> None:
    schema = json.loads(InProcess(tmp_path / "none")("config", "schema").out)
    assert {"model", "data", "iters", "lora_parameters", "lr_schedule", "lq"} <= set(schema["properties"])
    assert set(LqSpec.model_fields) <= {key for part in schema["$defs"].values() for key in part["properties"]}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("status", "code"),
    [(Status.SUCCEEDED, 0), (Status.FAILED, 100), (Status.CANCELLED, 103), (Status.QUEUED, 101), (Status.PAUSED, 101)],
)
def test_wait_exits_as_the_job_ended(ended: tuple[Home, dict[Status, int]], status: Status, code: int) -> None:
    home, ids = ended
    answer = InProcess(home.path)("wait", ids[status], "--timeout", 0, expect=code)
    assert answer.out == ""


def test_wait_for_several_tells_of_the_first_that_did_not_succeed(ended: tuple[Home, dict[Status, int]]) -> None:
    home, ids = ended
    lq = InProcess(home.path)
    lq("wait", ids[Status.SUCCEEDED], ids[Status.CANCELLED], ids[Status.FAILED], expect=103)
    lq("wait", ids[Status.SUCCEEDED], ids[Status.QUEUED], "--any", "--timeout", 5, expect=0)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, dict[Status, int]]]:
    """Give a home with a job in every state, to be read only."""
    made = Home(tmp_path_factory.mktemp("ended") / "home")
    yield made, one_of_each(made)
    made.store.close()
