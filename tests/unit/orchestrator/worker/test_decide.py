"""From an ended attempt to a decision: what the policies receive, and what lq records."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from configs.load import dump_job
from jobs.model.configuration import fit_key
from jobs.model.events import EndedEvent, Event, Kind
from jobs.model.job import Fit
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.attempt_health import AttemptHealth
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.worker import decide
from orchestrator.worker.attempt import AttemptRunner
from orchestrator.worker.decide import AttemptResult, require_last_checkpoint
from orchestrator.worker.loss_guard import LossGuard
from tests.unit.orchestrator.cli_homes import WORKER, Home
from tests.unit.workers.tensor_files import holding, state_at
from workers.checkpoints import storage
from workers.checkpoints.state import CheckpointState
from workers.system.processes import identity

PROGRESS = {"iteration": 10, "losses": [1.0], "memory": {"peak": 5}}


@pytest.fixture
def context(app: App) -> WorkerContext:
    return WorkerContext(app=app, owner=identity())


def crashed(home: Home, reason: Reason, detail: str = "why", **keys: Any) -> AttemptResult:
    """Return the result of an attempt that crashed before it trained."""
    job = home.running(**keys)
    attempt = home.store.attempts.of(job.id)[-1]
    ending = Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)
    home.store.attempts.end(attempt.id, ending=ending, exit_code=1, signal=None, now=time.time())
    spec = home.store.spec(job.id)
    return AttemptResult(
        job=home.store.jobs.get(job.id),
        spec=spec,
        attempt=home.store.attempts.of(job.id)[-1],
        health=AttemptHealth(1, spec),
        losses=LossGuard(home.store, job, spec, home.store.run_plans.get(job.id, spec), train_rows=None),
    )


def trained(result: AttemptResult, *events: tuple[Kind, float, dict[str, Any]]) -> AttemptResult:
    """Return a result whose trainer wrote events."""
    health = AttemptHealth(1, result.spec)
    health.take(
        Event(seq=seq, time=at, awake=at, attempt=1, kind=kind, data=data)
        for seq, (kind, at, data) in enumerate(events or ((Kind.PROGRESS, 1.0, PROGRESS),), start=1)
    )
    return dataclasses.replace(result, health=health)


def settle(home: Home, context: WorkerContext, result: AttemptResult, *, hold: bool = False) -> None:
    decision = decide.decide(context, result)
    home.store.leases.settle(result.job.id, decision, owner=WORKER, now=time.time())
    if hold:
        home.store.jobs.hold(result.job.id, "only one job may run", 1.0)


def test_oom_rung_adds_run_plan_stage(home: Home, context: WorkerContext) -> None:
    result = crashed(home, Reason.OUT_OF_MEMORY, batch_size=4)
    settle(home, context, result)
    requested, smaller = home.store.run_plans.get(result.job.id, result.spec).stages
    assert (requested.grad_checkpoint, smaller.grad_checkpoint, smaller.first_example) == (False, True, 0)
    assert home.store.jobs.get(result.job.id).status is Status.WAITING


def test_memory_fit_is_remembered(home: Home, context: WorkerContext) -> None:
    result = crashed(home, Reason.OUT_OF_MEMORY, batch_size=4)
    decide.remember_fit(context, result)
    [stage] = home.store.run_plans.get(result.job.id, result.spec).stages
    key = fit_key(result.spec, stage)
    assert home.store.fits.get(key) == Fit(fits=False, peak_bytes=None, job_id=result.job.id)
    settle(home, context, result, hold=True)
    killed = trained(crashed(home, Reason.KILLED, batch_size=4))
    decide.remember_fit(context, dataclasses.replace(killed, spec=result.spec))
    assert home.store.fits.get(key) == Fit(fits=True, peak_bytes=5, job_id=killed.job.id)


def test_speed_is_remembered(home: Home, context: WorkerContext) -> None:
    result = trained(
        crashed(home, Reason.KILLED, batch_size=4),
        (Kind.STARTED, 10.0, {"iteration": 0, "stage": 0, "create_time": 8.0}),
        (Kind.PHASE, 20.0, {"phase": "train"}),
        (Kind.VALIDATION, 25.0, {"iteration": 0, "loss": 1.0, "examples": 8, "seconds": 3.0}),
        (Kind.PROGRESS, 30.0, PROGRESS | {"it_s": 2.0}),
    )
    decide.remember_fit(context, result)
    [stage] = home.store.run_plans.get(result.job.id, result.spec).stages
    key, job_id = fit_key(result.spec, stage), result.job.id
    known = Fit(fits=True, peak_bytes=5, job_id=job_id, it_s=2.0, start_s=12.0, validation_s=3.0)
    assert home.store.fits.all() == {key: known}
    home.store.fits.record(key, Fit(fits=False, peak_bytes=None, job_id=job_id), 2.0)
    assert home.store.fits.get(key) == dataclasses.replace(known, fits=False, peak_bytes=None)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 2}, {"max_seq_length": 99}, {"grad_checkpoint": True}, {"model": "/models/other"}]
)
def test_fit_key_depends_on_configuration(changes: dict[str, Any]) -> None:
    spec = JobSpec(model="/m", data="/d", batch_size=4)
    other = spec.model_copy(update=changes)
    assert fit_key(spec, RunPlan.requested(spec).stages[0]) != fit_key(other, RunPlan.requested(other).stages[0])


def test_sleep_is_recorded_and_no_stall(home: Home, context: WorkerContext, tmp_path: Path) -> None:
    """The test provides the clock: the machine sleeps while a real trainer without a model starts."""
    spec = JobSpec(model=str(tmp_path), data=str(tmp_path), lq={"name": "asleep"})

    def prepare(job_id: int) -> Path:
        folder = home.jobs / f"{job_id}-asleep"
        folder.mkdir()
        (folder / "config.yaml").write_text(dump_job(spec))
        return folder

    text = spec.model_dump_json()
    home.store.jobs.submit(name="asleep", priority=0, iters=1, spec_json=text, prepare=prepare, now=time.time())
    readings = iter([100.0])
    context.slept = lambda: next(readings, 100.0 + 3 * 3600 + 12 * 60)
    job = home.store.leases.claim(context.owner, time.time())
    assert job is not None
    AttemptRunner(context, job).run()
    [attempt] = home.store.attempts.of(job.id)
    assert (attempt.outcome, attempt.reason) == ("refused", "model_missing")
    slept = [incident for incident in home.store.incidents.of(job.id) if incident.code == "slept"]
    assert [incident.evidence for incident in slept] == [{"slept_s": 11520.0}]


@pytest.mark.parametrize(
    ("reason", "back_to", "handled"),
    [
        (Reason.SPIKE, 500, True),
        (Reason.NOT_FINITE, 0, True),
        (Reason.EARLY_STOPPED, 500, False),
        (Reason.KILLED, None, False),
        (Reason.DIVERGED, None, False),
    ],
)
def test_spike_message_for_rollbacks_only(reason: Reason, back_to: int | None, handled: bool) -> None:
    decision = Decision(status=Status.WAITING, reason=reason, detail="", back_to=back_to)
    assert decide.is_handled(decision) is handled


def test_crash_incident_has_all_facts(home: Home, context: WorkerContext) -> None:
    result = crashed(home, Reason.KILLED, "ended by SIGKILL")
    decision = decide.decide(context, result)
    incident = decide.note(result.attempt, decision)
    assert incident is not None
    assert (incident.code, incident.text) == ("killed", "ended by SIGKILL")
    assert incident.evidence["action"] == decision.answer
    assert incident.evidence["consecutive_crashes"] == 1


# --- the last checkpoint of a run that is done ---

RUN_PLAN = RunPlan.requested(JobSpec(batch_size=1))
DONE = Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="trained to its last iteration")
ENDED = EndedEvent(outcome=Outcome.DONE, reason=Reason.COMPLETED, iteration=20)


@pytest.fixture
def folder(tmp_path: Path) -> JobDir:
    """Create a run with checkpoints at iterations 10 and 20."""

    def fill(where: Path) -> CheckpointState:
        for name in (storage.ADAPTERS, storage.OPTIMIZER):
            (where / name).write_bytes(holding(b"numbers"))
        return state_at(10, examples=10)

    for iteration in (10, 20):
        storage.write(tmp_path / "checkpoints", iteration, fill)
    return JobDir(tmp_path)


def test_done_with_valid_last_checkpoint(folder: JobDir) -> None:
    assert require_last_checkpoint(DONE, ENDED, folder, RUN_PLAN) == DONE


def test_done_with_damaged_checkpoint(folder: JobDir) -> None:
    damaged = folder.checkpoints / "step-0000020" / storage.ADAPTERS
    damaged.write_bytes(damaged.read_bytes()[:-1])
    ending = require_last_checkpoint(DONE, ENDED, folder, RUN_PLAN)
    assert (ending.outcome, ending.reason) == (Outcome.CRASHED, Reason.CRASHED)
    assert str(damaged) in ending.detail


def test_other_endings_need_no_checkpoint(tmp_path: Path) -> None:
    killed = Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="ended by SIGKILL")
    assert require_last_checkpoint(killed, None, JobDir(tmp_path), RUN_PLAN) == killed


@pytest.mark.parametrize("blocked", ["run_plan.json", "train.log"])
def test_trainer_that_cannot_start_is_named(home: Home, context: WorkerContext, blocked: str, tmp_path: Path) -> None:
    """The attempt ends with the error of the system, and the job is restarted with backoff."""
    job = home.queued(model=str(tmp_path))
    job.dir.path.joinpath(blocked).mkdir()
    claimed = home.store.leases.claim(context.owner, time.time())
    assert claimed is not None
    AttemptRunner(context, claimed).run()
    [attempt] = home.store.attempts.of(job.id)
    assert (attempt.outcome, attempt.reason, attempt.settled) == ("crashed", "crashed", True)
    assert "Is a directory" in str(attempt.detail)
    assert blocked in str(attempt.detail)
    assert home.store.jobs.get(job.id).status is Status.WAITING


def test_deleted_model_folder_is_named(home: Home, context: WorkerContext) -> None:
    job = home.queued(model="/models/deleted")
    claimed = home.store.leases.claim(context.owner, time.time())
    assert claimed is not None
    AttemptRunner(context, claimed).run()
    after = home.store.jobs.get(job.id)
    assert (after.status, after.reason) == (Status.FAILED, Reason.MODEL_MISSING)
    assert "/models/deleted" in str(after.detail)
