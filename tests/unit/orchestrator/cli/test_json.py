"""`--json`: the fields that scripts read, and the exit codes of `lq wait`."""

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
from tests.golden import assert_golden
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, Seen, one_of_each
from workers.system import processes

GOLDEN = Path(__file__).parent / "golden"


def parsed(text: str) -> dict[str, Any]:
    """Parse JSON without NaN and Infinity, which are not part of JSON."""
    content: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert content["schema"] == 1
    return content


def field_paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every field, with [] for the entries of a list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}".lstrip(".")
            yield from field_paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from field_paths(inner, f"{path}[]")


def test_submit_prints_the_queued_jobs(home: Home, tmp_path: Path) -> None:
    build_model(tmp_path / "model")
    build_data(tmp_path / "data")
    file = tmp_path / "night.yaml"
    file.write_text("model: model\ndata: data\nnum_layers: -1\n")
    answer = InProcess(home.path)("submit", "--json", file, file)
    common: dict[str, Any] = {"name": "night", "group": None, "settings": {}, "status": "queued"}
    jobs = [{"id": number, "job_dir": str(home.jobs / f"{number}-night")} | common for number in (1, 2)]
    assert parsed(answer.out) == {"schema": 1, "dry_run": False, "jobs": jobs}
    assert answer.err.startswith("note: relative paths start in "), "there are two possible folders"
    assert answer.err.count("\n") == 1


def test_status_fields_stay_the_same(home: Home) -> None:
    ids = one_of_each(home)
    content = parsed(InProcess(home.path)("status", "--json").out)
    assert {job["status"]: job["id"] for job in content["jobs"]} == ids
    assert content["worker"] == {"alive": False, "pid": None, "started_at": None}
    assert_golden("\n".join(sorted(set(field_paths(content)))) + "\n", GOLDEN / "status_fields.txt")


def test_status_gives_the_reason_of_a_pause(home: Home) -> None:
    home.queued()
    home.store.queue.pause("jobs 3 and 4 crashed", 1.0)
    content = parsed(InProcess(home.path)("status", "--json").out)
    assert content["queue"] == {"paused": True, "because": "jobs 3 and 4 crashed"}


def test_status_of_an_empty_home(tmp_path: Path) -> None:
    content = parsed(InProcess(tmp_path / "none")("status", "--json").out)
    assert (content["jobs"], content["queue"]) == ([], {"paused": False, "because": None})


def test_status_of_a_running_job(home: Home) -> None:
    job = home.running("night", seen=Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0))
    home.attach_trainer(job.id)
    (listed,) = parsed(InProcess(home.path)("status", "--json").out)["jobs"]
    assert listed["ends_at"] == pytest.approx(time.time() + 250, abs=60)
    expected = {
        "id": job.id,
        "status": "running",
        "iteration": 500,
        "iters": 1000,
        "train_loss": 1.25,
        "val_loss": 1.5,
        "it_s": 2.0,
        "eta_seconds": 251.5,
        "attempts": 1,
        "job_dir": job.job_dir,
        "best_val_loss": 1.5,
        "best_val_iteration": 500,
        "memory": {"footprint_bytes": None, "peak_bytes": None, "limit_bytes": None},
        "started_at": job.started_at,
        "ended_at": None,
    }
    assert listed | expected == listed


def test_status_has_the_pid_of_the_trainer(home: Home) -> None:
    with subprocess.Popen(["sleep", "60"]) as trainer:
        home.running(child=processes.identity(trainer.pid))
        (alive,) = parsed(InProcess(home.path)("status", "--json").out)["jobs"]
        trainer.kill()
        trainer.wait()
        (gone,) = parsed(InProcess(home.path)("status", "--json").out)["jobs"]
    assert (alive["pid"], gone["pid"]) == (trainer.pid, None)


def test_infinite_losses_are_strings(home: Home) -> None:
    job = home.running(seen=Seen(iteration=10, train_loss=float("nan"), val_loss=float("inf"), it_s=2.0))
    (listed,) = parsed(InProcess(home.path)("status", "--json").out)["jobs"]
    assert (listed["train_loss"], listed["val_loss"]) == ("nan", "inf")
    parsed(InProcess(home.path)("show", job.id, "--json").out)


def test_status_lists_twenty_ended_jobs(home: Home) -> None:
    made = [home.cancelled().id for _ in range(22)]
    lq = InProcess(home.path)
    assert [job["id"] for job in parsed(lq("status", "--json").out)["jobs"]] == made[-20:]
    assert [job["id"] for job in parsed(lq("status", "--all", "--json").out)["jobs"]] == made


def test_show_prints_everything_about_a_job(home: Home) -> None:
    seen = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)
    job = home.ended(Status.FAILED, Reason.KILLED, "exit code 1", seen=seen)
    content = parsed(InProcess(home.path)("show", job.id, "--json").out)
    assert content["job"]["detail"] == "exit code 1"
    assert content["spec"].pop("iters") == 1000
    del content["spec"]
    assert [attempt["reason"] for attempt in content["attempts"]] == ["killed"]
    assert [validation["loss"] for validation in content["validations"]] == [1.5]
    assert_golden("\n".join(sorted(set(field_paths(content)))) + "\n", GOLDEN / "show_fields.txt")


def test_logs_prints_the_events(home: Home) -> None:
    job = home.queued()
    line = '{"v":2,"seq":1,"time":1.0,"awake":1.0,"attempt":1,"kind":"phase","phase":"load"}'
    (Path(job.job_dir) / "events.jsonl").write_text(f"{line}\n")
    assert json.loads(InProcess(home.path)("logs", job.id, "--json").out) == json.loads(line)


def test_report_prints_report_json(home: Home) -> None:
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED)
    content = parsed(InProcess(home.path)("report", job.id, "--json").out)
    assert content == json.loads((Path(job.job_dir) / "report" / "report.json").read_text())


def test_worker_status_without_a_worker(home: Home) -> None:
    answer = InProcess(home.path)("worker", "status", "--json", expect=4)
    assert parsed(answer.out)["worker"] == {"alive": False, "pid": None, "started_at": None}
    assert "lq worker start" in answer.err


def test_notify_list_hides_the_urls(home: Home) -> None:
    home.write_settings("notify: {services: [{url: 'json://u:secret@127.0.0.1:9/', name: phone, tags: [me]}]}\n")
    answer = InProcess(home.path)("notify", "list", "--json")
    events = ["recovered", "spike_handled", "needs_you", "deadline", "failed", "finished", "digest"]
    service = {"name": "phone", "tags": ["me"], "on": events}
    others: dict[str, Any] = {"digest": None, "quiet": None, "ping": False, "undelivered": []}
    assert parsed(answer.out) == {"schema": 1, "services": [service]} | others


def test_notify_test_prints_each_service(home: Home) -> None:
    home.write_settings("notify: {services: [{url: 'json://127.0.0.1:9/', name: phone}]}\n")
    content = parsed(InProcess(home.path)("notify", "test", "--json", expect=6).out)
    assert content["services"] == [{"name": "phone", "delivered": False, "result": "connection refused"}]
    assert content["ping"] is None


def test_config_schema_has_all_keys(tmp_path: Path) -> None:
    schema = json.loads(InProcess(tmp_path / "none")("config", "schema").out)
    assert {"model", "data", "iters", "lora_parameters", "lr_schedule", "lq"} <= set(schema["properties"])
    assert set(LqSpec.model_fields) <= {key for part in schema["$defs"].values() for key in part["properties"]}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("status", "code"),
    [(Status.SUCCEEDED, 0), (Status.FAILED, 100), (Status.CANCELLED, 103), (Status.QUEUED, 101), (Status.PAUSED, 101)],
)
def test_wait_exit_code(ended: tuple[Home, dict[Status, int]], status: Status, code: int) -> None:
    home, ids = ended
    answer = InProcess(home.path)("wait", ids[status], "--timeout", 0, expect=code)
    assert answer.out.startswith(f"job {ids[status]} {status}: {status}" if code != 101 else "")
    assert answer.out.count("\n") == (code != 101)


def test_first_failure_decides_exit_code(ended: tuple[Home, dict[Status, int]]) -> None:
    home, ids = ended
    lq = InProcess(home.path)
    lq("wait", ids[Status.SUCCEEDED], ids[Status.CANCELLED], ids[Status.FAILED], expect=103)
    lq("wait", ids[Status.SUCCEEDED], ids[Status.QUEUED], "--any", "--timeout", 5, expect=0)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, dict[Status, int]]]:
    """Return a home with a job in every status, for reading only."""
    made = Home(tmp_path_factory.mktemp("ended") / "home")
    yield made, one_of_each(made)
    made.store.close()
