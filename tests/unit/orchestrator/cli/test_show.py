"""`lq show`: incidents, the run plan and the last output of crashed trainers, within 80 columns."""

from __future__ import annotations

import re
import time
from typing import Any

from rich.cells import cell_len

from jobs.model.events import Event, Kind
from jobs.model.job import Incident, Job, crash_evidence
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.decision import Decision
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import WORKER, Home

KILLED = "ended by SIGKILL, sent by something other than lq"
SIGN = "Insufficient Memory"
OUT = f"the GPU ran out of memory: [METAL] Command buffer execution failed: {SIGN} (00000008)"


class WorkerContext:
    """A job whose attempts a test lets begin, train and die, at times of its own."""

    def __init__(self, home: Home, **keys: Any) -> None:
        """Submit a job and let its first attempt begin at iteration 0."""
        self.store = home.store
        self.job = home.running("night", **keys)
        self.began = self.store.attempts.of(self.job.id)[0].started_at
        self._offset = 0
        self.tells(1, Kind.STARTED, 0.0, iteration=0, resumed_from=None, resume_quality="fresh")

    def tells(self, attempt: int, kind: Kind, after_s: float, **data: Any) -> None:
        """Let a trainer write an event so long after the first attempt's begin."""
        self._offset += 1
        moment = self.began + after_s
        event = Event(seq=self._offset, time=moment, awake=after_s, attempt=attempt, kind=kind, data=data)
        before = self._offset - 1
        assert self.store.events.ingest(
            self.job.id, [event], offset_before=before, offset_after=self._offset, steps_per_report=10, now=moment
        )

    def trains(self, attempt: int, iteration: int, after_s: float) -> None:
        """Let a trainer report ten iterations up to this one, at 2 iterations a second."""
        data = {"losses": [1.0] * 10, "it_s": 2.0, "tokens": 100}
        self.tells(attempt, Kind.PROGRESS, after_s, iteration=iteration, **data)

    def dies(self, reason: Reason, detail: str, after_s: float, decision: Decision, *, output: str = "") -> Job:
        """Let the last attempt die, and settle it as the decision says."""
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

    def goes_on(self, iteration: int, after_s: float) -> int:
        """Let the next attempt begin from a checkpoint; return its number."""
        claimed = self.store.leases.claim(WORKER, self.began + after_s)
        assert claimed is not None
        attempt = self.store.attempts.begin(self.job.id, owner=WORKER, now=self.began + after_s)
        name = f"step-{iteration:07d}"
        self.tells(
            attempt.number, Kind.STARTED, after_s, iteration=iteration, resumed_from=name, resume_quality="exact"
        )
        return attempt.number


def again(answer: str, *, stage: Stage | None = None, **evidence: object) -> Decision:
    """Return the decision to go on at once."""
    seen = {"consecutive_crashes": 1, "max_restarts": 5, "delay_s": 0.0} | evidence
    return Decision(
        status=Status.WAITING,
        reason=Reason.KILLED,
        detail="why",
        not_before=1.0,
        answer=answer,
        stage=stage,
        evidence=seen,
    )


def shown(home: Home, *words: str | int) -> str:
    """Return what `lq show` prints, with its line breaks undone; no line is wider than 80 columns."""
    answer = InProcess(home.path)("show", *words).out
    wide = [line for line in answer.splitlines() if cell_len(line) > 80 and "/" not in line and "output" not in line]
    assert wide == []
    return re.sub(r"\n {12}", " ", answer)


def test_a_crash_is_told_with_its_evidence_its_answer_and_its_price(home: Home) -> None:
    context = WorkerContext(home)
    context.trains(1, 10, 5.0)
    context.trains(1, 20, 10.0)
    context.dies(Reason.KILLED, KILLED, 12.0, again("resumed from its last checkpoint"))
    number = context.goes_on(10, 15.0)
    context.trains(number, 20, 20.0)
    text = shown(home, 1)
    assert "The trainer was killed (attempt 1, iteration 20)" in text
    assert f"Evidence: {KILLED}" in text
    assert "Action: resumed from its last checkpoint, restarted immediately (consecutive crash 1 of at most 5)" in text
    assert "Cost: 10 iterations trained twice; 8 s until the run was back at that iteration" in text


def test_a_job_that_has_not_gone_on_does_not_know_its_price(home: Home) -> None:
    context = WorkerContext(home)
    context.trains(1, 20, 10.0)
    context.dies(
        Reason.KILLED, KILLED, 12.0, again("resumed from its last checkpoint", delay_s=40.0, consecutive_crashes=3)
    )
    assert "restarted after 40 s (consecutive crash 3 of" in shown(home, 1)
    assert "Cost: unknown until the job resumes" in shown(home, 1)
    number = context.goes_on(10, 15.0)
    assert "10 iterations trained twice; the run is not back at that iteration yet" in shown(home, 1)
    context.trains(number, 20, 20.0)
    assert "until the run was back" in shown(home, 1)


def test_out_of_memory_shows_the_line_the_numbers_and_the_run_plan(home: Home) -> None:
    context = WorkerContext(home, batch_size=4)
    stage = Stage(
        first_example=40,
        batch_size=2,
        grad_accumulation_steps=2,
        grad_checkpoint=True,
        max_seq_length=2048,
        because="out_of_memory: batch 4 -> 2",
    )
    rung = again(
        "batch 4 -> 2, accumulation 1 -> 2", stage=stage, sign=SIGN, peak_bytes=3_210_000_000, free_bytes=10**9
    )
    context.dies(Reason.OUT_OF_MEMORY, OUT, 12.0, rung)
    text = shown(home, 1)
    assert "The trainer ran out of memory (attempt 1, iteration 0)" in text
    assert f"Evidence: {OUT}; peak memory 3.21 GB; free memory afterwards 1 GB" in text
    assert "Action: batch 4 -> 2, accumulation 1 -> 2, restarted immediately" in text
    assert "run plan: requested -> run, from iteration" in text
    asked_and_run = "batch 4 -> 2, accumulation 1 -> 2, gradient checkpointing off -> on"
    assert f"  10        {asked_and_run} (out_of_memory: batch 4 -> 2)" in text


def test_a_job_given_up_tells_its_last_crash(home: Home) -> None:
    context = WorkerContext(home)
    decision = Decision(status=Status.FAILED, reason=Reason.CRASH_LOOP, detail="died 4 times in a row")
    context.dies(Reason.CRASHED, "exit code 1: boom", 12.0, decision)
    text = shown(home, 1)
    assert "The trainer crashed (attempt 1, iteration 0)" in text
    assert "Action: gave up: crash_loop: died 4 times in a row" in text


def test_a_sleep_is_told_with_its_length(home: Home) -> None:
    context = WorkerContext(home)
    slept = Incident(
        job_id=context.job.id,
        attempt=1,
        time=time.time(),
        code="slept",
        text="the machine slept 3 h 12 min",
        evidence={"slept_s": 11_520.0},
    )
    home.store.incidents.add(slept)
    text = shown(home, 1)
    assert "The machine slept (attempt 1)" in text
    assert "Cost: 3 h 12 min without training, no iteration" in text


def test_the_last_words_of_a_dead_trainer_are_shown_and_with_output_all_that_is_kept(home: Home) -> None:
    context = WorkerContext(home)
    output = "\n".join(f"output line {number}\x1b[2J" for number in range(1, 41))
    context.dies(Reason.CRASHED, "exit code 1", 12.0, again("resumed from its last checkpoint"), output=output)
    short, whole = shown(home, 1), shown(home, 1, "--output")
    assert "output of attempt 1, the last 15 of 40 lines; all with --output" in short
    assert re.findall(r"output line (\d+)", short) == [str(number) for number in range(26, 41)]
    assert re.findall(r"output line (\d+)", whole) == [str(number) for number in range(1, 41)]
    assert "\x1b" not in short + whole


def test_a_job_that_waits_says_until_when(home: Home) -> None:
    waiting = home.ended(Status.WAITING, Reason.DISK_FULL, "the disk is full")
    assert re.search(r"resumes +on \w{3} \d+ \w{3} at \d\d:\d\d", shown(home, waiting.id))
