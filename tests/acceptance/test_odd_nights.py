"""Nights on which the machine, the network or the model's files fail: each ends in a named state, or goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.model.outcomes import Reason
from orchestrator.store.store import Store
from tests.harness import Lq, Workshop, kill, lives, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]


@pytest.mark.longest
def test_broken_mlx_pauses_the_queue(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    """Two jobs that cannot import MLX pause the queue; it resumes by itself when MLX can be imported again."""
    broken = tmp_path / "broken" / "mlx"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libmlx.so: file too short')\n")
    night = Lq(lq.home, PYTHONPATH=str(broken.parent))
    short = {"iters": 20, "save_every": 20}
    first = night.submit(workshop.job_file(tmp_path / "a.yaml", **short, adapter_path=str(tmp_path / "a")))
    second = night.submit(workshop.job_file(tmp_path / "b.yaml", **short, adapter_path=str(tmp_path / "b")))

    def paused() -> dict[str, Any] | None:
        queue = lq.look("status")["queue"]
        return queue if queue["paused"] else None

    queue = until(paused, "the queue to be paused", every=0.2)
    assert "libmlx.so: file too short" in queue["because"]
    assert {training.job()["status"] for training in (first, second)} <= {"waiting", "queued"}
    answer = night("submit", workshop.job_file(tmp_path / "c.yaml", **short, adapter_path=str(tmp_path / "c")))
    for text in (answer.err, night("status").out):
        assert "lq resume --queue" in " ".join(text.split())
        assert "mlx" in text
    shutil.rmtree(broken)
    for training in (first, second):
        training.wait(seconds=200)
    assert not lq.look("status")["queue"]["paused"]


@pytest.mark.longest
def test_absent_network_is_waited_for(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    """A model that is not cached and a hub that refuses connections: the job waits, and goes on when it can."""
    cache = tmp_path / "cache"
    lq.settings(notify={"services": [{"name": "inbox", "url": "json://127.0.0.1:9/", "on": ["needs_you"]}]})
    night = Lq(lq.home, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_CACHE=str(cache))
    file = workshop.job_file(tmp_path / "job.yaml", model="someone/tiny", iters=20, save_every=20)
    training = night.submit(file)
    waiting = training.until_status("waiting")
    assert (waiting["reason"], waiting["attempts"]) == (Reason.NETWORK, 1)
    assert "refused" in training.facts()["job"]["detail"]
    assert "network" in night("status").out
    night("resume", training.id)
    until(lambda: training.job()["attempts"] == 2 and training.job()["status"] == "waiting", "a second wait")
    facts = training.facts()
    assert [(one["outcome"], one["reason"]) for one in facts["attempts"]] == [("stopped", Reason.NETWORK)] * 2
    assert [incident["code"] for incident in facts["incidents"]] == [Reason.NETWORK]
    with Store.open(lq.home / "lq.db") as store:
        assert [message.event for message in store.outbox.messages(training.id)] == ["needs_you"]
    snapshot = cache / "models--someone--tiny" / "snapshots" / "a1"
    shutil.copytree(workshop.model, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a1")
    night("resume", training.id)
    training.wait()


@pytest.mark.longest
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_replaced_model_is_refused(lq: Lq, workshop: Workshop, tmp_path: Path, file: str) -> None:
    """A file of the model is replaced between two attempts by one of the same size."""
    model = shutil.copytree(workshop.model, tmp_path / "model")
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", model=str(model)))
    training.trained(20)
    lq("worker", "stop")
    content = (model / file).read_bytes()
    (model / file).write_bytes(content[:-9] + bytes(byte ^ 1 for byte in content[-9:-8]) + content[-8:])
    lq.start_worker()
    training.wait(100)
    facts = training.facts()
    assert (facts["job"]["reason"], len(facts["attempts"])) == (Reason.MODEL_MISSING, 2)
    assert file in facts["job"]["detail"]
    (model / file).write_bytes(content)
    lq("retry", training.id)
    training.wait()
    assert training.facts()["attempts"][-1]["quality"] == "exact"


def report_writer(worker: int) -> int | None:
    """Return the pid of the process that writes a report for a worker, if there is one."""
    for child in psutil.Process(worker).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "orchestrator.report" in child.cmdline():
                return child.pid
    return None


@pytest.mark.parametrize("killed", ["report", pytest.param("group", marks=pytest.mark.longest)])
def test_missing_report_is_written_later(lq: Lq, workshop: Workshop, tmp_path: Path, killed: str) -> None:
    """The process that writes the report is killed, alone or with the worker's whole process group."""
    worker = lq.start_worker()
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=20, save_every=20))
    writer = until(lambda: report_writer(worker), "the report to be written", every=0)
    if killed == "group":
        os.killpg(os.getpgid(worker), signal.SIGKILL)
        until(lambda: not lives(worker), "the worker to be gone")
        assert "resumes when a worker starts" in lq("status").out
        lq.start_worker()
    else:
        kill(writer)
        training.wait()
        assert f"lq report {training.id}" in lq("verify", training.id, expect=6).out
        checks = json.loads(lq("doctor", "--json", expect=0).out)["checks"]
        assert next(check["state"] for check in checks if check["name"] == "reports") == "warn"
        kill(worker)
        lq.start_worker()
        until(lambda: lq("doctor", "--json").out.count("missing for finished jobs") == 0, "the worker to write it")
        assert "no_report" in [incident["code"] for incident in training.facts()["incidents"]]
    training.wait()
    report = training.folder.report
    names = ("report.json", "report.md", "report.html", "loss_curve.png")
    until(lambda: all((report / name).exists() for name in names), "the report")
    until(lambda: report_writer(lq.worker()) is None, "the report to be complete")
    lq("verify", training.id)
