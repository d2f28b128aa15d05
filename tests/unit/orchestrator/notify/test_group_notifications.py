"""A group is told once, when its last job has ended; failures as they happen."""

from __future__ import annotations

import time

import pytest

from jobs.model.outcomes import Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.notify.group_notifications import publish_ended
from orchestrator.notify.job_notifications import JobNotifications
from tests.unit.orchestrator.cli_homes import Home, Seen

PHONE = "notify: {services: [{url: 'json://127.0.0.1:9/', name: phone}]}\nautostart: false\n"
SEEN = Seen(iteration=1000, train_loss=1.0, val_loss=1.5, it_s=2.0)


@pytest.fixture
def group(home: Home) -> Home:
    """Give a group of which one job succeeded, one failed, one waits for its turn."""
    home.write_settings(PHONE)
    home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=SEEN, group="night")
    home.ended(Status.FAILED, Reason.DIVERGED, seen=SEEN, group="night")
    home.queued(group="night")
    return home


def told(home: Home) -> list[str]:
    return [message.title for message in home.store.outbox.messages()]


def test_a_group_is_told_when_its_last_job_is_no_longer_live(group: Home, app: App) -> None:
    publish_ended(app, time.time())
    assert told(group) == []
    group.store.jobs.cancel(3, time.time())
    publish_ended(app, time.time())
    publish_ended(app, time.time())
    (message,) = group.store.outbox.messages()
    assert (message.title, message.event, message.job_id) == ("lq: night (group of 3) finished", "finished", None)
    assert message.body.splitlines() == [
        "1 succeeded, 1 failed, 1 cancelled",
        "no job ended with a validation and an adapter",
        "next: lq compare --group night",
    ]
    assert message.attachment == f"{group.path}/compare/night.png"


def test_a_group_that_goes_on_is_told_again_when_it_ends_again(group: Home, app: App) -> None:
    group.store.jobs.cancel(3, time.time() - 10)
    publish_ended(app, time.time())
    group.store.jobs.retry(3, time.time())
    publish_ended(app, time.time())
    assert len(told(group)) == 1
    group.store.jobs.cancel(3, time.time())
    publish_ended(app, time.time())
    assert len(told(group)) == 2


def test_nobody_is_told_of_old_groups_of_cancelled_ones_or_without_a_service(group: Home, app: App) -> None:
    group.store.jobs.cancel(3, time.time())
    publish_ended(app, time.time() + 2 * 86400)
    home_without = "autostart: false\n"
    group.write_settings(home_without)
    publish_ended(app, time.time())
    group.write_settings(PHONE)
    with group.store.database.writing() as db:
        db.exec_driver_sql("UPDATE jobs SET status = 'cancelled'")
    publish_ended(app, time.time())
    assert told(group) == []


def test_a_job_of_a_group_is_silent_when_it_finishes_unless_asked(home: Home, app: App) -> None:
    home.write_settings(PHONE)
    job = home.running(seen=SEEN, group="night")
    attempt = home.store.attempts.of(job.id)[-1]

    def events(status: Status, **notify: bool) -> list[str]:
        notifications = JobNotifications(app, job, JobSpec(lq={"notify": notify}))
        decision = Decision(status=status, reason=Reason.COMPLETED, detail="why")
        return [message.event for message in notifications.of_decision(decision, attempt)]

    assert events(Status.SUCCEEDED) == []
    assert events(Status.FAILED) == ["failed"]
    assert events(Status.HELD) == ["needs_you"]
    assert events(Status.SUCCEEDED, each=True) == ["finished"]
