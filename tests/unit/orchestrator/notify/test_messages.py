"""What messages say: as short as a phone needs it, and nothing that was not measured."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from jobs.model.job import Attempt, Incident, Job, Message, Validation
from jobs.model.outcomes import Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.notify import messages
from orchestrator.notify.messages import Facts
from orchestrator.report.stored_verdict import verdict_in, word_for

BERLIN = ZoneInfo("Europe/Berlin")
SPEC = JobSpec(lq={"notify": {"tags": ["phone"]}})


def job(**changes: object) -> Job:
    """A job that has trained for a while."""
    made = Job(
        id=3,
        name="qwen",
        status=Status.RUNNING,
        reason=None,
        detail=None,
        priority=0,
        iters=15_000,
        job_dir="/home/me/lq/jobs/3-qwen",
        submitted_at=0.0,
        started_at=0.0,
        ended_at=None,
        not_before=None,
        stop_request=None,
        owner=None,
        iteration=3_400,
        train_loss=1.5,
        val_loss=2.1,
        it_s=0.8,
        attempts=2,
        child=None,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def attempt(number: int, outcome: Outcome) -> Attempt:
    """An attempt of an hour."""
    return Attempt(
        id=number,
        job_id=3,
        number=number,
        child=None,
        started_at=0.0,
        ended_at=3600.0,
        first_iteration=0 if number == 1 else 1_700,
        last_iteration=1_712,
        resumed_from=None,
        quality="fresh" if number == 1 else "exact",
        exit_code=None,
        signal=9,
        outcome=outcome.value,
        reason="killed",
        detail="ended by SIGKILL, sent by something other than lq",
        phase="train",
        stage=0,
        stderr_tail=None,
        settled=True,
    )


def measured(iteration: int, loss: float) -> Validation:
    """A validation."""
    return Validation(
        attempt=1,
        kind="validation",
        iteration=iteration,
        time=0.0,
        loss=loss,
        standard_error=None,
        examples=8,
        seconds=1.0,
        row_losses=None,
    )


def facts(**changes: object) -> Facts:
    """What is known of the job."""
    made = Facts(
        job=job(),
        attempts=[attempt(1, Outcome.CRASHED), attempt(2, Outcome.DONE)],
        points=[],
        validations=[measured(0, 6.0), measured(3_000, 2.0), measured(3_400, 2.125)],
        tests=[],
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def message(number: int, at: str, body: str) -> Message:
    """A row of the outbox."""
    return Message(
        id=number,
        job_id=3,
        event="recovered",
        key=str(number),
        title="lq: qwen (job 3) recovered",
        body=body,
        attachment=None,
        tags=None,
        created_at=datetime.fromisoformat(at).replace(tzinfo=BERLIN).timestamp(),
        next_try_at=None,
        settled=None,
        services=(),
    )


def test_a_finished_job_says_its_verdict_first_then_its_numbers_then_where_the_report_is() -> None:
    done = Decision(status=Status.SUCCEEDED, reason=Reason.COMPLETED, detail="trained to its last iteration")
    told = messages.decided(facts(verdict="WASTED"), "finished", done, SPEC, 2)
    assert told.title == "lq: qwen (job 3) finished"
    assert told.body.splitlines() == [
        "verdict: WASTED",
        "3,400 of 15,000 iterations in 2 h",
        "validation loss 6.000 -> 2.125, best 2.000 at iteration 3000",
        "2 attempts, 1 died; resumes: exact",
        "report: /home/me/lq/jobs/3-qwen/report/report.md",
    ]
    assert (told.key, told.tags) == ("job-3-finished-2", ("phone",))
    assert told.attachment == "/home/me/lq/jobs/3-qwen/report/loss_curve.png"


@pytest.mark.parametrize(
    ("event", "reason", "answer", "last"),
    [
        ("failed", Reason.CRASH_LOOP, "", "report: /home/me/lq/jobs/3-qwen/report/report.md"),
        ("needs_you", Reason.HOST_REBOOTED, "held", "held; next: lq show 3, then lq resume 3"),
        (
            "needs_you",
            Reason.DISK_FULL,
            "waits until there is space for three checkpoints",
            "next: make room on the disk; lq looks every minute, and the job goes on by itself",
        ),
    ],
)
def test_bad_news_begins_with_why_and_says_what_to_do(event: str, reason: Reason, answer: str, last: str) -> None:
    decision = Decision(status=Status.FAILED, reason=reason, detail="this is why", answer=answer)
    lines = messages.decided(facts(), event, decision, SPEC, 2).body.splitlines()
    assert lines[0] == f"why: {reason}: this is why"
    assert lines[-1] == last
    assert ("next: lq show 3, then lq retry 3" in lines) == (event == "failed")


def test_a_handled_spike_is_told_in_the_words_of_its_incident() -> None:
    text, action = "loss 9.1 at iteration 1,240, median 1.2", "went back to iteration 1,000, learning rate x 0.5"
    incident = Incident(job_id=3, attempt=2, time=100.5, code="spike", text=text, evidence={"action": action})
    told = messages.guarded(job(), incident, SPEC)
    assert (told.event, told.title) == ("spike_handled", "lq: qwen (job 3) spike handled")
    assert told.body.splitlines() == [f"{text}; {action}", "it trains on; see: lq show 3"]
    assert told.key != messages.guarded(job(), dataclasses.replace(incident, time=900.0), SPEC).key


def test_a_deadline_that_will_be_missed_is_told_once_with_both_hours() -> None:
    deadline = datetime(2026, 5, 5, 7, 30, tzinfo=BERLIN).timestamp()
    told = messages.late(job(), SPEC, deadline=deadline, expected=deadline + 6_000, zone=BERLIN)
    assert told.title == "lq: qwen (job 3) will miss its deadline"
    assert told.body.splitlines() == [
        "wanted by 07:30; at its speed done at 09:10, 1 h 40 min late",
        "3,400 of 15,000 iterations, 0.8 it/s",
        "next: lq show 3",
    ]
    again = messages.late(job(), SPEC, deadline=deadline, expected=deadline + 9_000, zone=BERLIN)
    assert again.key == told.key
    other_day = messages.late(job(), SPEC, deadline=deadline, expected=deadline + 86_400, zone=BERLIN)
    assert "done at Wed 07:30, 1 d late" in other_day.body


def test_one_that_stands_for_several_says_how_many_and_since_when() -> None:
    rows = [message(1, "2026-05-05 02:10", "first\nmore"), message(2, "2026-05-05 02:14", "second")]
    last = message(3, "2026-05-05 02:25", "third\nresumed")
    told = messages.counted([*rows, last], BERLIN)
    assert told.title == "lq: qwen (job 3) recovered (3 times since 02:10)"
    assert told.body.splitlines() == ["third", "resumed", "before that:", "02:14 second", "02:10 first"]
    assert messages.counted([last], BERLIN) == last
    other = dataclasses.replace(last, title="lq: the queue is paused and needs you")
    told = messages.counted([rows[0], other], BERLIN)
    assert told.title == "lq: the queue is paused and needs you (and 1 more since 02:10)", "not the same twice"


def test_of_many_only_the_latest_are_told_one_by_one() -> None:
    rows = [message(number, f"2026-05-04 {number}:00", f"n{number}") for number in range(10, 20)]
    told = messages.counted([*rows, message(99, "2026-05-05 02:25", "last")], BERLIN)
    assert told.title.endswith("(11 times since Mon 10:00)")
    assert told.body.splitlines() == [
        "last",
        "before that:",
        "Mon 19:00 n19",
        "Mon 18:00 n18",
        "Mon 17:00 n17",
        "and 7 before",
    ]


def test_what_the_loss_guard_stopped_did_not_die() -> None:
    """It is told as a rollback; to count it as a restart too would tell it twice."""
    stopped = dataclasses.replace(attempt(1, Outcome.CRASHED), reason="spike")
    lives = [stopped, attempt(2, Outcome.CRASHED), attempt(3, Outcome.DONE)]
    assert messages.crashes(lives) == 1
    told = messages.decided(
        facts(attempts=lives), "finished", Decision(status=Status.SUCCEEDED, reason=None, detail=""), SPEC, 3
    )
    assert "3 attempts, 1 died, 1 stopped by the loss guard; resumes: exact" in told.body


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        ({"findings": {"ruling": {"verdict": {"code": "WASTED", "because": "x"}}}}, "WASTED"),
        ({"findings": {"ruling": {"verdict": {"code": "OVERFIT"}, "advice": None}}}, "OVERFIT"),
        ({"findings": {"ruling": {"verdict": {"numbers": [1]}}}}, None),
        ({"findings": {"ruling": {"verdict": None}}}, None),
        ({"findings": {"ruling": {"verdict": {"code": ""}}}}, None),
        ({"findings": {"ruling": None}}, None),
        ({"findings": []}, None),
        ({}, None),
    ],
)
def test_a_verdict_is_what_the_report_says_or_nothing(content: dict[str, object], verdict: str | None) -> None:
    assert verdict_in(content) == verdict


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"schema": 1}', "\ud800"])
def test_without_a_verdict_in_the_report_the_status_is_the_word(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "report").mkdir()
    if text is not None:
        (tmp_path / "report" / "report.json").write_bytes(text.encode(errors="surrogatepass"))
    assert word_for(job(job_dir=str(tmp_path), status=Status.FAILED)) == "failed"
    ruled = {"findings": {"ruling": {"verdict": {"code": "OK"}}}}
    (tmp_path / "report" / "report.json").write_text(json.dumps(ruled))
    assert word_for(job(job_dir=str(tmp_path), status=Status.FAILED)) == "OK"
