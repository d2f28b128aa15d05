"""Which causes are told, and that a message is stored together with its cause or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.model.job import Incident, Job, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.notify.job_notifications import JobNotifications
from tests.unit.orchestrator.cli_homes import Home, Seen

EVERYTHING = (
    "notify: {services: [{url: 'json://127.0.0.1:9/', on: [submitted, started]}, {url: 'json://127.0.0.1:9/'}]}"
)
QUIET = "notify: {services: [{url: 'json://127.0.0.1:9/'}]}"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    made.write_settings(EVERYTHING)
    yield made
    made.store.close()


def notifications(app: App, job: Job, **notify: object) -> JobNotifications:
    return JobNotifications(app, job, JobSpec(lq={"notify": notify}))


def events(new: object) -> list[str]:
    assert isinstance(new, list)
    return [message.event for message in new]


def test_a_submit_is_told_only_where_it_is_asked_for(home: Home, app: App) -> None:
    job = home.queued()
    assert events(notifications(app, job).submitted()) == ["submitted"]
    home.write_settings(QUIET)
    assert events(notifications(app, job).submitted()) == []
    assert events(notifications(app, job, on=["submitted"]).submitted()) == ["submitted"]


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (Status.SUCCEEDED, Reason.COMPLETED, ["finished"]),
        (Status.FAILED, Reason.CRASH_LOOP, ["failed"]),
        (Status.HELD, Reason.HOST_REBOOTED, ["needs_you"]),
        (Status.WAITING, Reason.DISK_FULL, ["needs_you"]),
        (Status.WAITING, Reason.KILLED, []),
        (Status.PAUSED, Reason.STOPPED_BY_USER, []),
        (Status.CANCELLED, Reason.STOPPED_BY_USER, []),
    ],
)
def test_what_a_decision_tells(home: Home, app: App, status: Status, reason: Reason, told: list[str]) -> None:
    job = home.running(seen=Seen(iteration=10, train_loss=1.0, val_loss=1.0, it_s=1.0))
    attempt = home.store.attempts.of(job.id)[-1]
    decision = Decision(status=status, reason=reason, detail="why")
    assert events(list(notifications(app, job).of_decision(decision, attempt))) == told
    assert events(list(notifications(app, job, on=[]).of_decision(decision, attempt))) == []


def test_a_guarded_loss_is_stored_with_its_incident(home: Home, app: App) -> None:
    job = home.running()
    incident = Incident(job_id=job.id, attempt=1, time=5.0, code="spike", text="went back", evidence={})
    home.store.incidents.add(incident, notifications(app, job).guarded(incident))
    (message,) = home.store.outbox.messages(job.id)
    assert (message.event, message.body.splitlines()[0], message.created_at) == ("spike_handled", "went back", 5.0)


def test_a_deadline_that_will_be_missed_is_told(home: Home, app: App) -> None:
    job = home.running()
    assert events(notifications(app, job).late(deadline=1000.0, expected=5000.0)) == ["deadline"]


def test_a_queue_that_is_paused_already_is_not_told_again(home: Home, app: App) -> None:
    job = home.running()
    for moment in (1.0, 2.0):
        told = notifications(app, job).queue_paused("two jobs died", moment)
        assert home.store.queue.pause("two jobs died", moment, told) == (moment == 1.0)
    assert [message.event for message in home.store.outbox.messages()] == ["needs_you"]


def test_while_settings_cannot_be_read_messages_are_kept_for_when_they_can(
    home: Home, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    job = home.queued()
    home.write_settings("notify: [")
    assert events(notifications(app, job).submitted()) == ["submitted"]
    assert "nobody can be notified before settings.yaml is mended" in caplog.text


def test_a_submit_and_its_message_are_there_together_or_not_at_all(home: Home) -> None:
    def announce(job: Job) -> list[NewMessage]:
        message = NewMessage(job_id=job.id, event="submitted", key=f"{job.id}", title=job.job_dir, body="b")
        return [message] if job.name == "good" else [message, 1 // 0]  # type: ignore[list-item]

    def submit(name: str) -> Job:
        return home.store.jobs.submit(
            name=name,
            priority=0,
            iters=1,
            spec_json="{}",
            prepare=lambda _: Path("/x"),
            now=time.time(),
            announce=announce,
        )

    with pytest.raises(ZeroDivisionError):
        submit("bad")
    assert home.store.jobs.overview() == []
    assert home.store.outbox.messages() == []
    job = submit("good")
    assert [message.title for message in home.store.outbox.messages(job.id)] == ["/x"]


def test_a_worker_that_died_before_it_could_tell_is_made_good_by_its_successor(home: Home, app: App) -> None:
    """The successor calls `trains` for what it adopts; whoever told already changes nothing by it."""
    job = home.running(seen=Seen(iteration=10, train_loss=1.0, val_loss=1.0, it_s=1.0))
    for _ in range(2):
        notifications(app, job).trains(1)
    assert [message.key for message in home.store.outbox.messages()] == [f"job-{job.id}-started"]
