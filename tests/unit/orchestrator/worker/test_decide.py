"""From an ended attempt to what is done about it: what the rules are shown, what is told, what is remembered."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.load import dump_job
from jobs.model.configuration import fit_key
from jobs.model.events import Event, Kind
from jobs.model.job import Attempt, Fit, Job
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.attempt_health import AttemptHealth
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home as Place
from orchestrator.worker import decide
from orchestrator.worker.attempt import AttemptRunner
from orchestrator.worker.loss_guard import LossGuard
from tests.unit.orchestrator.cli_homes import WORKER, Home
from workers.system.processes import identity


@pytest.fixture
def context(home: Home) -> Iterator[WorkerContext]:
    with App(Place(home.path)) as app:
        yield WorkerContext(app=app, owner=identity())


def died(home: Home, reason: Reason, detail: str = "why", **keys: Any) -> tuple[Job, Attempt, JobSpec]:
    """A job whose attempt just died."""
    job = home.running(**keys)
    attempt = home.store.attempts.of(job.id)[-1]
    ending = Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)
    home.store.attempts.end(attempt.id, ending=ending, exit_code=1, signal=None, now=time.time())
    spec = home.store.spec(job.id)
    return home.store.jobs.get(job.id), home.store.attempts.of(job.id)[-1], spec


def settled(home: Home, context: WorkerContext, told: tuple[Job, Attempt, JobSpec], health: AttemptHealth) -> None:
    job, attempt, spec = told
    losses = LossGuard(home.store, job, spec, home.store.run_plans.get(job.id, spec), train_rows=None)
    decision = decide.decide(context, job, spec, attempt, health, losses)
    home.store.leases.settle(job.id, decision, owner=WORKER, now=time.time())


def test_two_jobs_that_die_of_the_same_cause_before_they_train_are_the_machines_doing(
    home: Home, context: WorkerContext
) -> None:
    first = died(home, Reason.CRASHED, "exit code 1: boom")
    health = AttemptHealth(1, first[2])
    assert decide.same_cause(context, first[0], first[1], health) is None
    settled(home, context, first, health)
    home.store.jobs.hold(first[0].id, "out of the way", 1.0)
    second = died(home, Reason.CRASHED, "exit code 1: boom")
    assert decide.same_cause(context, second[0], second[1], health) == (
        "jobs 1 and 2 both died of crashed within ten minutes, before they trained: exit code 1: boom"
    )


@pytest.mark.parametrize("reason", [Reason.KILLED, Reason.LOST, Reason.HOST_REBOOTED])
def test_a_kill_says_nothing_about_the_next_job(home: Home, context: WorkerContext, reason: Reason) -> None:
    for _ in range(2):
        told = died(home, reason)
        assert decide.same_cause(context, told[0], told[1], AttemptHealth(1, told[2])) is None
        settled(home, context, told, AttemptHealth(1, told[2]))
        home.store.jobs.hold(told[0].id, "out of the way", 1.0)


def test_one_that_had_trained_does_not_stop_the_others(home: Home, context: WorkerContext) -> None:
    first = died(home, Reason.CRASHED)
    settled(home, context, first, AttemptHealth(1, first[2]))
    home.store.jobs.hold(first[0].id, "out of the way", 1.0)
    second = died(home, Reason.CRASHED)
    trained = AttemptHealth(1, second[2])
    data = {"iteration": 10, "losses": [1.0]}
    trained.take([Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=Kind.PROGRESS, data=data)])
    assert decide.same_cause(context, second[0], second[1], trained) is None


def test_a_rung_of_the_ladder_becomes_a_stage_of_the_run_plan(home: Home, context: WorkerContext) -> None:
    told = died(home, Reason.OUT_OF_MEMORY, batch_size=4)
    settled(home, context, told, AttemptHealth(1, told[2]))
    requested, smaller = home.store.run_plans.get(told[0].id, told[2]).stages
    assert (requested.grad_checkpoint, smaller.grad_checkpoint, smaller.first_example) == (False, True, 0)
    assert home.store.jobs.get(told[0].id).status is Status.WAITING


def test_what_did_not_fit_is_remembered_and_what_trained_too(home: Home, context: WorkerContext) -> None:
    job, attempt, spec = died(home, Reason.OUT_OF_MEMORY, batch_size=4)
    decide.remember_fit(context, job, spec, attempt, AttemptHealth(1, spec))
    [stage] = home.store.run_plans.get(job.id, spec).stages
    assert home.store.fits.get(fit_key(spec, stage)) == Fit(fits=False, peak_bytes=None, job_id=job.id)
    trained = AttemptHealth(1, spec)
    data = {"iteration": 10, "losses": [1.0], "memory": {"peak": 5}}
    trained.take([Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=Kind.PROGRESS, data=data)])
    settled(home, context, (job, attempt, spec), AttemptHealth(1, spec))
    home.store.jobs.hold(job.id, "out of the way", 1.0)
    killed = died(home, Reason.KILLED, batch_size=4)
    decide.remember_fit(context, killed[0], spec, killed[1], trained)
    assert home.store.fits.get(fit_key(spec, stage)) == Fit(fits=True, peak_bytes=5, job_id=killed[0].id)


def test_an_attempt_teaches_its_speed_and_a_later_one_that_told_none_unlearns_nothing(
    home: Home, context: WorkerContext
) -> None:
    job, attempt, spec = died(home, Reason.KILLED, batch_size=4)
    told: list[tuple[Kind, float, dict[str, Any]]] = [
        (Kind.STARTED, 10.0, {"iteration": 0, "stage": 0, "create_time": 8.0}),
        (Kind.PHASE, 20.0, {"phase": "train"}),
        (Kind.VALIDATION, 25.0, {"examples": 8, "seconds": 3.0}),
        (Kind.PROGRESS, 30.0, {"iteration": 10, "losses": [1.0], "it_s": 2.0, "memory": {"peak": 5}}),
    ]
    health = AttemptHealth(1, spec)
    health.take(
        Event(seq=seq, time=at, awake=at, attempt=1, kind=kind, data=data)
        for seq, (kind, at, data) in enumerate(told, start=1)
    )
    decide.remember_fit(context, job, spec, attempt, health)
    [stage] = home.store.run_plans.get(job.id, spec).stages
    key, known = fit_key(spec, stage), Fit(fits=True, peak_bytes=5, job_id=job.id)
    known = dataclasses.replace(known, it_s=2.0, start_s=12.0, validation_s=3.0)
    assert home.store.fits.all() == {key: known}
    home.store.fits.record(key, Fit(fits=False, peak_bytes=None, job_id=job.id), 2.0)
    assert home.store.fits.get(key) == dataclasses.replace(known, fits=False, peak_bytes=None)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 2}, {"max_seq_length": 99}, {"grad_checkpoint": True}, {"model": "/models/other"}]
)
def test_another_configuration_is_known_by_itself(home: Home, context: WorkerContext, changes: dict[str, Any]) -> None:
    one = JobSpec(model="/m", data="/d", batch_size=4)
    other = one.model_copy(update=changes)
    keys = {fit_key(spec, RunPlan.requested(spec).stages[0]) for spec in (one, other)}
    assert len(keys) == 2


def test_a_sleep_of_the_machine_is_told_as_such(home: Home, context: WorkerContext, tmp_path: Path) -> None:
    """The clocks are the test's: the machine slept while the trainer, a real one without a model, was starting."""
    spec = JobSpec(model=str(tmp_path / "no-model"), data=str(tmp_path), lq={"name": "asleep"})

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
    AttemptRunner(context, job).tell()
    [attempt] = home.store.attempts.of(job.id)
    assert (attempt.outcome, attempt.reason) == ("refused", "model_missing")
    assert attempt.reason != Reason.STALLED
    slept = [found for found in home.store.incidents.of(job.id) if found.code == "slept"]
    assert [(found.text, found.evidence) for found in slept] == [
        ("the machine slept 3 h 12 min", {"slept_s": 11520.0})
    ], "once, not at every look"


def test_a_job_with_a_remedy_of_its_own_does_not_stop_the_others() -> None:
    for reason in (Reason.OUT_OF_MEMORY, Reason.DISK_FULL):
        assert decide.has_its_own_answer(Decision(status=Status.WAITING, reason=reason, detail=""))
        assert not decide.has_its_own_answer(Decision(status=Status.FAILED, reason=reason, detail=""))
    assert not decide.has_its_own_answer(Decision(status=Status.WAITING, reason=Reason.CRASHED, detail=""))


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
def test_a_message_of_the_loss_guard_tells_of_losses_that_went_wrong(
    reason: Reason, back_to: int | None, handled: bool
) -> None:
    """A run that ends early because nothing gets better has no spike that was handled."""
    decision = Decision(status=Status.WAITING, reason=reason, detail="", back_to=back_to)
    assert decide.is_handled(decision) is handled
