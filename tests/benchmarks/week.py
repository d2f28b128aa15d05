"""`python -m tests.benchmarks.week`: memory of the event processing of a worker over a week of events.

The lines of each hour are appended to events.jsonl and processed as in the worker: into the store, the AttemptHealth
and the loss guard. Prints a JSON list: resident memory in MB at the start and after each day.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from jobs.model.events import Event, Kind, to_line
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies.attempt_health import AttemptHealth
from orchestrator.store.store import Store
from orchestrator.worker.ingest import ingest
from orchestrator.worker.loss_guard import LossGuard
from tests.unit.orchestrator.report_runs import WORKER

HOUR_S, DAY_H = 3600, 24
ITERATIONS = 10
"""Iterations per second; each second is one line and one report."""
VALIDATED_S, ROWS = 600, 200


def main() -> int:
    """Process the events and print the memory."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.week", description=__doc__)
    parser.add_argument("--days", type=int, default=7)
    days = parser.parse_args().days
    with tempfile.TemporaryDirectory(prefix="lq-week-") as scratch:
        print(json.dumps(list(_memory_by_day(Path(scratch), days))))  # noqa: T201 the output
    return 0


def _memory_by_day(home: Path, days: int) -> Iterator[float]:
    spec = JobSpec(
        model="/models/tiny",
        data="/data/qa",
        iters=days * DAY_H * HOUR_S * ITERATIONS,
        steps_per_report=ITERATIONS,
        lq={"early_stop": {"patience": 10**6}},
    )
    with Store.open(home / "lq.db") as store:
        text = spec.model_dump_json()
        store.jobs.submit(name="week", priority=0, iters=spec.iters, spec_json=text, prepare=lambda _: home, now=0.0)
        job = store.leases.claim(WORKER, 0.0)
        assert job is not None
        attempt = store.attempts.begin(job.id, owner=WORKER, now=0.0)
        health = AttemptHealth(attempt.number, spec)
        losses = LossGuard(store, job, spec, RunPlan.requested(spec), train_rows=None)
        lines = _lines()
        path, process = home / "events.jsonl", psutil.Process()
        for hour in range(days * DAY_H + 1):
            if hour % DAY_H == 0:
                yield process.memory_info().rss / 1e6
            with path.open("ab") as file:
                file.writelines(next(lines) for _ in range(HOUR_S))
            events = ingest(store, job.id, path, spec.steps_per_report, now=0.0)
            health.take(events)
            losses.look(events)
            assert health.trained
            assert losses.conclusion is None


def _lines() -> Iterator[bytes]:
    """Yield one line per second."""
    noise, seq, second = random.Random(0), 0, 0  # noqa: S311 the same losses every time
    while True:
        second += 1
        iteration = second * ITERATIONS
        events: list[tuple[Kind, dict[str, Any]]] = [(Kind.PROGRESS, _progress(iteration, noise))]
        if second % VALIDATED_S == 0:
            events.append((Kind.VALIDATION, _validation(iteration, noise)))
        text = b""
        for kind, data in events:
            seq += 1
            event = Event(seq=seq, time=float(second), awake=float(second), attempt=1, kind=kind, data=data)
            text += to_line(event)
        yield text


def _level(iteration: int) -> float:
    return 1.0 + math.exp(-iteration / 1e5)


def _progress(iteration: int, noise: random.Random) -> dict[str, Any]:
    memory = {"active": 3_100_000_000, "cache": 2, "peak": 4_170_000_000, "footprint": 4, "limit": 5, "swap": 6}
    losses = [_level(iteration) + noise.gauss(0, 0.05) for _ in range(ITERATIONS)]
    more = {"learning_rate": 1e-4, "tokens": iteration * 50, "it_s": 10.0, "tok_s": 500.0, "grad_norm": 1.0}
    return {"iteration": iteration, "losses": losses, "memory": memory | {"limit": 5_800_000_000}, **more}


def _validation(iteration: int, noise: random.Random) -> dict[str, Any]:
    rows = [_level(iteration) + noise.gauss(0, 0.3) for _ in range(ROWS)]
    loss = sum(rows) / ROWS
    more = {"loss": loss, "standard_error": 0.3 / math.sqrt(ROWS), "examples": ROWS, "seconds": 2.0}
    return {"iteration": iteration, "row_losses": rows, **more}


if __name__ == "__main__":
    raise SystemExit(main())
