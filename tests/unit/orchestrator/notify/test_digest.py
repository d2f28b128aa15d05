"""The daily digest: its text, and when it is published."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from jobs.model.job import Job, NewMessage, QueueState
from jobs.model.outcomes import Outcome, Reason
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.notify import digest
from orchestrator.notify.digest import DigestEntry
from orchestrator.notify.publisher import Publisher
from tests.unit.orchestrator.cli_homes import Home, Seen
from tests.unit.orchestrator.notify.test_messages import assert_message, attempt, facts, job

BERLIN = ZoneInfo("Europe/Berlin")
RUNS = QueueState(paused_at=None, because=None)
DAY = date(2026, 5, 5)
SEVEN = datetime(2026, 5, 5, 7, 0, tzinfo=BERLIN).timestamp()
PHONE = "notify: {services: [{url: 'json://127.0.0.1:9/', name: phone}]}\nautostart: false\n"


def entry(
    number: int, status: Status, *, word: str | None = None, rollbacks: int = 0, **changes: object
) -> DigestEntry:
    known = dataclasses.replace(
        facts(), job=job(id=number, name=f"j{number}", status=status, job_dir=f"/jobs/{number}", **changes)
    )
    if status is not Status.SUCCEEDED:
        known = dataclasses.replace(known, attempts=[], validations=[])
    ends_at = SEVEN + 14_500.0 if status is Status.RUNNING else None
    return DigestEntry(facts=known, word=word or status.value, rollbacks=rollbacks, ends_at=ends_at)


def composed(*entries: DigestEntry, queue: QueueState = RUNS) -> NewMessage | None:
    return digest.compose_digest(DAY, entries, queue, since=SEVEN - 86_400, now=SEVEN, zone=BERLIN)


DIGESTS = {
    "digest": composed(
        entry(1, Status.SUCCEEDED, word="WASTED", rollbacks=1),
        entry(2, Status.FAILED, reason="crash_loop", detail="exit code 1"),
        entry(4, Status.HELD, reason="host_rebooted", detail="the machine was restarted 2 times within a day"),
        entry(5, Status.HELD, reason="stopped_by_user", detail="held by the user"),
        entry(6, Status.WAITING, reason="disk_full", detail="no space"),
        entry(7, Status.RUNNING),
        entry(8, Status.QUEUED),
        entry(9, Status.WAITING, reason="crashed", detail="exit code 1"),
        entry(10, Status.CANCELLED, reason="stopped_by_user"),
    ),
    "digest_one_ended": composed(entry(1, Status.SUCCEEDED)),
    "digest_queue_paused": composed(
        entry(8, Status.QUEUED), queue=QueueState(paused_at=1.0, because="jobs 3 and 4 crashed for the same reason")
    ),
    "digest_many_queued": composed(*(entry(number, Status.QUEUED) for number in range(1, 20))),
    "digest_without_measurements": composed(
        DigestEntry(
            facts=facts(job=job(status=Status.SUCCEEDED), attempts=[attempt(1, Outcome.DONE)], validations=[]),
            word="succeeded",
            rollbacks=0,
        )
    ),
}


@pytest.mark.parametrize("name", DIGESTS)
def test_digest_text(name: str) -> None:
    message = DIGESTS[name]
    assert message is not None
    assert_message(message, name)


def test_no_digest_without_news() -> None:
    assert composed() is None
    stopped = entry(1, Status.PAUSED, reason="stopped_by_user"), entry(2, Status.HELD, reason="stopped_by_user")
    assert composed(*stopped) is None
    assert composed(*stopped, queue=QueueState(paused_at=1.0, because="paused by the user")) is None


# --- in a store ---


@pytest.fixture(autouse=True)
def phone(home: Home) -> None:
    home.write_settings(PHONE)


def publish(home: Home, app: App, now: datetime, *, hour: str = "07:00") -> str | None:
    """Return the key of the digest that is published now; None without one."""
    message = digest.publish_if_due(home.store, Publisher(app), hour=hour, now=now.timestamp(), zone=BERLIN)
    return None if message is None else message.key


def morning(job: Job, hour: int, minute: int = 0, *, after: int = 0) -> datetime:
    """Return a time on the first day whose 07:00 is after the job's submit, or some days later."""
    submitted = datetime.fromtimestamp(job.submitted_at, tz=BERLIN)
    day = submitted.date() + timedelta(days=after + (submitted.hour >= 7))
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=BERLIN)


def test_digest_once_a_day_with_verdict(home: Home, app: App) -> None:
    reached = Seen(iteration=1000, train_loss=1.0, val_loss=1.5, it_s=2.0)
    done = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="night", seen=reached)
    report = Path(done.job_dir) / "report"
    report.mkdir()
    (report / "report.json").write_text(json.dumps({"findings": {"ruling": {"verdict": {"code": "OK"}}}}))
    assert publish(home, app, morning(done, 6, 59)) is None
    assert publish(home, app, morning(done, 7)) == f"digest-{morning(done, 7).date()}"
    (row,) = home.store.outbox.messages()
    assert (row.event, row.job_id) == ("digest", None)
    assert "(job 1): the model learned; validation loss 1.500" in row.body
    assert publish(home, app, morning(done, 7, 1)) is None
    assert publish(home, app, morning(done, 7, after=1)) is None, "the job was in yesterday's digest"


def test_late_digest_limit(home: Home, app: App) -> None:
    done = home.ended(Status.FAILED, Reason.CRASHED)
    assert publish(home, app, morning(done, 11, 1)) is None
    assert publish(home, app, morning(done, 10, 59)) is not None


def test_next_digest_covers_missed_days(home: Home, app: App) -> None:
    first = home.ended(Status.FAILED, Reason.CRASHED, name="first")
    assert publish(home, app, morning(first, 7)) is not None
    second = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="second")
    with home.store.database.writing() as db:
        when = morning(first, 8).timestamp()
        db.exec_driver_sql("UPDATE jobs SET ended_at = ?, submitted_at = ? WHERE id = ?", (when, when, second.id))
    assert publish(home, app, morning(first, 7, after=3)) is not None
    last = home.store.outbox.last_digest()
    assert last is not None
    assert "second" in last.body
    assert "first" not in last.body


def test_digest_leaves_out_dismissed_jobs(home: Home, app: App) -> None:
    seen = home.ended(Status.FAILED, Reason.CRASHED, name="first")
    home.ended(Status.FAILED, Reason.CRASHED, name="second")
    home.store.jobs.dismiss(seen.id, 1.0)
    assert publish(home, app, morning(seen, 7)) is not None
    last = home.store.outbox.last_digest()
    assert last is not None
    assert "second" in last.body
    assert "first" not in last.body


def test_digest_excludes_later_submits(home: Home, app: App) -> None:
    queued = home.queued()
    submitted = datetime.fromtimestamp(queued.submitted_at, tz=BERLIN)
    hour = f"{submitted - timedelta(minutes=1):%H:%M}"
    now = submitted + timedelta(minutes=1)
    assert publish(home, app, now, hour=hour) is None
    assert publish(home, app, now + timedelta(days=1), hour=hour) is not None


def test_digest_needs_a_listener(home: Home, app: App) -> None:
    home.write_settings("autostart: false\n")
    done = home.ended(Status.FAILED, Reason.CRASHED)
    assert publish(home, app, morning(done, 7)) is None
