"""`lq check`: what a dry run finds out with real training, and that it leaves no file or process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.model.events import Kind
from orchestrator.demo.tiny_model import build_data
from orchestrator.planning.dry_run_child import PREFIX
from orchestrator.store.store import Store
from tests import poison
from tests.acceptance.test_memory import address_space, wide_rows
from tests.harness import BESIDE_PYTHON, FIRST_EVER_S, Lq, Workshop, processes_of, until
from workers.events import log as event_log
from workers.system import processes

pytestmark = pytest.mark.timeout(500, func_only=True)

MEGABYTE = 1 << 20
ROOT = Path(__file__).parents[2]


@pytest.fixture
def quiet(lq: Lq) -> Lq:
    """Return `lq` with a home in which no worker starts automatically."""
    lq.settings(autostart=False)
    return lq


def checked(lq: Lq, *words: str | Path, expect: int = 0) -> dict[str, Any]:
    """Run `lq check --json` and return its result."""
    content: dict[str, Any] = json.loads(lq("check", *words, "--json", expect=expect, seconds=FIRST_EVER_S).out)
    assert content["schema"] == 1
    assert content["ok"] == (expect == 0)
    assert_nothing_left(lq)
    return content


def only(content: dict[str, Any]) -> dict[str, Any]:
    (job,) = content["jobs"]
    return dict(job)


def codes(entries: list[dict[str, str]]) -> list[str]:
    return [entry["code"] for entry in entries]


def assert_nothing_left(lq: Lq) -> None:
    assert processes_of(lq.home) == []
    assert list(lq.home.glob(f"{PREFIX}*")) == []


@contextlib.contextmanager
def checking(lq: Lq, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `lq check FILE --json` within a block."""
    with subprocess.Popen(
        [BESIDE_PYTHON / "lq", "check", file, "--json"],
        env=os.environ | {"LQ_HOME": str(lq.home), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def child_in(lq: Lq, *phases: str) -> psutil.Process:
    """Wait until the child of the dry run has reached one of the phases, and return it."""

    def child() -> psutil.Process | None:
        for folder in lq.home.glob(f"{PREFIX}*"):
            events = event_log.read(folder / "events.jsonl", 0).events
            pids = [event.data["pid"] for event in events if event.kind is Kind.STARTED]
            reached = {event.data["phase"] for event in events if event.kind is Kind.PHASE}
            if pids and (not phases or set(phases) & reached):
                return psutil.Process(pids[0])
        return None

    return until(child, f"a dry run in {phases or 'any phase'}", every=0.002)


# --- a run that fits ---


def test_check_measures_a_run(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(tmp_path / "night.yaml", lq={"deadline": "2020-01-01 07:00"})
    before = time.time()
    job = only(content := checked(quiet, file))
    assert (job["id"], job["name"], job["file"], job["failures"]) == (None, "night", str(file), [])
    assert 0 < job["memory"]["peak_bytes"] < job["memory"]["limit_bytes"]
    speed, taken = job["speed"], job["time"]
    assert speed["updates"] >= 2
    assert speed["it_s"] == pytest.approx(4 / speed["update_s"] * speed["padded_tokens"] / speed["mean_padded_tokens"])
    assert (taken["iterations"], taken["validations"], taken["checkpoints"], taken["starts"]) == (120, 4, 12, 1)
    assert taken["train_s"] == pytest.approx(120 / speed["it_s"])
    assert min(taken[part] for part in ("start_s", "validation_s", "checkpoint_s")) > 0
    assert job["ends_at"] == content["ends_at"] == pytest.approx(job["begins_at"] + taken["total_s"])
    assert job["begins_at"] > before
    assert 0 < job["disk"]["checkpoint_bytes"] < job["disk"]["need_bytes"] < job["disk"]["free_bytes"]
    facts = job["data"]
    assert (facts["rows"], facts["valid_rows"], facts["truncated"], facts["unsupervised"]) == (50, 8, 0, 0)
    assert facts["epochs"] == pytest.approx(120 / 25)
    assert 0 < facts["padding_share"] < 1
    assert codes(job["warnings"]) == ["learning_rate", "few_validation_rows", "deadline"]
    assert not (quiet.home / "lq.db").exists(), "nothing is queued, and no store is created"


@pytest.mark.slow
def test_check_creates_no_home(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    out = lq("check", workshop.job_file(tmp_path / "night.yaml", iters=8), seconds=FIRST_EVER_S).out
    assert not lq.home.exists()
    lines = out.splitlines()
    assert lines[0] == "night: would run"
    labels = [line[2:11].strip() for line in lines[1:] if line[2:11].strip()]
    assert [one for one in labels if one not in ("warning", "note")] == [
        "memory",
        "speed",
        "time",
        "done",
        "disk",
        "data",
    ]


@pytest.mark.slow
def test_check_warns_about_the_data(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    data = tmp_path / "data"
    build_data(data, train=60, valid=10, test=0)
    rows = (data / "train.jsonl").read_text().splitlines()
    (data / "valid.jsonl").write_text("\n".join(rows[:5]) + "\n")  # also training rows
    silent = json.dumps({"messages": [{"role": "user", "content": "Q " * 90}, {"role": "assistant", "content": "A"}]})
    (data / "train.jsonl").write_text("\n".join([*rows, silent]) + "\n")
    file = workshop.job_file(
        tmp_path / "night.yaml", data=str(data), max_seq_length=64, mask_prompt=True, iters=2000, lr_schedule=None
    )
    job = only(checked(quiet, file))
    assert (job["data"]["truncated"], job["data"]["unsupervised"]) == (1, 1)
    assert job["data"]["duplicates"] == 5
    assert set(codes(job["warnings"])) >= {"unsupervised", "truncated", "duplicates", "few_validation_rows", "epochs"}


@pytest.mark.slow
@pytest.mark.longest
def test_check_runs_each_job_of_a_matrix(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(tmp_path / "sweep.yaml", lr_schedule=None, lq={"matrix": {"learning_rate": [1e-4, 2e-3]}})
    first, second = checked(quiet, file, "--set", "iters=8")["jobs"]
    assert first["name"] != second["name"]
    assert first["time"]["iterations"] == second["time"]["iterations"] == 8
    assert "learning_rate" not in codes(first["warnings"])
    assert "learning_rate" in codes(second["warnings"])


# --- runs that would fail ---


def test_submit_learns_from_out_of_memory(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    quiet.submit(workshop.job_file(tmp_path / "other.yaml", num_layers=1))  # creates the store
    file = workshop.job_file(tmp_path / "large.yaml", lq={"memory": {"limit": "50MB"}})
    job = only(checked(quiet, file, expect=6))
    assert codes(job["failures"]) == ["out_of_memory"]
    training = quiet.submit(file)
    with Store.open(quiet.home / "lq.db") as store:
        (stage,) = store.run_plans.stages(training.id)
    assert stage.grad_checkpoint
    assert "out_of_memory" in stage.because


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit of Linux")
def test_crash_without_memory_is_recognized(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(
        tmp_path / "large.yaml",
        data=str(wide_rows(tmp_path / "data")),
        batch_size=8,
        grad_accumulation_steps=1,
        iters=2,
    )
    with checking(quiet, file) as lq:
        child = child_in(quiet, "probe")  # its threads and tokens are allocated by then
        bound = address_space(child.pid) + 16 * MEGABYTE
        resource.prlimit(child.pid, resource.RLIMIT_AS, (bound, bound))
        out, err = lq.communicate(timeout=FIRST_EVER_S)
    assert lq.returncode == 6, out + err
    job = only(json.loads(out))
    assert codes(job["failures"]) == ["out_of_memory"]
    assert job["speed"] is None
    assert_nothing_left(quiet)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit of Linux")
def test_unwritable_checkpoint_fails(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(tmp_path / "big.yaml", lora_parameters={"rank": 1024, "scale": 1.0})
    with checking(quiet, file) as lq:
        child = child_in(quiet)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (2 * MEGABYTE, 2 * MEGABYTE))
        out, err = lq.communicate(timeout=FIRST_EVER_S)
    assert lq.returncode == 6, out + err
    assert codes(only(json.loads(out))["failures"]) == ["disk_full"]
    assert_nothing_left(quiet)


@pytest.mark.slow
def test_low_disk_fails_without_checkpoint(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    quiet.settings(autostart=False, disk={"floor": "900000GB"})
    job = only(checked(quiet, workshop.job_file(tmp_path / "night.yaml"), expect=6))
    assert codes(job["failures"]) == ["disk_full"]
    assert job["speed"]["it_s"] > 0  # the other steps ran
    assert job["disk"]["checkpoint_bytes"] is None


@pytest.mark.slow
def test_infinite_loss_names_its_rows(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    poison.with_a_hole(workshop.model, tmp_path / "model")
    shutil.copytree(workshop.data, tmp_path / "data")
    poison.spoil(tmp_path / "data" / "train.jsonl", range(0, 50, 2), " ~")
    file = workshop.job_file(tmp_path / "nan.yaml", model=str(tmp_path / "model"), data=str(tmp_path / "data"))
    job = only(checked(quiet, file, expect=6))
    assert set(codes(job["failures"])) == {"not_finite"}
    named = {int(line) for one in job["failures"] for line in re.findall(r"train\.jsonl:(\d+)", one["text"])}
    assert named
    assert all(line % 2 == 1 for line in named), "every second line is damaged, starting with the first"


def test_timeout_ends_the_dry_run(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    job = only(checked(quiet, workshop.job_file(tmp_path / "slow.yaml"), "--timeout", "0.2", expect=6))
    assert codes(job["failures"]) == ["stalled"]


@pytest.mark.parametrize("what", ["row", "model", "key"])
def test_wrong_file_is_refused_first(what: str, quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(workshop.data, data)
    changes: dict[str, Any] = {"data": str(data)}
    if what == "row":
        rows = (data / "train.jsonl").read_text().splitlines()
        (data / "train.jsonl").write_text("\n".join([*rows[:3], '{"messages": 3}', *rows[3:]]) + "\n")
    else:
        changes |= {"model": "./nowhere"} if what == "model" else {"lora_layers": 2}
    file = workshop.job_file(tmp_path / "wrong.yaml", **changes)
    err = quiet("check", file, expect=2).err
    assert {"row": "train.jsonl:4: ", "model": "no such folder", "key": "unknown key 'lora_layers'"}[what] in err
    assert_nothing_left(quiet)


# --- the queue ---


@pytest.mark.slow
@pytest.mark.longest
def test_queue_is_checked_in_order(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    settings = {"iters": 8, "lr_schedule": None, "learning_rate": 1e-4}
    first = quiet.submit(workshop.job_file(tmp_path / "first.yaml", **settings))
    held = quiet.submit(workshop.job_file(tmp_path / "held.yaml", **settings))
    urgent = quiet.submit(workshop.job_file(tmp_path / "urgent.yaml", lq={"priority": 5}, **settings))
    quiet("pause", held.id)
    content = checked(quiet, "--queue")
    by_id = {job["id"]: job for job in content["jobs"]}
    assert list(by_id) == [urgent.id, first.id, held.id]
    assert all(job["file"] is None for job in content["jobs"])
    assert by_id[first.id]["begins_at"] == pytest.approx(by_id[urgent.id]["ends_at"])
    assert content["ends_at"] == by_id[first.id]["ends_at"]  # a held job does not count
    with Store.open(quiet.home / "lq.db") as store:
        assert [store.jobs.get(one.id).status for one in (first, held, urgent)] == ["queued", "held", "queued"]


@pytest.mark.slow
def test_missing_data_fails_one_job(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(workshop.data, tmp_path / "data")
    gone = quiet.submit(workshop.job_file(tmp_path / "gone.yaml", data=str(tmp_path / "data"), iters=8))
    there = quiet.submit(workshop.job_file(tmp_path / "there.yaml", iters=8))
    shutil.rmtree(tmp_path / "data")
    content = checked(quiet, "--queue", expect=6)
    assert [(job["id"], codes(job["failures"])) for job in content["jobs"]] == [
        (gone.id, ["data_invalid"]),
        (there.id, []),
    ]


def test_empty_queue_is_ok(quiet: Lq) -> None:
    assert checked(quiet, "--queue") == {"schema": 1, "ok": True, "ends_at": None, "jobs": []}


@pytest.mark.slow
def test_check_refuses_while_a_job_trains(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(tmp_path / "night.yaml", iters=8)
    training = quiet.submit(file)
    with Store.open(quiet.home / "lq.db") as store:
        store.leases.claim(processes.identity(), time.time())
        attempt = store.attempts.begin(training.id, owner=processes.identity(), now=time.time())
        store.attempts.set_child(attempt.id, processes.identity())
        assert f"lq wait {training.id}" in quiet("check", file, expect=5).err
        assert only(checked(quiet, file, "--anyway"))["ok"]


# --- no file or process is left ---


def test_ctrl_c_cleans_up(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    with checking(quiet, workshop.job_file(tmp_path / "night.yaml")) as lq:
        child_in(quiet, "load")
        lq.send_signal(signal.SIGINT)
        lq.communicate(timeout=FIRST_EVER_S)
    assert lq.returncode == 130
    assert_nothing_left(quiet)


def test_child_cleans_up_after_kill(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    with checking(quiet, workshop.job_file(tmp_path / "night.yaml", grad_accumulation_steps=64)) as lq:
        child = child_in(quiet, "probe")
        lq.kill()
        lq.wait()
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child to be gone")
    until(lambda: not list(quiet.home.glob(f"{PREFIX}*")), "the folder to be gone")
    assert_nothing_left(quiet)


@pytest.mark.slow
def test_next_check_removes_old_folder(quiet: Lq, workshop: Workshop, tmp_path: Path) -> None:
    with checking(quiet, workshop.job_file(tmp_path / "night.yaml")) as lq:
        child = child_in(quiet)
        child.suspend()
        lq.kill()
        lq.wait()
        child.kill()
        until(lambda: processes_of(quiet.home) == [], "both processes to be gone")
    (left,) = quiet.home.glob(f"{PREFIX}*")
    os.utime(left, (1.0, 1.0))  # long ago
    checked(quiet, workshop.job_file(tmp_path / "again.yaml", iters=8))
