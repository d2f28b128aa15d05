"""Runs to report on: a real store and a real job folder, filled through their own API from made-up events."""

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
class Life:
    """An attempt to play."""

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


def killed(*, first: int, last: int, begins: float, **more: Any) -> Life:
    """Return an attempt that is killed at `last`."""
    detail = "ended by SIGKILL, sent by something other than lq"
    return Life(
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
    Life(
        first=400,
        last=600,
        begins=300.0,
        quality="state",
        self_test={"iteration": 400, "measured": 1.1, "recorded": 1.1000000001, "equal": False},
        test_loss=0.7,
    ),
)


def train_loss(iteration: int) -> float:
    """The train loss of the made-up run."""
    return 3.0 * math.exp(-iteration / 150) + 0.5


class Run:
    """One job in a store of its own, played attempt by attempt."""

    def __init__(self, home: Path, **settings: Any) -> None:
        """Submit the job and let a worker claim it; `settings` are keys of the job file."""
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

    def play(self, *lives: Life) -> None:
        """Let attempts live and end."""
        for life in lives:
            attempt = self.store.attempts.begin(self.id, owner=WORKER, now=START + life.begins)
            self.tell(attempt.number, _events(life))
            ended = START + life.begins + 5 + (life.last - life.first) / IT_S
            ending = Ending(outcome=life.outcome, reason=life.reason, detail=life.detail)
            self.store.attempts.end(attempt.id, ending=ending, exit_code=None, signal=None, now=ended)

    def tell(self, attempt: int, events: Iterator[tuple[Kind, float, dict[str, Any]]]) -> None:
        """Take events into the store as an ingest would."""
        told = [
            Event(seq=seq, time=time, awake=time, attempt=attempt, kind=kind, data=data)
            for seq, (kind, time, data) in enumerate(events, start=1)
        ]
        with (self.folder / "events.jsonl").open("ab") as file:
            file.writelines(to_line(event) for event in told)
        every = self.spec.steps_per_report
        before, self._offset = self._offset, self._offset + len(told)
        assert self.store.events.ingest(
            self.id, told, offset_before=before, offset_after=self._offset, steps_per_report=every, now=START
        )

    def settle(self, status: Status, reason: Reason, detail: str, now: float) -> None:
        """End the job."""
        incident = Incident(
            job_id=self.id,
            attempt=1,
            time=now,
            code="restart",
            text="a | b `c`",
            evidence={"reason": "killed", "delay_s": 0.0},
        )
        decision = Decision(status=status, reason=reason, detail=detail)
        self.store.leases.settle(self.id, decision, owner=WORKER, now=now, incidents=[incident])

    def publish(self) -> None:
        """Put an adapter and two of the checkpoints on disk."""
        adapters = self.folder / "adapters"
        adapters.mkdir()
        (adapters / "adapters.safetensors").write_bytes(b"best")
        (adapters / "final_adapters.safetensors").write_bytes(b"final")
        said = {"version": 1, "best": {"iteration": 500, "loss": 0.6}, "final": {"iteration": 600}}
        (adapters / "lq.json").write_text(json.dumps(said))
        for iteration in (500, 600):
            (self.folder / f"checkpoints/step-{iteration:07d}").mkdir(parents=True)


def _events(life: Life) -> Iterator[tuple[Kind, float, dict[str, Any]]]:
    begin = START + life.begins
    resumed = f"step-{life.first:07d}" if life.first else None
    started = {"iteration": life.first, "resumed_from": resumed, "resume_quality": life.quality}
    yield Kind.STARTED, begin, started
    if life.self_test:
        yield Kind.SELF_TEST, begin + 4, dict(life.self_test)
    if life.first == 0:
        yield _validation(0, begin + 4)
    # 5 s of loading, then reports at the multiples of 10 and one where the attempt ends
    marks = [life.first, *range(life.first // 10 * 10 + 10, life.last, 10), life.last]
    for before, iteration in itertools.pairwise(marks):
        now = begin + 5 + (iteration - life.first) / IT_S
        yield Kind.PROGRESS, now, _progress(before, iteration, life.losses.get(iteration, train_loss(iteration)))
        if iteration % 100 == 0:
            yield _validation(iteration, now)
            path = f"checkpoints/step-{iteration:07d}"
            yield Kind.CHECKPOINT, now, {"iteration": iteration, "path": path, "bytes": 37_000_000, "seconds": 0.1}
    if life.test_loss is not None:
        test = {"loss": life.test_loss, "standard_error": 0.03, "examples": 20, "seconds": 1.0}
        yield Kind.TEST, now, {"iteration": life.last, **test}


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
