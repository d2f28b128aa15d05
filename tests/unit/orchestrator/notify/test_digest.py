"""The morning digest: what stands in it, and when there is none."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from jobs.model.job import Job, QueueState
from jobs.model.outcomes import Outcome, Reason
from jobs.model.states import Status
from orchestrator.notify import digest
from orchestrator.notify.digest import Told
from orchestrator.store.store import Store
from tests.unit.orchestrator.cli_homes import Home, Seen
from tests.unit.orchestrator.notify.test_messages import attempt, facts, job, measured

BERLIN = ZoneInfo("Europe/Berlin")
RUNS = QueueState(paused_at=None, because=None)
DAY = date(2026, 5, 5)
SEVEN = datetime(2026, 5, 5, 7, 0, tzinfo=BERLIN).timestamp()


def told(number: int, status: Status, *, word: str | None = None, rollbacks: int = 0, **changes: object) -> Told:
    """A job of the night."""
    one = job(id=number, name=f"j{number}", status=status, job_dir=f"/jobs/{number}", **changes)
    known = dataclasses.replace(facts(), job=one)
    if status is not Status.SUCCEEDED:
        known = dataclasses.replace(known, attempts=[], validations=[])
    ends_at = SEVEN + 14_500.0 if status is Status.RUNNING else None
    return Told(facts=known, word=word or status.value, rollbacks=rollbacks, ends_at=ends_at)


def composed(*rows: Told, queue: QueueState = RUNS) -> tuple[str, list[str], str | None] | None:
    """Return title, lines and attachment."""
    new = digest.compose(DAY, rows, queue, since=SEVEN - 86_400, now=SEVEN, zone=BERLIN)
    return None if new is None else (new.title, new.body.splitlines(), new.attachment)


def test_a_night_is_told_with_what_needs_a_person_first() -> None:
    found = composed(
        told(1, Status.SUCCEEDED, word="WASTED", rollbacks=1),
        told(2, Status.FAILED, reason="crash_loop", detail="exit code 1"),
        told(4, Status.HELD, reason="host_rebooted", detail="the machine was restarted 2 times within a day"),
        told(5, Status.HELD, reason="stopped_by_user", detail="held by the user"),
        told(6, Status.WAITING, reason="disk_full", detail="no space"),
        told(7, Status.RUNNING),
        told(8, Status.QUEUED),
        told(9, Status.WAITING, reason="crashed", detail="exit code 1"),
        told(10, Status.CANCELLED, reason="stopped_by_user"),
    )
    assert found is not None
    title, lines, picture = found
    assert title == "lq: 2 need you, 1 finished, 1 failed, 1 running, 2 to come"
    assert lines == [
        "needs you",
        "- j4 (job 4) is held: the machine was restarted 2 times within a day; next: lq resume 4",
        "- j6 (job 6) waits for space on the disk: no space",
        "ended since Mon 07:00",
        "- j1 (job 1): WASTED; validation loss 6.000 -> 2.125, best 2.000 at iteration 3000; "
        "3,400 iterations in 2 h; restarted 1 time; rolled back 1 time",
        "- j2 (job 2): failed: crash_loop: exit code 1; next: lq show 2",
        "running",
        "- j7 (job 7): 3,400 of 15,000 iterations; validation loss 2.100; done in 4 h 1 min, at 11:01",
        "to come",
        "- j8 (job 8)",
        "- j9 (job 9)",
    ]
    assert picture is None, "of two that ended, neither"


def test_the_only_job_that_ended_sends_its_picture() -> None:
    found = composed(told(1, Status.SUCCEEDED))
    assert found is not None
    assert found[0] == "lq: 1 finished"
    assert found[1][1].startswith("- j1 (job 1): finished; validation loss")
    assert found[2] == "/jobs/1/report/loss_curve.png"


def test_a_paused_queue_stands_at_the_top() -> None:
    paused = QueueState(paused_at=1.0, because="jobs 3 and 4 both died of crashed")
    found = composed(told(8, Status.QUEUED), queue=paused)
    assert found is not None
    assert found[0] == "lq: 1 needs you, 1 to come"
    assert found[1][1] == "- the queue is paused (jobs 3 and 4 both died of crashed); next: lq resume --queue"


def test_many_that_wait_are_counted() -> None:
    found = composed(*(told(number, Status.QUEUED) for number in range(1, 20)))
    assert found is not None
    assert found[1][-2:] == ["- j8 (job 8)", "- and 11 more; see: lq status"]


def test_where_nothing_happened_there_is_no_message() -> None:
    assert composed() is None
    put_aside = told(1, Status.PAUSED, reason="stopped_by_user"), told(2, Status.HELD, reason="stopped_by_user")
    assert composed(*put_aside) is None
    assert composed(*put_aside, queue=QueueState(paused_at=1.0, because="paused by the user")) is None


def test_a_job_without_a_measurement_says_nothing_of_it() -> None:
    bare = Told(
        facts=facts(job=job(status=Status.SUCCEEDED), attempts=[attempt(1, Outcome.DONE)], validations=[]),
        word="succeeded",
        rollbacks=0,
    )
    found = composed(bare)
    assert found is not None
    assert found[1][1] == "- qwen (job 3): finished; 3,400 iterations in 1 h"
    assert measured(1, 2.0).loss == 2.0


# --- in a store ---


def write(store: Store, now: datetime, *, hour: str | None = "07:00", audience: tuple[str, ...] = ("phone",)) -> str:
    """Return the key of the digest that was written now, or nothing."""
    row = digest.write_if_due(store, hour=hour, audience=audience, now=now.timestamp(), zone=BERLIN)
    return "" if row is None else row.key


def morning(job: Job, hour: int, minute: int = 0, *, after: int = 0) -> datetime:
    """Return an hour of the first day whose seven o'clock comes after a job was submitted, or so many days later."""
    submitted = datetime.fromtimestamp(job.submitted_at, tz=BERLIN)
    day = submitted.date() + timedelta(days=after + (submitted.hour >= 7))
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=BERLIN)


def test_it_is_written_once_a_day_at_its_hour_and_holds_the_verdict(home: Home) -> None:
    seen = Seen(iteration=1000, train_loss=1.0, val_loss=1.5, it_s=2.0)
    done = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="night", seen=seen)
    report = Path(done.job_dir) / "report"
    report.mkdir()
    (report / "report.json").write_text(json.dumps({"findings": {"ruling": {"verdict": {"code": "OK"}}}}))
    assert write(home.store, morning(done, 6, 59)) == ""
    key = write(home.store, morning(done, 7))
    assert key == f"digest-{morning(done, 7).date()}"
    (row,) = home.store.outbox.messages()
    assert (row.event, row.job_id, row.title) == ("digest", None, "lq: 1 finished")
    assert "- night (job 1): OK; validation loss 1.500" in row.body
    assert write(home.store, morning(done, 7, 1)) == ""
    assert write(home.store, morning(done, 7, after=1)) == "", "that it ended was told yesterday"


def test_a_late_one_is_sent_for_some_hours_and_then_left_to_the_next_morning(home: Home) -> None:
    done = home.ended(Status.FAILED, Reason.CRASHED)
    assert write(home.store, morning(done, 11, 1)) == ""
    assert write(home.store, morning(done, 10, 59)) != ""


def test_what_ended_while_no_digest_could_be_written_is_told_by_the_next(home: Home) -> None:
    first = home.ended(Status.FAILED, Reason.CRASHED, name="first")
    assert write(home.store, morning(first, 7)) != ""
    second = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="second")
    with home.store.database.writing() as db:
        when = morning(first, 8).timestamp()
        db.exec_driver_sql("UPDATE jobs SET ended_at = ?, submitted_at = ? WHERE id = ?", (when, when, second.id))
    assert write(home.store, morning(first, 7, after=3)) != ""
    last = home.store.outbox.last_digest()
    assert last is not None
    assert "second" in last.body
    assert "first" not in last.body


def test_a_job_submitted_after_the_hour_is_no_news_of_the_night(home: Home) -> None:
    queued = home.queued()
    just_before = datetime.fromtimestamp(queued.submitted_at, tz=BERLIN) - timedelta(minutes=1)
    hour = f"{just_before:%H:%M}"
    now = datetime.fromtimestamp(queued.submitted_at, tz=BERLIN) + timedelta(minutes=1)
    assert write(home.store, now, hour=hour) == ""
    assert write(home.store, now + timedelta(days=1), hour=hour) != ""


def test_without_an_hour_or_a_listener_there_is_none(home: Home) -> None:
    done = home.ended(Status.FAILED, Reason.CRASHED)
    assert write(home.store, morning(done, 7), hour=None) == ""
    assert write(home.store, morning(done, 7), audience=()) == ""
    assert home.store.outbox.messages() == []
