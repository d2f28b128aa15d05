"""`lq logs`: which lines, in which form; what lq decided stands between what the trainers said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Event, Kind, from_line, to_line
from jobs.model.job import Incident, Job
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.param_types import parse_time
from orchestrator.cli.verbs import run
from orchestrator.cli.views.job_log import JobLog
from orchestrator.cli.views.live import follow
from orchestrator.core.app import App
from tests.unit.orchestrator.cli_homes import Home

START = 1_700_000_000.0
TORN = b'{"v":1,"seq":'

Say = Callable[..., str]


def event(attempt: int, seq: int, kind: Kind, after_s: float, **data: Any) -> bytes:
    """Return a line that a trainer wrote so long after the start."""
    return to_line(Event(seq=seq, time=START + after_s, awake=after_s, attempt=attempt, kind=kind, data=data))


LINES = [
    event(1, 1, Kind.STARTED, 0, pid=5, iteration=0, resumed_from=None),
    event(1, 2, Kind.WARNING, 10, code="slow", text="it is slow"),
    TORN + b"\n",
    event(2, 1, Kind.STARTED, 100, pid=6, iteration=40, resumed_from="step-0000040", resume_quality="exact"),
    event(2, 2, Kind.ENDED, 200, outcome="done", reason="completed", detail="trained to its last iteration"),
]
KILLED = "ended by SIGKILL"
CRASHED = f"The trainer was killed (attempt 1, iteration 40): {KILLED}; resumed from its last checkpoint"


@pytest.fixture
def job(home: Home) -> Job:
    """Give a job with two attempts, of which one was killed, and the incidents of the store."""
    made = home.running("night")
    (Path(made.job_dir) / "events.jsonl").write_bytes(b"".join(LINES))
    crash = {"iteration": 40, "action": "resumed from its last checkpoint"}
    for after_s, code, text, evidence in (
        (10.0, "slow", "it is slow", {}),
        (90.0, Reason.KILLED.value, KILLED, crash),
    ):
        incident = Incident(job_id=made.id, attempt=1, time=START + after_s, code=code, text=text, evidence=evidence)
        home.store.incidents.add(incident)
    return made


@pytest.fixture
def logs(home: Home, job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Give `lq logs` of that job; without colours."""
    monkeypatch.setenv("LQ_HOME", str(home.path))

    def say(*words: str, code: int = 0) -> str:
        assert run(["logs", str(job.id), *words]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return say


def words(text: str) -> list[str]:
    """Return of each line what comes after the hour."""
    return [line.partition("  ")[2] for line in text.splitlines()]


def test_what_lq_decided_stands_between_the_attempts_and_nothing_is_told_twice(logs: Say) -> None:
    assert words(logs()) == [
        "1  started   pid 5, from the beginning",
        "1  warning   it is slow",
        f"1  lq        {CRASHED}",
        "2  started   pid 6, resumes at iteration 40 (exact)",
        "2  ended     done: completed: trained to its last iteration",
    ]


def test_a_warning_that_the_store_knows_first_is_told_once(home: Home, job: Job, app: App) -> None:
    story = JobLog(app, job.id)
    begun, warned = from_line(LINES[0]), from_line(LINES[1])
    told = [*story.of(begun), *story.so_far(), *story.of(warned), *story.so_far()]
    assert words("\n".join(one.text for one in told)) == [
        "1  started   pid 5, from the beginning",
        "1  lq        Slow (attempt 1): it is slow",
        f"1  lq        {CRASHED}",
    ]


def test_what_was_decided_at_one_moment_is_all_told(home: Home, job: Job, app: App) -> None:
    for code in ("spike", "divergence"):
        home.store.incidents.add(
            Incident(job_id=job.id, attempt=2, time=START + 150, code=code, text="so", evidence={})
        )
    told = [one.text for one in JobLog(app, job.id).so_far()]
    assert words("\n".join(told))[-2:] == [
        "2  lq        The loss spiked (attempt 2): so",
        "2  lq        Divergence (attempt 2): so",
    ]


def test_raw_lines_come_as_they_stand(logs: Say) -> None:
    assert logs("--raw").encode() == b"".join(LINES)
    assert logs("--raw", "--attempt", "2").encode() == b"".join(LINES[3:])


def test_json_lines_are_events(logs: Say) -> None:
    assert [json.loads(line)["seq"] for line in logs("--json").splitlines()] == [1, 2, 1, 2]
    assert [json.loads(line)["seq"] for line in logs("--json", "--tail", "1").splitlines()] == [2]


def test_an_attempt_alone(logs: Say) -> None:
    assert [line[0] for line in words(logs("--attempt", "1"))] == ["1", "1", "1"]
    assert logs("--attempt", "3") == ""


def test_the_last_lines_alone(logs: Say) -> None:
    assert words(logs("-n", "2")) == words(logs())[-2:]
    assert words(logs("-n", "1", "--attempt", "1")) == [f"1  lq        {CRASHED}"]
    assert logs("-n", "0") == ""


def test_what_was_told_since_a_moment(logs: Say) -> None:
    since = datetime.fromtimestamp(START + 95).astimezone().isoformat()
    assert [line[:10] for line in words(logs("--since", since))] == ["2  started", "2  ended  "]
    assert logs("--since", "10min") == ""


def test_a_run_for_machines_is_its_events_and_speaks_text_to_stderr_elsewhere(
    home: Home, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = home.ended(Status.FAILED, Reason.CRASHED, "why", name="night")
    (Path(ended.job_dir) / "events.jsonl").write_bytes(b"".join(LINES))
    assert follow(app, ended.id, as_json=True) == 100
    out, err = capsys.readouterr()
    assert [json.loads(one) for one in out.splitlines()] == [json.loads(one) for one in LINES if one != TORN + b"\n"]
    assert err == f"job {ended.id} failed: why\n"


def test_following_a_job_that_has_ended_tells_all_and_ends(home: Home, job: Job, logs: Say) -> None:
    told = words(logs())
    home.store.jobs.cancel(home.queued("other").id, 1.0)
    assert words(logs("-n", "3")) == told[-3:]


def test_crashes_are_red_and_warnings_yellow_where_colours_are_wanted(
    logs: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, warning, crash, _, end = logs().splitlines()
    assert warning.startswith("\x1b[33m")
    assert crash.startswith("\x1b[31m")
    assert end.startswith("\x1b[32m")


@pytest.mark.parametrize("since", ["soon", "25:00", "22:61", "", "12", "2026-13-01"])
def test_a_time_that_is_none_is_refused_with_what_to_write(logs: Say, since: str) -> None:
    assert "is not a time; write 10min, 2h, 22:00 or 2026-01-31T22:00" in logs("--since", since, code=2)


def test_the_trainers_own_output_has_no_times(logs: Say, job: Job) -> None:
    Path(job.job_dir, "train.log").write_text("one\ntwo\nthree\n")
    assert logs("--output", "-n", "2") == "two\nthree\n"
    assert logs("--output", "-n", "0") == ""
    assert "--tail" in logs("--output", "--attempt", "1", code=2)


NOON = datetime(2026, 5, 4, 12, 0).astimezone().timestamp()


@pytest.mark.parametrize(
    ("text", "before_noon_s"),
    [
        ("10min", 600.0),
        ("10m", 600.0),
        ("90s", 90.0),
        ("2h", 7200.0),
        ("1d", 86_400.0),
        ("11:30", 1800.0),
        ("22:00", 14 * 3600.0),
        ("12:00", 0.0),
        ("2026-05-04T11:00", 3600.0),
        ("2026-05-04 11:59:30", 30.0),
        ("2026-05-04", 12 * 3600.0),
    ],
)
def test_a_time_is_so_long_ago_the_last_such_hour_or_a_moment(text: str, before_noon_s: float) -> None:
    assert parse_time(text, NOON) == pytest.approx(NOON - before_noon_s)


def test_a_followed_log_goes_on_where_the_tail_ended(home: Home, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.cli.views.job_log import batches

    monkeypatch.setenv("LQ_HOME", str(home.path))
    with App.of_this_user() as app:
        found = batches(app, job.id, follow=True)
        assert len(next(found)) == len(LINES)
        assert next(found) == [], "all that was there is read"
        with (Path(job.job_dir) / "events.jsonl").open("ab") as file:
            file.write(event(2, 3, Kind.WARNING, 300, code="late", text="still here"))
        started = time.monotonic()
        while not (more := next(found)):
            assert time.monotonic() - started < 30
        assert [one.event.data["text"] for one in more if one.event is not None] == ["still here"]
        found.close()  # type: ignore[attr-defined] # a generator is one
