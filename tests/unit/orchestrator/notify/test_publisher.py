"""Which events become messages, and that a message is stored together with its cause."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.model.job import Incident, Job, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.notify.publisher import JobNotifications, Publisher, publish_ended_groups
from tests.unit.orchestrator.cli_homes import Home, Seen

EVERYTHING = (
    "notify: {services: [{url: 'json://127.0.0.1:9/', on: [submitted, started]}, {url: 'json://127.0.0.1:9/'}]}\n"
)
PHONE = "notify: {services: [{url: 'json://127.0.0.1:9/', name: phone}]}\nautostart: false\n"
SEEN = Seen(iteration=1000, train_loss=1.0, val_loss=1.5, it_s=2.0)


@pytest.fixture(autouse=True)
def services(home: Home) -> None:
    home.write_settings(EVERYTHING)


def notifications(app: App, job: Job, **notify: object) -> JobNotifications:
    return JobNotifications(app, job, JobSpec(lq={"notify": notify}))


def events(messages: Sequence[NewMessage]) -> list[str]:
    return [message.event for message in messages]


def stored(home: Home) -> list[str]:
    return [message.title for message in home.store.outbox.messages()]


def test_submitted_needs_a_listener(home: Home, app: App) -> None:
    job = home.queued()
    assert events(notifications(app, job).submitted()) == ["submitted"]
    home.write_settings(PHONE)
    assert events(notifications(app, job).submitted()) == []
    assert events(notifications(app, job, on=["submitted"]).submitted()) == ["submitted"]


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
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
def test_decision_selects_event(home: Home, app: App, status: Status, reason: Reason, expected: list[str]) -> None:
    job = home.running(seen=SEEN)
    attempt = home.store.attempts.of(job.id)[-1]
    decision = Decision(status=status, reason=reason, detail="why")
    assert events(notifications(app, job).decided(decision, attempt)) == expected
    assert events(notifications(app, job, on=[]).decided(decision, attempt)) == []


@pytest.mark.parametrize(
    ("status", "each", "expected"),
    [
        (Status.SUCCEEDED, False, []),
        (Status.FAILED, False, ["failed"]),
        (Status.HELD, False, ["needs_you"]),
        (Status.SUCCEEDED, True, ["finished"]),
    ],
)
def test_group_job_finishes_silently(home: Home, app: App, status: Status, each: bool, expected: list[str]) -> None:
    job = home.running(seen=SEEN, group="night")
    attempt = home.store.attempts.of(job.id)[-1]
    decision = Decision(status=status, reason=Reason.COMPLETED, detail="why")
    assert events(notifications(app, job, each=each).decided(decision, attempt)) == expected


def test_spike_message_stored_with_incident(home: Home, app: App) -> None:
    job = home.running()
    incident = Incident(job_id=job.id, attempt=1, time=5.0, code="spike", text="rolled back", evidence={})
    home.store.incidents.add(incident, notifications(app, job).spike_handled(incident))
    (message,) = home.store.outbox.messages(job.id)
    assert (message.event, message.created_at) == ("spike_handled", 5.0)


def test_missed_deadline_published_once(home: Home, app: App) -> None:
    job = home.running()
    for expected in (5000.0, 6000.0):
        notifications(app, job).publish_late(deadline=1000.0, expected=expected, now=500.0)
    assert [message.event for message in home.store.outbox.messages()] == ["deadline"]


def test_queue_pause_reported_once(home: Home, app: App) -> None:
    job = home.running()
    for moment in (1.0, 2.0):
        messages = notifications(app, job).queue_paused("two jobs crashed", moment)
        assert home.store.queue.pause("two jobs crashed", moment, messages) == (moment == 1.0)
    assert [message.event for message in home.store.outbox.messages()] == ["needs_you"]


def test_invalid_settings_keep_messages(home: Home, app: App, caplog: pytest.LogCaptureFixture) -> None:
    job = home.queued()
    home.write_settings("notify: [")
    for _ in range(2):
        assert events(notifications(app, job).submitted()) == ["submitted"]
    assert len(caplog.records) == 1, "the error is logged once"
    assert "settings.yaml" in caplog.text


def test_empty_message_is_not_published(home: Home, app: App) -> None:
    assert Publisher(app).publish("digest", lambda: None, now=1.0) is None
    assert stored(home) == []


def test_submit_and_message_are_atomic(home: Home) -> None:
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
    assert stored(home) == []
    submit("good")
    assert stored(home) == ["/x"]


def test_started_published_once(home: Home, app: App) -> None:
    """A worker that adopts an attempt calls `publish_training` again."""
    job = home.running(seen=SEEN)
    for _ in range(2):
        notifications(app, job).publish_training(1, now=time.time())
    assert [message.key for message in home.store.outbox.messages()] == [f"job-{job.id}-started"]


@pytest.fixture
def group(home: Home) -> Home:
    """Create a group with one succeeded, one failed and one queued job."""
    home.write_settings(PHONE)
    home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=SEEN, group="night")
    home.ended(Status.FAILED, Reason.DIVERGED, seen=SEEN, group="night")
    home.queued(group="night")
    return home


def test_group_published_after_last_job(group: Home, app: App) -> None:
    publish_ended_groups(app, time.time())
    assert stored(group) == []
    group.store.jobs.cancel(3, time.time())
    publish_ended_groups(app, time.time())
    publish_ended_groups(app, time.time())
    (message,) = group.store.outbox.messages()
    assert (message.event, message.job_id) == ("finished", None)
    assert "1 succeeded, 1 failed, 1 cancelled" in message.body
    assert message.attachment == f"{group.path}/compare/night.png"


def test_continued_group_published_again(group: Home, app: App) -> None:
    group.store.jobs.cancel(3, time.time() - 10)
    publish_ended_groups(app, time.time())
    group.store.jobs.retry(3, time.time())
    publish_ended_groups(app, time.time())
    assert len(stored(group)) == 1
    group.store.jobs.cancel(3, time.time())
    publish_ended_groups(app, time.time())
    assert len(stored(group)) == 2


def test_group_needs_recent_end_and_listener(group: Home, app: App) -> None:
    group.store.jobs.cancel(3, time.time())
    publish_ended_groups(app, time.time() + 2 * 86400)
    group.write_settings("autostart: false\n")
    publish_ended_groups(app, time.time())
    group.write_settings(PHONE)
    with group.store.database.writing() as db:
        db.exec_driver_sql("UPDATE jobs SET status = 'cancelled'")
    publish_ended_groups(app, time.time())
    assert stored(group) == [], "a group of cancelled jobs only is not published"


def test_message_links_to_the_web_page(home: Home, app: App) -> None:
    job = home.queued()
    (plain,) = notifications(app, job).submitted()
    home.write_settings(f"{EVERYTHING}web: {{url: 'https://lab.example.org/'}}\n")
    (linked,) = notifications(app, job).submitted()
    assert linked.body == f"{plain.body}\nhttps://lab.example.org/jobs/{job.id}"
    paused = notifications(app, job).queue_paused("because", 1.0)
    assert all(message.body.endswith(f"/jobs/{job.id}") for message in paused)
