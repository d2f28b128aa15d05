"""`lq logs`: which lines it prints, in which form, and the incidents between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from jobs.model.events import Event, Kind, from_line, to_line
from jobs.model.job import Incident, Job
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.args import parse_time
from orchestrator.cli.commands.run import follow
from orchestrator.cli.verbs import run
from orchestrator.cli.views.job_log import JobLog, LogEntry, read_batches, wrapped
from orchestrator.core.app import App
from tests.golden import assert_golden
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.rendering import GOLDEN

START = 1_700_000_000.0
TORN = b'{"v":2,"seq":'

Logs = Callable[..., str]


def event(attempt: int, seq: int, kind: Kind, after_s: float, **data: Any) -> bytes:
    """Return the line of an event, `after_s` seconds after the start."""
    return to_line(Event(seq=seq, time=START + after_s, awake=after_s, attempt=attempt, kind=kind, data=data))


LINES = [
    event(1, 1, Kind.STARTED, 0, pid=5, iteration=0, resumed_from=None),
    event(1, 2, Kind.WARNING, 10, code="slow", text="it is slow"),
    TORN + b"\n",
    event(2, 1, Kind.STARTED, 100, pid=6, iteration=40, resumed_from="step-0000040", resume_quality="exact"),
    event(2, 2, Kind.ENDED, 200, outcome="done", reason="completed", detail="trained to its last iteration"),
]
KILLED = "ended by SIGKILL"


@pytest.fixture
def job(home: Home) -> Job:
    """Give a job with two attempts and two incidents; the first attempt was killed."""
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
def logs(home: Home, job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Logs:
    """Give `lq logs` of that job."""
    monkeypatch.setenv("LQ_HOME", str(home.path))

    def logs_of(*words: str, code: int = 0) -> str:
        assert run(["logs", str(job.id), *words]) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return logs_of


def words(text: str) -> list[str]:
    """Return each line without its time."""
    return [line.partition("  ")[2] for line in text.splitlines()]


def test_logs_match_golden(logs: Logs, utc: None) -> None:
    assert_golden(logs(), GOLDEN / "logs.txt")


def codes(entries: Iterable[LogEntry]) -> list[str]:
    """Return the kind of each event and the code of each incident."""
    return [one.source.kind if isinstance(one.source, Event) else one.source.code for one in entries]


def test_incidents_stand_between_attempts(job: Job, app: App) -> None:
    job_log = JobLog(app, job.id)
    events = [from_line(line) for line in LINES if line != TORN + b"\n"]
    entries = [entry for event in events for entry in job_log.entries(event)]
    assert codes(entries) == ["started", "warning", "killed", "started", "ended"]


def test_warning_read_as_incident_shows_once(job: Job, app: App) -> None:
    job_log = JobLog(app, job.id)
    started, warned = from_line(LINES[0]), from_line(LINES[1])
    entries = [*job_log.entries(started), *job_log.new_incidents(), *job_log.entries(warned)]
    assert codes([*entries, *job_log.new_incidents()]) == ["started", "slow", "killed"]


def test_incidents_of_one_moment_all_show(home: Home, job: Job, app: App) -> None:
    for code in ("spike", "divergence"):
        home.store.incidents.add(
            Incident(job_id=job.id, attempt=2, time=START + 150, code=code, text="so", evidence={})
        )
    assert codes(JobLog(app, job.id).new_incidents())[-2:] == ["spike", "divergence"]


def test_raw_prints_the_file_as_it_is(logs: Logs) -> None:
    assert logs("--raw").encode() == b"".join(LINES)
    assert logs("--raw", "--attempt", "2").encode() == b"".join(LINES[3:])


def test_json_prints_one_event_per_line(logs: Logs) -> None:
    assert [json.loads(line)["seq"] for line in logs("--json").splitlines()] == [1, 2, 1, 2]
    assert [json.loads(line)["seq"] for line in logs("--json", "--tail", "1").splitlines()] == [2]


def test_attempt_option_selects_one(logs: Logs) -> None:
    assert [line[0] for line in words(logs("--attempt", "1"))] == ["1", "1", "1"]
    assert logs("--attempt", "3") == ""


def test_tail_prints_the_last_lines(logs: Logs) -> None:
    assert words(logs("-n", "2")) == words(logs())[-2:]
    (line,) = logs("-n", "1", "--attempt", "1").splitlines()
    assert KILLED in line
    assert logs("-n", "0") == ""


def test_since_leaves_out_earlier_lines(logs: Logs) -> None:
    since = datetime.fromtimestamp(START + 95).astimezone().isoformat()
    assert [line[:10] for line in words(logs("--since", since))] == ["2  started", "2  ended  "]
    assert logs("--since", "10min") == ""


def test_run_json_prints_events_to_stdout(home: Home, app: App, capsys: pytest.CaptureFixture[str]) -> None:
    ended = home.ended(Status.FAILED, Reason.CRASHED, "why", name="night")
    (Path(ended.job_dir) / "events.jsonl").write_bytes(b"".join(LINES))
    assert follow(app, ended.id, as_json=True) == 100
    out, err = capsys.readouterr()
    assert [json.loads(one) for one in out.splitlines()] == [json.loads(one) for one in LINES if one != TORN + b"\n"]
    assert f"job {ended.id} failed" in err


def test_follow_of_an_ended_job_returns(home: Home, job: Job, logs: Logs) -> None:
    lines = words(logs())
    home.store.jobs.cancel(home.queued("other").id, 1.0)
    assert words(logs("-n", "3")) == lines[-3:]


def test_crashes_are_red_warnings_yellow(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, warning, crash, _, end = logs().splitlines()
    assert warning.startswith("\x1b[33m")
    assert crash.startswith("\x1b[31m")
    assert end.startswith("\x1b[32m")


@pytest.mark.parametrize("since", ["soon", "25:00", "22:61", "", "12", "2026-13-01"])
def test_invalid_since_names_the_formats(logs: Logs, since: str) -> None:
    assert "10min, 2h, 22:00 or 2026-01-31T22:00" in logs("--since", since, code=2)


def test_output_prints_the_train_log(logs: Logs, job: Job) -> None:
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
def test_since_takes_durations_and_times(text: str, before_noon_s: float) -> None:
    assert parse_time(text, NOON) == pytest.approx(NOON - before_noon_s)


def test_follow_continues_after_the_tail(home: Home, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LQ_HOME", str(home.path))
    with App.of_this_user() as app:
        batches = read_batches(app, job.id, follow=True)
        assert len(next(batches)) == len(LINES)
        assert next(batches) == []
        with (Path(job.job_dir) / "events.jsonl").open("ab") as file:
            file.write(event(2, 3, Kind.WARNING, 300, code="late", text="still here"))
        started = time.monotonic()
        while not (more := next(batches)):
            assert time.monotonic() - started < 30
        assert [one.event.data["text"] for one in more if one.event is not None] == ["still here"]
        batches.close()  # type: ignore[attr-defined] # a generator is one


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("--grep", "IT IS slow"), ["1  warning   it is slow"]),
        (("--grep", "^.{8,19}  2  ", "--tail", "1"), ["2  ended     done: completed: trained to its last iteration"]),
        (("--grep", "nowhere"), []),
    ],
)
def test_grep_selects_log_lines(logs: Logs, options: tuple[str, ...], shown: list[str]) -> None:
    assert words(logs(*options)) == shown


def test_grep_searches_what_is_printed(logs: Logs, job: Job) -> None:
    (Path(job.job_dir) / "train.log").write_text("Loading\nTraining\nDone\n")
    assert logs("--output", "--grep", "ing$") == "Loading\nTraining\n"
    assert logs("--output", "--grep", "ing$", "--tail", "1") == "Training\n"
    assert [json.loads(line)["seq"] for line in logs("--json", "--grep", '"pid": ?6').splitlines()] == [1]
    assert logs("--raw", "--grep", "resume_quality").encode() == LINES[3]
    assert "regular expression" in logs("--grep", "(", code=2)


def test_logs_without_id_take_present_job(home: Home) -> None:
    lq = InProcess(home.path)
    assert "no job has started" in lq("logs", expect=3).err
    home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="first")
    home.ended(Status.FAILED, Reason.CRASHED, name="second")
    assert "job 2 (second)" in lq("logs").err
    home.running("third")
    home.queued("fourth")
    assert "job 3 (third)" in lq("logs", "--json").err


@pytest.mark.parametrize("width", [100, 60, 40, 21])
def test_log_lines_wrap_at_words(width: int) -> None:
    text = "22:04:05  1  warning   a word, 日本語 words, and a /path/that/has/no/space/in/it/and/is/longer/than/a/line"
    lines = wrapped(text, width)
    assert max(map(cell_len, lines)) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(line.startswith("   ") for line in lines[1:])
    assert not any("wo" in line.split() for line in lines)
    assert wrapped("short", width) == ["short"]
