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
from jobs.model.run_plan import Course
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.after_attempt import Decision
from jobs.policies.attempt_health import Vitals
from orchestrator.core.app import App
from orchestrator.core.context import Night
from orchestrator.core.paths import Home as Place
from orchestrator.worker import decide
from orchestrator.worker.attempt import Story
from orchestrator.worker.loss_guard import LossGuard
from tests.unit.orchestrator.cli_homes import WORKER, Home
from workers.system.processes import identity


@pytest.fixture
def night(home: Home) -> Iterator[Night]:
    with App(Place(home.path)) as app:
        yield Night(app=app, owner=identity())


def died(home: Home, reason: Reason, detail: str = "why", **keys: Any) -> tuple[Job, Attempt, JobSpec]:
    """A job whose attempt just died."""
    job = home.running(**keys)
    attempt = home.store.attempts(job.id)[-1]
    ending = Ending(outcome=Outcome.DIED, reason=reason, detail=detail)
    home.store.end_attempt(attempt.id, ending=ending, exit_code=1, signal=None, now=time.time())
    spec = JobSpec.model_validate_json(home.store.spec_json(job.id))
    return home.store.job(job.id), home.store.attempts(job.id)[-1], spec


def settled(home: Home, night: Night, told: tuple[Job, Attempt, JobSpec], vitals: Vitals) -> None:
    job, attempt, spec = told
    losses = LossGuard(home.store, job, spec, home.store.course(job.id, spec), train_rows=None)
    decision = decide.decide(night, job, spec, attempt, vitals, losses)
    home.store.settle(job.id, decision, owner=WORKER, now=time.time())


def test_two_jobs_that_die_of_the_same_cause_before_they_train_are_the_machines_doing(home: Home, night: Night) -> None:
    first = died(home, Reason.CRASHED, "exit code 1: boom")
    vitals = Vitals(1, first[2])
    assert decide.same_cause(night, first[0], first[1], vitals) is None
    settled(home, night, first, vitals)
    home.store.hold(first[0].id, "out of the way", 1.0)
    second = died(home, Reason.CRASHED, "exit code 1: boom")
    assert decide.same_cause(night, second[0], second[1], vitals) == (
        "jobs 1 and 2 both died of crashed within ten minutes, before they trained: exit code 1: boom"
    )


@pytest.mark.parametrize("reason", [Reason.KILLED, Reason.LOST, Reason.HOST_REBOOTED])
def test_a_kill_says_nothing_about_the_next_job(home: Home, night: Night, reason: Reason) -> None:
    for _ in range(2):
        told = died(home, reason)
        assert decide.same_cause(night, told[0], told[1], Vitals(1, told[2])) is None
        settled(home, night, told, Vitals(1, told[2]))
        home.store.hold(told[0].id, "out of the way", 1.0)


def test_one_that_had_trained_does_not_stop_the_others(home: Home, night: Night) -> None:
    first = died(home, Reason.CRASHED)
    settled(home, night, first, Vitals(1, first[2]))
    home.store.hold(first[0].id, "out of the way", 1.0)
    second = died(home, Reason.CRASHED)
    trained = Vitals(1, second[2])
    data = {"iteration": 10, "losses": [1.0]}
    trained.take([Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=Kind.PROGRESS, data=data)])
    assert decide.same_cause(night, second[0], second[1], trained) is None


def test_a_rung_of_the_ladder_becomes_a_leg_of_the_course(home: Home, night: Night) -> None:
    told = died(home, Reason.OUT_OF_MEMORY, batch_size=4)
    settled(home, night, told, Vitals(1, told[2]))
    requested, smaller = home.store.course(told[0].id, told[2]).legs
    assert (requested.grad_checkpoint, smaller.grad_checkpoint, smaller.first_example) == (False, True, 0)
    assert home.store.job(told[0].id).status is Status.WAITING


def test_what_did_not_fit_is_remembered_and_what_trained_too(home: Home, night: Night) -> None:
    job, attempt, spec = died(home, Reason.OUT_OF_MEMORY, batch_size=4)
    decide.remember_fit(night, job, spec, attempt, Vitals(1, spec))
    [leg] = home.store.course(job.id, spec).legs
    assert home.store.fit(fit_key(spec, leg)) == Fit(fits=False, peak_bytes=None, job_id=job.id)
    trained = Vitals(1, spec)
    data = {"iteration": 10, "losses": [1.0], "memory": {"peak": 5}}
    trained.take([Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=Kind.PROGRESS, data=data)])
    settled(home, night, (job, attempt, spec), Vitals(1, spec))
    home.store.hold(job.id, "out of the way", 1.0)
    killed = died(home, Reason.KILLED, batch_size=4)
    decide.remember_fit(night, killed[0], spec, killed[1], trained)
    assert home.store.fit(fit_key(spec, leg)) == Fit(fits=True, peak_bytes=5, job_id=killed[0].id)


def test_an_attempt_teaches_its_speed_and_a_later_one_that_told_none_unlearns_nothing(home: Home, night: Night) -> None:
    job, attempt, spec = died(home, Reason.KILLED, batch_size=4)
    told: list[tuple[Kind, float, dict[str, Any]]] = [
        (Kind.STARTED, 10.0, {"iteration": 0, "leg": 0, "create_time": 8.0}),
        (Kind.PHASE, 20.0, {"phase": "train"}),
        (Kind.VALIDATION, 25.0, {"examples": 8, "seconds": 3.0}),
        (Kind.PROGRESS, 30.0, {"iteration": 10, "losses": [1.0], "it_s": 2.0, "memory": {"peak": 5}}),
    ]
    vitals = Vitals(1, spec)
    vitals.take(
        Event(seq=seq, time=at, awake=at, attempt=1, kind=kind, data=data)
        for seq, (kind, at, data) in enumerate(told, start=1)
    )
    decide.remember_fit(night, job, spec, attempt, vitals)
    [leg] = home.store.course(job.id, spec).legs
    key, known = fit_key(spec, leg), Fit(fits=True, peak_bytes=5, job_id=job.id)
    known = dataclasses.replace(known, it_s=2.0, start_s=12.0, validation_s=3.0)
    assert home.store.fits() == {key: known}
    home.store.remember_fit(key, Fit(fits=False, peak_bytes=None, job_id=job.id), 2.0)
    assert home.store.fit(key) == dataclasses.replace(known, fits=False, peak_bytes=None)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 2}, {"max_seq_length": 99}, {"grad_checkpoint": True}, {"model": "/models/other"}]
)
def test_another_configuration_is_known_by_itself(home: Home, night: Night, changes: dict[str, Any]) -> None:
    one = JobSpec(model="/m", data="/d", batch_size=4)
    other = one.model_copy(update=changes)
    keys = {fit_key(spec, Course.requested(spec).legs[0]) for spec in (one, other)}
    assert len(keys) == 2


def test_a_sleep_of_the_machine_is_told_as_such(home: Home, night: Night, tmp_path: Path) -> None:
    """The clocks are the test's: the machine slept while the trainer, a real one without a model, was starting."""
    spec = JobSpec(model=str(tmp_path / "no-model"), data=str(tmp_path), lq={"name": "asleep"})

    def prepare(job_id: int) -> Path:
        folder = home.jobs / f"{job_id}-asleep"
        folder.mkdir()
        (folder / "config.yaml").write_text(dump_job(spec))
        return folder

    text = spec.model_dump_json()
    home.store.submit(name="asleep", priority=0, iters=1, spec_json=text, prepare=prepare, now=time.time())
    readings = iter([100.0])
    night.slept = lambda: next(readings, 100.0 + 3 * 3600 + 12 * 60)
    job = home.store.claim(night.owner, time.time())
    assert job is not None
    Story(night, job).tell()
    [attempt] = home.store.attempts(job.id)
    assert (attempt.outcome, attempt.reason) == ("refused", "model_missing")
    assert attempt.reason != Reason.STALLED
    slept = [found for found in home.store.incidents(job.id) if found.code == "slept"]
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
