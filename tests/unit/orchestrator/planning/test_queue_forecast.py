"""When jobs start and end, and that every verb and the deadline watch give the same end."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.estimates.estimate import Source
from jobs.model.configuration import fit_key, key_of, requested_stage
from jobs.model.events import Event, Kind
from jobs.model.job import Fit, Job
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.scheduling.constraints import FEWEST_REPORTS, constraints_of
from jobs.scheduling.obstacles import Reading
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home as HomeFolder
from orchestrator.formatting.text import short_time
from orchestrator.notify import digest
from orchestrator.notify.publisher import Publisher
from orchestrator.planning import queue_forecast
from orchestrator.worker import deadlines
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import WORKER, Home, Seen

IT_S, START_S, VALIDATION_S = 2.0, 30.0, 10.0
JOB_S = 1000 / IT_S + START_S + 6 * VALIDATION_S
"""Of 1,000 iterations with a validation before them and after every 200."""

HALF_DONE = Seen(iteration=500, train_loss=1.0, val_loss=1.0, it_s=2.0)
LEFT_S = 500 / 2 + 3 * 0.5
"""The other half, with three validations of half a second."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


def spec_of(home: Home, job: Job) -> JobSpec:
    return JobSpec.model_validate_json(home.store.jobs.spec_json(job.id))


def learn(home: Home, job: Job) -> None:
    """Record the speed of an earlier run of the job's configuration."""
    spec = spec_of(home, job)
    key = fit_key(spec, RunPlan.requested(spec).stages[0])
    fit = Fit(fits=True, peak_bytes=1, job_id=job.id, it_s=IT_S, start_s=START_S, validation_s=VALIDATION_S)
    home.store.fits.record(key, fit, time.time())


def test_light_name_equals_the_parsed_one() -> None:
    for spec in (JobSpec(), JobSpec(fine_tune_type="full", num_layers=-1), JobSpec(lora_parameters={"rank": 3})):
        stored = json.loads(spec.model_dump_json())
        assert fit_key(spec, RunPlan.requested(spec).stages[0]) == key_of(stored, requested_stage(stored))


def test_every_verb_gives_the_same_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lq status`, `lq plan`, `lq show`, the digest and the deadline watch give one end for a running job."""
    running = home.running("night", seen=HALF_DONE, lq={"deadline": "2020-01-01 07:30"})
    home.attach_trainer(running.id)
    lq, now = InProcess(home.path), time.time()
    listed = next(job for job in lq.json("status")["jobs"] if job["id"] == running.id)
    shown = lq.json("show", running.id)["job"]
    planned = next(job for job in lq.json("plan")["jobs"] if job["id"] == running.id)
    expected = pytest.approx(now + LEFT_S, abs=20.0)
    assert [listed["ends_at"], shown["ends_at"], planned["end"]] == [expected] * 3
    assert listed["eta_seconds"] == shown["eta_seconds"] == planned["time"]["expected_s"] == LEFT_S
    assert planned["time"]["source"] == Source.MEASURED

    reported: list[float | None] = []
    monkeypatch.setattr(deadlines, "_report", lambda *_, due, expected: reported.append(expected))
    with App(HomeFolder(home.path)) as app:
        context = WorkerContext(app=app, owner=WORKER, clock=lambda: now, read=lambda _: Reading(), zone=UTC)
        spec = spec_of(home, running)
        watch = deadlines.DeadlineForecast(context, running, spec, constraints_of(spec.model_dump(mode="json")))
        watch.take([_report(running)] * FEWEST_REPORTS)
        assert reported == [now + LEFT_S]
        later = now - now % 60 + 120.0
        hour = datetime.fromtimestamp(later, UTC).strftime("%H:%M")
        home.write_settings("notify: {services: [{url: 'json://127.0.0.1:9/'}]}\n")
        message = digest.publish_if_due(app.store, Publisher(app), hour=hour, now=later, zone=UTC)
    assert message is not None
    assert short_time(later + LEFT_S, later, UTC) in message.body


def _report(job: Job) -> Event:
    data = {"iteration": job.iteration, "losses": [1.0], "it_s": 2.0}
    return Event(seq=9, time=1.0, awake=1.0, attempt=1, kind=Kind.PROGRESS, data=data)


def test_deadline_watch_waits_for_reports(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    running = home.running("night", seen=HALF_DONE, lq={"deadline": "2020-01-01 07:30"})
    reported: list[float | None] = []
    monkeypatch.setattr(deadlines, "_report", lambda *_, due, expected: reported.append(expected))
    with App(HomeFolder(home.path)) as app:
        context = WorkerContext(app=app, owner=WORKER, read=lambda _: Reading(), zone=UTC)
        spec = spec_of(home, running)
        watch = deadlines.DeadlineForecast(context, running, spec, constraints_of(spec.model_dump(mode="json")))
        watch.take([_report(running)] * (FEWEST_REPORTS - 1))
        assert reported == []
        watch.take([_report(running)])
    assert len(reported) == 1


def test_jobs_start_behind_the_running_one(home: Home) -> None:
    running = home.running("night", seen=HALF_DONE)
    first, second = home.queued("first"), home.queued("second", lq={"priority": 0})
    learn(home, first)
    now = time.time()
    forecast = queue_forecast.forecast(home.store, now=now, slots=1)
    assert forecast.times[running.id].end == pytest.approx(now + LEFT_S)
    assert forecast.time_left[running.id].source is Source.MEASURED
    assert forecast.times[first.id].start == pytest.approx(now + LEFT_S)
    # the running job has the same settings, and its speed is the newest; it has not shown how long a start takes
    job_s = 1000 / 2 + START_S + 6 * 0.5
    assert forecast.time_left[first.id].expected_s == pytest.approx(job_s)
    assert forecast.times[second.id].start == pytest.approx(now + LEFT_S + job_s)
    starts = {job["id"]: job["starts_at"] for job in InProcess(home.path).json("status")["jobs"]}
    assert starts[running.id] is None
    assert starts[second.id] == pytest.approx(now + LEFT_S + job_s, abs=60.0)
    assert "~" in InProcess(home.path)("status").out


def test_plan_and_status_forecasts_agree(home: Home) -> None:
    home.running("night", seen=HALF_DONE)
    first, second = home.queued("first", batch_size=2), home.queued("second", batch_size=2)
    learn(home, first)
    lq = InProcess(home.path)
    planned = {job["id"]: job for job in lq.json("plan")["jobs"]}
    listed = {job["id"]: job for job in lq.json("status")["jobs"]}
    for job in (first, second):
        assert listed[job.id]["starts_at"] == pytest.approx(planned[job.id]["start"], abs=20.0)
        assert listed[job.id]["ends_at"] == pytest.approx(planned[job.id]["end"], abs=20.0)


def test_loading_attempt_uses_earlier_runs(home: Home) -> None:
    """An attempt that has not reported yet has its start before it."""
    running = home.running("night")
    learn(home, running)
    left = queue_forecast.forecast(home.store, now=1000.0, slots=1).time_left[running.id]
    assert left.source is Source.SAME_SETTINGS
    assert left.expected_s == pytest.approx(JOB_S)


def test_unknown_duration_hides_later_starts(home: Home) -> None:
    known, unknown, behind = home.queued("known"), home.queued("unknown", batch_size=7), home.queued("behind")
    learn(home, known)
    times = queue_forecast.forecast(home.store, now=1000.0, slots=1).times
    assert times[known.id].start == 1000.0
    assert times[unknown.id].start == pytest.approx(1000.0 + JOB_S)
    assert times[behind.id].start is None
    two_slots = queue_forecast.forecast(home.store, now=1000.0, slots=2).times
    assert two_slots[behind.id].start == pytest.approx(1000.0 + JOB_S)


@pytest.mark.parametrize("running", [False, True])
def test_spec_of_another_version_is_unknown(home: Home, running: bool) -> None:
    job = home.running("night", seen=HALF_DONE) if running else home.queued()
    with sqlite3.connect(home.path / "lq.db") as db:
        db.execute("UPDATE jobs SET spec_json = '{\"lq\": {}}'")
    forecast = queue_forecast.forecast(home.store, now=1000.0, slots=1)
    assert forecast.time_left == {}
    assert forecast.times[job.id].end is None


def test_lost_deadline_is_reported_once(home: Home) -> None:
    """The real `lq plan` makes the plan."""
    first = home.queued("first", iters=1_000_000)
    home.queued("second", lq={"deadline": "2031-01-01 07:30"})
    third = home.queued("third", lq={"deadline": "2020-01-01 07:30"})
    learn(home, first)
    with App(HomeFolder(home.path)) as app:
        context = WorkerContext(app=app, owner=WORKER, read=lambda _: Reading(), zone=UTC)
        for _ in range(2):
            deadlines.DeadlineWatch(context).check()
    reported = [
        (one.job_id, one.code) for job in home.store.queue.waiting() for one in home.store.incidents.of(job.job.id)
    ]
    assert reported == [(third.id, "deadline")], "the second job has years"
