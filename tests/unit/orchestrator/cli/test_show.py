"""`lq show`: incidents, the run plan and the last output of crashed trainers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.cells import cell_len

from jobs.model.events import Event, Kind
from jobs.model.job import Incident, Job, crash_evidence
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.cli.views.job import render
from orchestrator.cli.views.terminal import UNCUT
from orchestrator.core.app import App
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import NOW, WORKER, Home, Seen, one_of_each
from tests.unit.orchestrator.rendering import assert_view, text_of

KILLED = "ended by SIGKILL, sent by something other than lq"
SIGN = "Insufficient Memory"
OUT_OF_MEMORY = f"the GPU ran out of memory: [METAL] Command buffer execution failed: {SIGN} (00000008)"


class RecordedJob:
    """A job whose attempts begin, train and crash at times that a test sets."""

    def __init__(self, home: Home, **keys: Any) -> None:
        """Submit a job and begin its first attempt at iteration 0."""
        home.clock = lambda: NOW - 3600
        self.store = home.store
        self.job = home.running("night", **keys)
        self.began = self.store.attempts.of(self.job.id)[0].started_at
        self._offset = 0
        self.write(1, Kind.STARTED, 0.0, iteration=0, resumed_from=None, resume_quality="fresh")

    def write(self, attempt: int, kind: Kind, after_s: float, **data: Any) -> None:
        """Record an event of the trainer, `after_s` seconds after the first attempt began."""
        self._offset += 1
        moment = self.began + after_s
        event = Event(seq=self._offset, time=moment, awake=after_s, attempt=attempt, kind=kind, data=data)
        before = self._offset - 1
        assert self.store.events.ingest(
            self.job.id, [event], offset_before=before, offset_after=self._offset, steps_per_report=10, now=moment
        )

    def train(self, attempt: int, iteration: int, after_s: float) -> None:
        """Record ten iterations up to this one, at 2 iterations per second."""
        data = {"losses": [1.0] * 10, "it_s": 2.0, "tokens": 100}
        self.write(attempt, Kind.PROGRESS, after_s, iteration=iteration, **data)

    def crash(self, reason: Reason, detail: str, after_s: float, decision: Decision, *, output: str = "") -> Job:
        """End the last attempt with a crash, and record the decision."""
        attempt = self.store.attempts.of(self.job.id)[-1]
        ending = Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)
        ended = self.began + after_s
        self.store.attempts.end(
            attempt.id, ending=ending, exit_code=None, signal=9, now=ended, stderr_tail=output or None
        )
        incident = Incident(
            job_id=self.job.id,
            attempt=attempt.number,
            time=ended,
            code=reason.value,
            text=detail,
            evidence={
                **decision.evidence,
                **crash_evidence(self.store.attempts.of(self.job.id)[-1]),
                "action": decision.answer,
            },
        )
        incidents = [incident] if decision.status is Status.WAITING else []
        return self.store.leases.settle(self.job.id, decision, owner=WORKER, now=ended, incidents=incidents)

    def resume(self, iteration: int, after_s: float) -> int:
        """Begin the next attempt from a checkpoint; return its number."""
        claimed = self.store.leases.claim(WORKER, self.began + after_s)
        assert claimed is not None
        attempt = self.store.attempts.begin(self.job.id, owner=WORKER, now=self.began + after_s)
        name = f"step-{iteration:07d}"
        self.write(
            attempt.number, Kind.STARTED, after_s, iteration=iteration, resumed_from=name, resume_quality="exact"
        )
        return attempt.number


def restart(answer: str, *, stage: Stage | None = None, **evidence: object) -> Decision:
    """Return the decision to restart immediately."""
    return Decision(
        status=Status.WAITING,
        reason=Reason.KILLED,
        detail="why",
        not_before=1.0,
        answer=answer,
        stage=stage,
        evidence={"consecutive_crashes": 1, "max_restarts": 5, "delay_s": 0.0} | evidence,
    )


def shown(app: App, job_id: int, width: int = UNCUT) -> str:
    return text_of(render(app, app.store.jobs.get(job_id), now=NOW), width)


@pytest.mark.parametrize("width", [60, 80, UNCUT])
def test_show_matches_golden(home: Home, app: App, utc: None, width: int) -> None:
    recorded = RecordedJob(home, batch_size=4)
    recorded.train(1, 10, 5.0)
    recorded.train(1, 20, 10.0)
    recorded.crash(Reason.KILLED, KILLED, 12.0, restart("resumed from its last checkpoint"))
    second = recorded.resume(10, 15.0)
    recorded.train(second, 20, 20.0)
    stage = Stage(
        first_example=80,
        batch_size=2,
        grad_accumulation_steps=2,
        grad_checkpoint=True,
        max_seq_length=2048,
        because="out_of_memory: batch 4 -> 2",
    )
    evidence = {"sign": SIGN, "peak_bytes": 3_210_000_000, "free_bytes": 10**9}
    decision = restart("batch 4 -> 2, accumulation 1 -> 2", stage=stage, **evidence)
    recorded.crash(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY, 25.0, decision, output="line 1\nline 2")
    third = recorded.resume(20, 30.0)
    recorded.train(third, 30, 35.0)
    slept = Incident(
        job_id=recorded.job.id,
        attempt=third,
        time=NOW - 60,
        code="slept",
        text="the machine slept 3 h 12 min",
        evidence={"slept_s": 11_520.0},
    )
    home.store.incidents.add(slept)
    name = "pipe" if width == UNCUT else str(width)
    assert_view(render(app, recorded.job, now=NOW), f"show_{name}", width, hide=home.path)


@pytest.mark.parametrize("status", sorted(Status))
def test_show_of_each_status_matches_golden(home: Home, app: App, utc: None, status: Status) -> None:
    home.clock = lambda: NOW - 3600
    ids = one_of_each(home)
    if status not in ids:
        ids[Status.HELD] = home.store.jobs.hold(home.queued("held").id, "held by the user", NOW).id
    if status in ids:
        job = home.store.jobs.get(ids[status])
        assert_view(render(app, job, now=NOW), f"show_{status}", 80, hide=home.path)


def test_show_of_a_failed_job_has_its_crash(home: Home, app: App) -> None:
    recorded = RecordedJob(home)
    decision = Decision(status=Status.FAILED, reason=Reason.CRASH_LOOP, detail="4 consecutive crashes")
    recorded.crash(Reason.CRASHED, "exit code 1: boom", 12.0, decision)
    text = text_of(render(app, app.store.jobs.get(recorded.job.id), now=NOW, verbose=True), UNCUT)
    assert "exit code 1: boom" in text
    assert "gave up: crash_loop: 4 consecutive crashes" in text
    assert re.search(r"^  fix +read the output of the trainer with lq logs 1 --output", text, re.MULTILINE)


@pytest.mark.parametrize("width", [40, 80, UNCUT])
def test_show_has_at_most_60_lines(home: Home, app: App, width: int) -> None:
    recorded = RecordedJob(home)
    for number in range(1, 31):
        recorded.train(number, 10, 20.0 * number)
        measured = {"loss": 2.0, "standard_error": 0.1, "examples": 8, "seconds": 1.0}
        recorded.write(number, Kind.VALIDATION, 20.0 * number, iteration=10, **measured)
        output = "\n".join(f"output of trainer {number}, line {line}" for line in range(40))
        recorded.crash(Reason.KILLED, KILLED, 20.0 * number + 5, restart("resumed"), output=output)
        recorded.resume(10, 20.0 * number + 10)
    job = app.store.jobs.get(recorded.job.id)
    lines = text_of(render(app, job, now=NOW), width).splitlines()
    assert 50 <= len(lines) <= 60
    for title in ("attempts", "incidents", "output of attempt 30", "next"):
        assert any(line.startswith(title) for line in lines)
    assert any("all: --verbose" in line for line in lines)
    assert "  31 " in "\n".join(lines), "the newest attempt stays"
    verbose = text_of(render(app, job, now=NOW, verbose=True), width).splitlines()
    assert len(verbose) > 150
    assert not any("--verbose" in line for line in verbose)


def test_output_option_shows_all_lines(home: Home) -> None:
    recorded = RecordedJob(home)
    output = "\n".join(f"output line {number}\x1b[2J" for number in range(1, 41))
    recorded.crash(Reason.CRASHED, "exit code 1", 12.0, restart("resumed from its last checkpoint"), output=output)
    lq = InProcess(home.path)
    short, whole = lq("show", 1).out, lq("show", 1, "--output").out
    assert re.findall(r"output line (\d+)", short) == [str(number) for number in range(26, 41)]
    assert re.findall(r"output line (\d+)", whole) == [str(number) for number in range(1, 41)]
    assert "\x1b" not in short + whole


def test_show_wraps_text_but_not_paths(home: Home, app: App) -> None:
    detail = "word " * 40
    job = home.ended(Status.FAILED, Reason.KILLED, detail, seen=Seen(iteration=1, train_loss=1.0, val_loss=1.0, it_s=1))
    lines = shown(app, job.id, 100).splitlines()
    assert job.job_dir in "\n".join(lines)
    assert [line for line in lines if cell_len(line) > 100 and job.job_dir not in line] == []
