"""The text of each kind of message; the expected texts are in golden/."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from jobs.model.job import Attempt, Incident, Job, Message, NewMessage, Validation
from jobs.model.outcomes import Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from jobs.policies.verdict import Code
from orchestrator.notify import messages
from orchestrator.notify.messages import MessageFacts
from orchestrator.report.stored_verdict import StoredVerdict, verdict_in, word_for
from tests.golden import assert_golden

BERLIN = ZoneInfo("Europe/Berlin")
SPEC = JobSpec(model="mlx-community/Qwen3-0.6B-4bit", lq={"notify": {"tags": ["phone"]}})
GOLDEN = Path(__file__).parent / "golden"
DEADLINE = datetime(2026, 5, 5, 7, 30, tzinfo=BERLIN).timestamp()


def assert_message(message: NewMessage | Message, name: str) -> None:
    """Compare a message with its golden file."""
    fields = [f"event: {message.event}", f"key: {message.key}", f"tags: {message.tags}"]
    text = "\n".join([*fields, f"attachment: {message.attachment}", "", message.title, "", message.body, ""])
    assert_golden(text, GOLDEN / f"{name}.txt")


def job(**changes: object) -> Job:
    """Return a job that has trained for a while."""
    running = Job(
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
    return dataclasses.replace(running, **changes)  # type: ignore[arg-type]


def attempt(number: int, outcome: Outcome, **changes: object) -> Attempt:
    """Return an attempt of one hour."""
    ended = Attempt(
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
    return dataclasses.replace(ended, **changes)  # type: ignore[arg-type]


def measured(iteration: int, loss: float) -> Validation:
    """Return a validation."""
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


def facts(**changes: object) -> MessageFacts:
    """Return the facts of the job, with two attempts and three validations."""
    known = MessageFacts(
        job=job(),
        attempts=[attempt(1, Outcome.CRASHED), attempt(2, Outcome.DONE)],
        validations=[measured(0, 6.0), measured(3_000, 2.0), measured(3_400, 2.125)],
    )
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def row(number: int, at: str, body: str) -> Message:
    """Return a row of the outbox."""
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


SPIKE = Incident(
    job_id=3,
    attempt=2,
    time=100.5,
    code="spike",
    text="loss 7.634 at iteration 1,030: 62.0 standard deviations above the median 0.812",
    evidence={"iteration": 1_030, "back_to": 600},
)
ADVICE = "Train fewer iterations: `LQ_HOME='/a b' lq retry 3 --set iters=1700`."
WASTED = StoredVerdict(code="WASTED", because="x", advice=ADVICE)

MESSAGES = {
    "submitted": messages.submitted(job(), SPEC),
    "started": messages.started(job(), SPEC),
    "recovered": messages.recovered(job(), attempt(1, Outcome.CRASHED), attempt(2, Outcome.DONE), SPEC),
    "spike_handled": messages.spike_handled(job(), SPIKE, SPEC),
    "skipped": messages.skipped(job(), "job 2, which it waits for, failed", SPEC),
    "queue_paused": messages.queue_paused(job(), "jobs 2 and 3 crashed for the same reason", SPEC, 100.5),
    "late": messages.late(job(), SPEC, deadline=DEADLINE, expected=DEADLINE + 6_000, zone=BERLIN),
    "late_next_day": messages.late(job(), SPEC, deadline=DEADLINE, expected=DEADLINE + 86_400, zone=BERLIN),
    "late_unknown": messages.late(job(), SPEC, deadline=DEADLINE, expected=None, zone=BERLIN),
    "group_ended": messages.group_ended(
        "two words",
        [job(status=Status.SUCCEEDED), job(status=Status.FAILED)],
        "Best: qwen (job 3), validation loss 1.2345",
        ended_at=100.5,
        picture="/home/me/lq/compare/two words.png",
        spec=SPEC,
    ),
    "file_rejected": messages.file_rejected("a.yaml", "a.yaml: no model", folder=Path("/lq/inbox/rejected"), key="k"),
    "inbox_unusable": messages.inbox_unusable("belongs to another user", key="k"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message_text(name: str) -> None:
    assert_message(MESSAGES[name], name)


DECISIONS = {
    "finished": ("finished", Decision(status=Status.SUCCEEDED, reason=Reason.COMPLETED, detail="done")),
    "failed": ("failed", Decision(status=Status.FAILED, reason=Reason.CRASH_LOOP, detail="this is why")),
    "diverged": (
        "failed",
        Decision(status=Status.FAILED, reason=Reason.DIVERGED, detail=SPIKE.text),
    ),
    "never_trained": (
        "failed",
        Decision(status=Status.FAILED, reason=Reason.DATA_INVALID, detail="/a/b/train.jsonl:6: roles must alternate"),
    ),
    "spiked": (
        "failed",
        Decision(status=Status.FAILED, reason=Reason.CRASH_LOOP, detail=SPIKE.text),
    ),
    "held": (
        "needs_you",
        Decision(status=Status.HELD, reason=Reason.HOST_REBOOTED, detail="this is why", answer="held"),
    ),
    "disk_full": (
        "needs_you",
        Decision(status=Status.WAITING, reason=Reason.DISK_FULL, detail="this is why", answer="waits"),
    ),
}


def _decided(name: str) -> NewMessage:
    event, decision = DECISIONS[name]
    verdict = WASTED if name == "finished" else None
    never = {"job": job(iteration=0, train_loss=None), "validations": []} if name == "never_trained" else {}
    return messages.decided(facts(verdict=verdict, **never), event, decision, SPEC, 2)


@pytest.mark.parametrize("name", DECISIONS)
def test_decision_text(name: str) -> None:
    assert_message(_decided(name), name)


def test_keys_separate_repeated_events() -> None:
    later = dataclasses.replace(SPIKE, time=900.0)
    assert MESSAGES["spike_handled"].key != messages.spike_handled(job(), later, SPEC).key
    assert MESSAGES["late"].key == MESSAGES["late_next_day"].key, "one message for each deadline"


def test_merged_counts_messages() -> None:
    rows = [row(1, "2026-05-05 02:10", "first\nmore"), row(2, "2026-05-05 02:14", "second")]
    last = row(3, "2026-05-05 02:25", "third\nresumed")
    assert_message(messages.merged([*rows, last], BERLIN), "merged")
    assert messages.merged([last], BERLIN) == last


def test_merged_keeps_different_titles() -> None:
    first = row(1, "2026-05-05 02:10", "first")
    other = dataclasses.replace(row(3, "2026-05-05 02:25", "third"), title="lq: the queue is paused and needs you")
    merged = messages.merged([first, other], BERLIN)
    assert merged.title == f"{other.title} (and 1 more since 02:10)"


def test_merged_shows_only_latest() -> None:
    rows = [row(number, f"2026-05-04 {number}:00", f"n{number}") for number in range(10, 20)]
    assert_message(messages.merged([*rows, row(99, "2026-05-05 02:25", "last")], BERLIN), "merged_many")


def test_crashes_exclude_loss_guard_stops() -> None:
    stopped = attempt(1, Outcome.CRASHED, reason="spike")
    attempts = [stopped, attempt(2, Outcome.CRASHED), attempt(3, Outcome.DONE)]
    assert messages.crashes(attempts) == 1
    decision = Decision(status=Status.SUCCEEDED, reason=None, detail="")
    message = messages.decided(facts(attempts=attempts), "finished", decision, SPEC, 3)
    assert ", 1 restart;" in message.body


@pytest.mark.parametrize("code", Code)
def test_every_verdict_has_words(code: Code) -> None:
    verdict = StoredVerdict(code=code, because="", advice="")
    decision = Decision(status=Status.SUCCEEDED, reason=None, detail="")
    body = messages.decided(facts(verdict=verdict), "finished", decision, SPEC, 3).body
    assert code not in body
    assert not body.startswith("The training finished:")
    assert body.endswith("next: lq chat 3")


EVERY = {**MESSAGES, **{name: _decided(name) for name in DECISIONS}}


@pytest.mark.parametrize("name", EVERY)
def test_message_is_one_plain_sentence(name: str) -> None:
    body = EVERY[name].body
    assert "\n" not in body
    assert "standard deviations" not in body
    assert not re.search(r"(?<!\w)/\w", body), "no path of this machine"
    assert "next: " in body or "details: lq show" in body or name in ("submitted", "started", "recovered")


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
def test_verdict_from_report(content: dict[str, object], verdict: str | None) -> None:
    found = verdict_in(content)
    assert (None if found is None else found.code) == verdict


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"schema": 1}', "\ud800"])
def test_status_without_report_verdict(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "report").mkdir()
    if text is not None:
        (tmp_path / "report" / "report.json").write_bytes(text.encode(errors="surrogatepass"))
    assert word_for(job(job_dir=str(tmp_path), status=Status.FAILED)) == "failed"
    ruled = {"findings": {"ruling": {"verdict": {"code": "OK"}}}}
    (tmp_path / "report" / "report.json").write_text(json.dumps(ruled))
    assert word_for(job(job_dir=str(tmp_path), status=Status.FAILED)) == "OK"
