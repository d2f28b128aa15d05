"""Whether a job fits next to the running ones, and that every verb says so."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.model.configuration import fit_key
from jobs.model.job import Fit, Job
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.scheduling.obstacles import Reading, Why
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home as HomeFolder
from orchestrator.scheduling import eligibility, memory_admission
from orchestrator.worker.dispatcher import Dispatcher
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home
from workers.process.lock import LockFile
from workers.system import processes

GB = 10**9


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


def remember(home: Home, job: Job, peak: int | None) -> None:
    """Record the peak of an earlier run of the job's configuration."""
    spec = JobSpec.model_validate_json(home.store.jobs.spec_json(job.id))
    key = fit_key(spec, RunPlan.requested(spec).stages[0])
    home.store.fits.record(key, Fit(fits=True, peak_bytes=peak, job_id=job.id), time.time())


def start(home: Home) -> Job:
    """Let the first job of the queue run, in this process."""
    job = home.store.leases.claim(processes.identity(), time.time())
    assert job is not None
    return job


def obstacle(home: Home, job: Job, slots: int = 2) -> str | None:
    with App(HomeFolder(home.path)) as app:
        turns = {turn.job.id: turn for turn in eligibility.turns(app, slots=slots, read=lambda _: Reading())}
    kept = turns[job.id].obstacle
    assert kept is None or kept.why is Why.MEMORY
    return kept.text if kept is not None else None


def test_job_alone_needs_no_known_memory(home: Home) -> None:
    assert obstacle(home, home.queued()) is None


def test_no_memory_reason_without_a_slot(home: Home) -> None:
    home.queued("first", batch_size=1)
    start(home)
    assert obstacle(home, home.queued("second", batch_size=2), slots=1) is None


def test_job_of_unknown_memory_runs_alone(home: Home) -> None:
    first = home.queued("first", batch_size=1)
    start(home)
    second = home.queued("second", batch_size=2)
    assert obstacle(home, second) == f"the memory that job {first.id} takes is not known yet"
    remember(home, first, GB)
    assert str(obstacle(home, second)).endswith("runs alone")
    remember(home, second, None)
    assert str(obstacle(home, second)).endswith("runs alone")


@pytest.mark.parametrize(("recommended", "fits"), [(11 * GB, True), (10 * GB, False)])
def test_two_jobs_share_the_usable_memory(
    home: Home, monkeypatch: pytest.MonkeyPatch, recommended: int, fits: bool
) -> None:
    monkeypatch.setattr(memory_admission, "recommended_memory", lambda _: (recommended, "the test"))
    first = home.queued("first", batch_size=1)
    start(home)
    second = home.queued("second", batch_size=2, lq={"memory": {"limit": "80%"}})
    remember(home, first, 3 * GB)
    remember(home, second, 5 * GB)
    text = obstacle(home, second)
    assert (text is None) is fits
    assert re.findall(r"[\d.]+ GB", text or "") == ([] if fits else ["5 GB", "3 GB", "7.36 GB"])


@contextmanager
def worker_of_two_slots(home: Home) -> Iterator[None]:
    """Hold the worker's lock, as a worker with two slots does."""
    lock = LockFile.take(HomeFolder(home.path).worker_lock)
    lock.write(processes.identity(), started_at=time.time(), slots=2)
    try:
        yield
    finally:
        lock.release()


def test_verbs_agree_on_the_memory_reason(home: Home) -> None:
    """With two slots, the dispatcher, `lq status`, `lq show` and their JSON give the same reason, with numbers."""
    limited = {"memory": {"limit": 10 * GB}}
    first = home.queued("first", batch_size=1, lq=limited)
    start(home)
    second = home.queued("second", batch_size=2, lq=limited)
    remember(home, first, 6 * GB)
    remember(home, second, 5 * GB)
    reason = "it takes 5 GB, and job 1 6 GB of the 9.2 GB it may take"
    with App(HomeFolder(home.path)) as app:
        dispatcher = Dispatcher(WorkerContext(app=app, owner=processes.identity()), slots=2)
        dispatcher._running.add(first.id)
        assert dispatcher._next() is None
        lq = InProcess(home.path)
        with worker_of_two_slots(home):
            entry = next(job for job in lq.json("status")["jobs"] if job["id"] == second.id)
            assert (entry["kept_by"]["why"], entry["kept_by"]["text"]) == ("memory", reason)
            assert lq.json("show", second.id)["job"]["kept_by"] == entry["kept_by"]
            assert reason in " ".join(lq("status").out.split())
            assert reason in " ".join(lq("show", second.id).out.split())
        app.store.fits.record(*_smaller(home, second))
        claimed = dispatcher._next()
    assert claimed is not None
    assert claimed.id == second.id


def _smaller(home: Home, job: Job) -> tuple[str, Fit, float]:
    spec = JobSpec.model_validate_json(home.store.jobs.spec_json(job.id))
    key = fit_key(spec, RunPlan.requested(spec).stages[0])
    return key, Fit(fits=True, peak_bytes=GB, job_id=job.id), time.time()
