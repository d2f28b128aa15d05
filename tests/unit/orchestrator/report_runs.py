"""Runs for tests of the report: a real store and a real job folder, filled with made-up events."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.load import dump_job
from jobs.model.events import Event, Kind, to_line
from jobs.model.job import Incident, ProcessIdentity
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan, to_json
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.store.store import Store

WORKER = ProcessIdentity(pid=1, create_time=1.0, boot_id="boot")
START = 1_700_000_000.0  # unix seconds: when the first attempt began
IT_S = 2.0
TOKENS = 50  # per iteration
ERROR = 0.05  # standard error of every validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlayedAttempt:
    """An attempt whose events are made up."""

    first: int
    last: int
    begins: float  # seconds after START
    outcome: Outcome = Outcome.DONE
    reason: Reason = Reason.COMPLETED
    detail: str = "trained to its last iteration"
    quality: str = "exact"
    self_test: Mapping[str, Any] | None = None
    test_loss: float | None = None
    losses: Mapping[int, str] = dataclasses.field(default_factory=dict)  # other than train_loss, by iteration


def killed(*, first: int, last: int, begins: float, **more: Any) -> PlayedAttempt:
    """Return an attempt that is killed at `last`."""
    detail = "ended by SIGKILL, sent by something other than lq"
    return PlayedAttempt(
        first=first, last=last, begins=begins, outcome=Outcome.CRASHED, reason=Reason.KILLED, detail=detail, **more
    )


TWO_RESTARTS = (
    killed(first=0, last=337, begins=0.0, quality="fresh"),
    killed(
        first=300,
        last=450,
        begins=200.0,
        self_test={"iteration": 300, "measured": 1.2345678901234567, "recorded": 1.2345678901234567, "equal": True},
    ),
    PlayedAttempt(
        first=400,
        last=600,
        begins=300.0,
        quality="state",
        self_test={"iteration": 400, "measured": 1.1, "recorded": 1.1000000001, "equal": False},
        test_loss=0.7,
    ),
)


def train_loss(iteration: int) -> float:
    """Return the train loss of the made-up run."""
    return 3.0 * math.exp(-iteration / 150) + 0.5


class Run:
    """One job in its own store."""

    def __init__(self, home: Path, **settings: Any) -> None:
        """Submit the job and claim it; `settings` are keys of the job file."""
        lq = {"name": "demo-lora"} | settings.pop("lq", {})
        given = {"model": "/models/tiny", "data": "/data/qa", "iters": 600, "batch_size": 4} | settings
        self.spec = JobSpec(**given, lq=lq)
        self.home = home
        self.store = Store.open(home / "lq.db")
        job = self.store.jobs.submit(
            name=self.spec.name,
            priority=0,
            iters=self.spec.iters,
            spec_json=self.spec.model_dump_json(),
            prepare=self._prepare,
            now=START - 10,
        )
        self.id, self.folder = job.id, Path(job.job_dir)
        assert self.store.leases.claim(WORKER, START) is not None
        self._offset = 0

    def _prepare(self, job_id: int) -> Path:
        folder = self.home / "jobs" / f"{job_id}-run"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_job(self.spec))
        (folder / "run_plan.json").write_text(json.dumps(to_json(RunPlan.requested(self.spec))))
        file = {"path": "/data/qa/train.jsonl", "rows": 50, "bytes": 12_345, "sha256": "ab" * 32, "format": "chat"}
        data = {"source": "folder", "name": "/data/qa", "files": {"train.jsonl": file}, "notes": []}
        provenance = {"versions": {"mlx": "0.32.4", "lq": "0.1.0"}, "host": {"system": "Linux"}, "data": data}
        (folder / "provenance.json").write_text(json.dumps(provenance))
        return folder

    def play(self, *attempts: PlayedAttempt) -> None:
        """Store the events and the end of attempts."""
        for played in attempts:
            attempt = self.store.attempts.begin(self.id, owner=WORKER, now=START + played.begins)
            self.ingest(attempt.number, _events(played))
            ended = START + played.begins + 5 + (played.last - played.first) / IT_S
            ending = Ending(outcome=played.outcome, reason=played.reason, detail=played.detail)
            self.store.attempts.end(attempt.id, ending=ending, exit_code=None, signal=None, now=ended)

    def ingest(self, attempt: int, events: Iterator[tuple[Kind, float, dict[str, Any]]]) -> None:
        """Write events to events.jsonl and take them into the store."""
        taken = [
            Event(seq=seq, time=time, awake=time, attempt=attempt, kind=kind, data=data)
            for seq, (kind, time, data) in enumerate(events, start=1)
        ]
        with (self.folder / "events.jsonl").open("ab") as file:
            file.writelines(to_line(event) for event in taken)
        every = self.spec.steps_per_report
        before, self._offset = self._offset, self._offset + len(taken)
        assert self.store.events.ingest(
            self.id, taken, offset_before=before, offset_after=self._offset, steps_per_report=every, now=START
        )

    def settle(self, status: Status, reason: Reason, detail: str, now: float) -> None:
        """End the job."""
        incident = Incident(
            job_id=self.id,
            attempt=1,
            time=now,
            code="restart",
            text="a | b `c`",
            evidence={},
        )
        decision = Decision(status=status, reason=reason, detail=detail)
        self.store.leases.settle(self.id, decision, owner=WORKER, now=now, incidents=[incident])

    def publish(self) -> None:
        """Put an adapter and two of the checkpoints on disk."""
        adapters = self.folder / "adapters"
        adapters.mkdir()
        (adapters / "adapters.safetensors").write_bytes(b"best")
        (adapters / "final_adapters.safetensors").write_bytes(b"final")
        origin = {"version": 1, "best": {"iteration": 500, "loss": 0.6}, "final": {"iteration": 600}}
        (adapters / "lq.json").write_text(json.dumps(origin))
        for iteration in (500, 600):
            (self.folder / f"checkpoints/step-{iteration:07d}").mkdir(parents=True)


def _events(played: PlayedAttempt) -> Iterator[tuple[Kind, float, dict[str, Any]]]:
    begin = START + played.begins
    resumed = f"step-{played.first:07d}" if played.first else None
    started = {"iteration": played.first, "resumed_from": resumed, "resume_quality": played.quality}
    yield Kind.STARTED, begin, started
    if played.self_test:
        yield Kind.SELF_TEST, begin + 4, dict(played.self_test)
    if played.first == 0:
        yield _validation(0, begin + 4)
    # 5 s of loading, then reports at the multiples of 10 and one where the attempt ends
    marks = [played.first, *range(played.first // 10 * 10 + 10, played.last, 10), played.last]
    for before, iteration in itertools.pairwise(marks):
        now = begin + 5 + (iteration - played.first) / IT_S
        yield Kind.PROGRESS, now, _progress(before, iteration, played.losses.get(iteration, train_loss(iteration)))
        if iteration % 100 == 0:
            yield _validation(iteration, now)
            path = f"checkpoints/step-{iteration:07d}"
            yield Kind.CHECKPOINT, now, {"iteration": iteration, "path": path, "bytes": 37_000_000, "seconds": 0.1}
    if played.test_loss is not None:
        test = {"loss": played.test_loss, "standard_error": 0.03, "examples": 20, "seconds": 1.0}
        yield Kind.TEST, now, {"iteration": played.last, **test}


def _progress(before: int, iteration: int, loss: float | str) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "losses": [loss] * (iteration - before),
        "learning_rate": 1e-4,
        "tokens": iteration * TOKENS,
        "it_s": IT_S,
        "tok_s": IT_S * TOKENS,
        "memory": {"active": 1, "cache": 2, "peak": 4_174_000_000, "footprint": 4},
    }


def _validation(iteration: int, now: float) -> tuple[Kind, float, dict[str, Any]]:
    # lowest at 500: the end is a little above the best
    loss = train_loss(iteration) + (0.2 if iteration == 600 else 0.1)
    measured = {"iteration": iteration, "loss": loss, "standard_error": ERROR, "examples": 53, "seconds": 1.0}
    return Kind.VALIDATION, now, measured
