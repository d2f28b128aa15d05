"""When the jobs in the line will start, by what their configurations took before; deadlines lost in the line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from jobs.model.configuration import fit_key, key_of
from jobs.model.job import Fit, Job
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.scheduling.obstacles import Reading
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home as Place
from orchestrator.planning import queue_forecast
from orchestrator.worker import deadlines
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import WORKER, Home, Seen

IT_S, START_S, VALIDATION_S = 2.0, 30.0, 10.0
JOB_S = 1000 / IT_S + START_S + 6 * VALIDATION_S
"""Of 1,000 iterations with a validation before them and after every 200."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


def learn(home: Home, job: Job) -> None:
    """Let a run of the job's configuration have shown how fast it is."""
    spec = home.store.spec(job.id)
    key = fit_key(spec, RunPlan.requested(spec).stages[0])
    fit = Fit(fits=True, peak_bytes=1, job_id=job.id, it_s=IT_S, start_s=START_S, validation_s=VALIDATION_S)
    home.store.fits.record(key, fit, time.time())


def test_a_configuration_has_the_same_name_for_those_who_know_pydantic_and_those_who_do_not() -> None:
    for spec in (JobSpec(), JobSpec(fine_tune_type="full", num_layers=-1), JobSpec(lora_parameters={"rank": 3})):
        stage = RunPlan.requested(spec).stages[0]
        assert fit_key(spec, stage) == key_of(json.loads(spec.model_dump_json()), stage)


def test_jobs_start_one_after_another_behind_the_one_that_runs(home: Home) -> None:
    running = home.running("night", seen=Seen(iteration=500, train_loss=1.0, val_loss=1.0, it_s=2.0))
    first, second = home.queued("first"), home.queued("second", lq={"priority": 0})
    learn(home, first)
    now = time.time()
    found = queue_forecast.starts(home.store, now=now, slots=1)
    assert found[running.id].end == pytest.approx(now + 250.0)
    assert found[first.id].start == pytest.approx(now + 250.0)
    assert found[second.id].start == pytest.approx(now + 250.0 + JOB_S)
    told = {job["id"]: job["starts_at"] for job in json.loads(InProcess(home.path)("status", "--json").out)["jobs"]}
    assert told[running.id] is None
    assert told[second.id] == pytest.approx(now + 250.0 + JOB_S, abs=60.0)
    assert "~" in InProcess(home.path)("status").out


def test_nothing_is_said_behind_a_job_of_which_nothing_is_known(home: Home) -> None:
    known, unknown, behind = home.queued("known"), home.queued("unknown", batch_size=7), home.queued("behind")
    learn(home, known)
    found = queue_forecast.starts(home.store, now=1000.0, slots=1)
    assert found[known.id].start == 1000.0
    assert found[unknown.id].start == pytest.approx(1000.0 + JOB_S)
    assert found[behind.id].start is None
    assert queue_forecast.starts(home.store, now=1000.0, slots=2)[behind.id].start == pytest.approx(1000.0 + JOB_S)


def test_a_deadline_that_is_lost_in_the_line_is_told_once(home: Home) -> None:
    """The plan is made by the real `lq plan`."""
    first = home.queued("first", iters=1_000_000)
    home.queued("second", lq={"deadline": "2031-01-01 07:30"})
    third = home.queued("third", lq={"deadline": "2020-01-01 07:30"})
    learn(home, first)
    with App(Place(home.path)) as app:
        context = WorkerContext(app=app, owner=WORKER, read=lambda _: Reading(), zone=UTC)
        for _ in range(2):
            deadlines.DeadlineWatch(context).look()
    told = [(one.job_id, one.code) for job in home.store.queue.waiting() for one in home.store.incidents.of(job.job.id)]
    assert told == [(third.id, "deadline")], "the second has years"
    [incident] = home.store.incidents.of(third.id)
    assert incident.text.startswith("wanted by ")
