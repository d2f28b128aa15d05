"""Runs with given series of losses and facts, runs with rollbacks, and the reference run."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import update

from jobs.model.events import Kind
from jobs.model.job import Incident
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan, to_json
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.store.schema import checkpoints, points, validations
from tests.unit.orchestrator.report_runs import START, WORKER, Run

MadeEvent = tuple[Kind, float, dict[str, Any]]

ROWS = 60
WEIGHTS = [100 + 7 * row for row in range(ROWS)]
"""Tokens of each validation row."""

FACTS: Mapping[str, Any] = {
    "dataset": {
        "max_seq_length": 2048,
        "padding_share": 0.123,
        "train": {
            "rows": 422,
            "tokens": 84_000,
            "supervised_tokens": 61_000,
            "truncated": 3,
            "truncated_tokens": 900,
            "shortest": 31,
            "median": 180.0,
            "p95": 420.5,
            "longest": 2950,
        },
        "valid": {"rows": ROWS, "tokens": 12_000},
        "test": {"rows": 0},
        "learned": {"valid": WEIGHTS, "test": []},
        "also_trained": {
            "valid": {
                "exact": 0,
                "measured": 0,
                "near": 2,
                "inside": 4,
                "examples": [{"row": 3, "train_row": 17, "share": 0.91}],
            },
            "test": {"exact": 0, "measured": 0, "near": 0, "inside": 4, "examples": []},
        },
    },
    "parameters": {
        "trained": 9_232_384,
        "total": 1_543_714_304,
        "targets": ["self_attn.q_proj", "mlp.up_proj"],
        "layers": 28,
    },
    "battery.before": [1.0, False],
    "battery.after": [0.42, False],
    "answer.before.0": {"prompt": "Q: LoRA?\nA:", "answer": "a | b", "iteration": 0, "max_tokens": 128},
    "answer.after.0": {"prompt": "Q: LoRA?\nA:", "answer": "Low\n\n<rank>.", "iteration": 500, "max_tokens": 128},
}


def validation(iteration: int, loss: float, *, noise: float = 0.02, rows: int = ROWS) -> dict[str, Any]:
    """Return a validation by row, whose weighted mean is about `loss`: rows differ much, their changes little."""
    chance = random.Random(iteration)  # noqa: S311 makes losses, guards nothing
    losses = [loss * (0.5 + row / max(rows - 1, 1)) + chance.gauss(0, noise) for row in range(rows)]
    weights = [WEIGHTS[row % ROWS] for row in range(rows)]
    mean = sum(weight * one for weight, one in zip(weights, losses, strict=True)) / sum(weights)
    return _measured(iteration, mean, 0.3 * loss / math.sqrt(rows), rows) | {"row_losses": losses}


def _measured(iteration: int, loss: float, error: float, rows: int) -> dict[str, Any]:
    return {"iteration": iteration, "loss": loss, "standard_error": error, "examples": rows, "seconds": 2.0}


def series(
    train: Mapping[int, float | str],
    measured: Mapping[int, dict[str, Any]],
    *,
    first: int = 0,
    begins: float = 0.0,
    it_s: float = 2.0,
    first_events: Sequence[MadeEvent] = (),
) -> Iterator[MadeEvent]:
    """Yield the events of one attempt.

    Args:
        train: loss of each report by its last iteration, in order.
        measured: what each validation measured, by iteration.
        first: iteration at which the attempt begins.
        begins: seconds after START.
        it_s: iterations per second.
        first_events: events right after the start.
    """
    begin = START + begins
    resumed = f"step-{first:07d}" if first else None
    quality = "exact" if first else "fresh"
    yield Kind.STARTED, begin, {"iteration": first, "resumed_from": resumed, "resume_quality": quality}
    yield from first_events
    if first == 0 and 0 in measured:
        yield Kind.VALIDATION, begin, measured[0]
    before = first
    for iteration, loss in train.items():
        now = begin + (iteration - first) / it_s
        yield Kind.PROGRESS, now, _progress(iteration, [loss] * (iteration - before), it_s)
        before = iteration
        if iteration in measured:
            yield Kind.VALIDATION, now, measured[iteration]
            path = f"checkpoints/step-{iteration:07d}"
            yield Kind.CHECKPOINT, now, {"iteration": iteration, "path": path, "bytes": 37_000_000, "seconds": 0.1}


def _progress(iteration: int, losses: list[float | str], it_s: float) -> dict[str, Any]:
    memory = {"active": 3.1e9, "cache": 2e8, "peak": 4.17e9, "footprint": 4.5e9, "limit": 5.8e9}
    return {
        "iteration": iteration,
        "losses": losses,
        "learning_rate": 2e-4,
        "tokens": iteration * 215,
        "it_s": it_s * (1.0 - 1e-5 * iteration),
        "tok_s": 180.0,
        "grad_norm": 1.0 + 0.2 * math.sin(iteration),
        "memory": memory | {"swap": 1e9 + 4e4 * iteration},
    }


def facts(now: float = START, **others: Any) -> list[MadeEvent]:
    """Return events with FACTS; `others` replace some of them."""
    return [(Kind.FACT, now, {"name": name, "value": value}) for name, value in {**FACTS, **others}.items()]


def played(home: Path, events: Callable[[Run], Iterator[MadeEvent]], **settings: Any) -> Run:
    """Return a run of one attempt that reached its end, published and settled."""
    run = Run(home, **settings)
    attempt = run.store.attempts.begin(run.id, owner=WORKER, now=START)
    made = list(events(run))
    run.ingest(attempt.number, iter(made))
    finish(run, attempt.id, made[-1][1] + 1)
    return run


def played_with_facts(home: Path, **settings: Any) -> Run:
    """Return a finished run of 600 iterations with FACTS and answers to one prompt."""
    train = {place: 2.0 - place / 1000 for place in range(10, 601, 10)}
    measured = {place: validation(place, 2.0 - place / 1000) for place in range(0, 601, 100)}
    lq = {"prompts": ["Q: LoRA?\nA:"], **settings.pop("lq", {})}
    return played(home, lambda _: series(train, measured, first_events=facts()), lq=lq, **settings)


def finish(run: Run, attempt: int, now: float) -> None:
    """End the last attempt and the job."""
    detail = "trained to its last iteration"
    ending = Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail=detail)
    run.store.attempts.end(attempt, ending=ending, exit_code=None, signal=None, now=now)
    run.publish()
    run.store.leases.settle(
        run.id, Decision(status=Status.SUCCEEDED, reason=Reason.COMPLETED, detail=detail), owner=WORKER, now=now
    )


# --- the reference run ---

TRAIN = {0: 2.972, 500: 0.150, 970: 0.150, 1000: 7.425, 1060: 8.519, 1500: 2.136, 2000: 0.381, 3000: 0.417}
TRAIN |= {5000: 0.155, 7000: 0.102, 10000: 0.085, 12000: 0.087, 14420: 0.078, 15000: 0.090}
VALID = {0: 2.950, 500: 0.167, 970: 0.167, 1000: 8.685, 1500: 2.367, 2000: 0.419, 3000: 0.457, 5000: 0.262}
VALID |= {7000: 0.181, 10000: 0.165, 12000: 0.208, 15000: 0.167}
SECONDS = 8.3 * 3600
RELATIVE_ERROR = 0.12
"""Of a loss on 53 rows; the report of the reference run gives none. Anything above 0.0122 gives the same verdict."""


def reference(home: Path) -> Run:
    """Return the reference run, interpolated between the losses of its table."""

    def at(table: Mapping[int, float], iteration: int) -> float:
        return float(np.interp(iteration, list(table), list(table.values())))

    def events(_: Run) -> Iterator[MadeEvent]:
        train = {iteration: at(TRAIN, iteration) for iteration in range(10, 15_001, 10)}
        losses = {iteration: at(VALID, iteration) for iteration in range(0, 15_001, 100)}
        measured = {place: _measured(place, loss, RELATIVE_ERROR * loss, 53) for place, loss in losses.items()}
        return series(train, measured, it_s=15_000 / SECONDS)

    return played(
        home,
        events,
        iters=15_000,
        learning_rate=2e-4,
        batch_size=4,
        grad_accumulation_steps=32,
        steps_per_eval=100,
        save_every=500,
        lq={"name": "reference"},
    )


# --- a run with rollbacks ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollback:
    """A rollback."""

    first: int  # iteration at which the attempt began
    last: int  # and at which it was stopped
    to: int  # and to which the run went back


ROLLBACKS = (Rollback(first=0, last=1030, to=600), Rollback(first=600, last=1260, to=900))


def rolled_back(home: Path, backs: Sequence[Rollback] = ROLLBACKS, iters: int = 2400) -> Run:
    """Return a run whose loss spiked once for each of `backs`, each followed by a rollback, and that then succeeded."""
    run = Run(home, iters=iters, lq={"name": "went back"})
    begins, first = 0.0, 0
    for number, back in enumerate(backs, start=1):
        attempt = run.store.attempts.begin(run.id, owner=WORKER, now=START + begins)
        first_events = facts(START) if number == 1 else [_autopsy(backs[number - 2], START + begins)]
        run.ingest(attempt.number, _stretch(back.first, back.last, begins, first_events, spike=True))
        begins += (back.last - back.first) / 2.0 + 2
        _go_back(run, attempt.id, number, back, START + begins)
        begins, first = begins + 2, back.to
    attempt = run.store.attempts.begin(run.id, owner=WORKER, now=START + begins)
    run.ingest(attempt.number, _stretch(first, iters, begins, [_autopsy(backs[-1], START + begins)], spike=False))
    _write_run_plan(run, backs)
    finish(run, attempt.id, START + begins + (iters - first) / 2.0 + 1)
    return run


def _stretch(
    first: int, last: int, begins: float, first_events: Sequence[MadeEvent], *, spike: bool
) -> Iterator[MadeEvent]:
    def loss(iteration: int) -> float:
        rise = max(0, iteration - (last - 60)) / 60 * 7 if spike else 0.0
        return 2.6 * math.exp(-iteration / 300) + 0.6 + 0.05 * math.sin(iteration) + rise

    train: dict[int, float | str] = {iteration: loss(iteration) for iteration in range(first + 10, last + 1, 10)}
    calm = last - 60 if spike else last
    measured = {
        place: validation(place, 2.6 * math.exp(-place / 300) + 0.7)
        for place in range(first, calm + 1, 100)
        if place == 0 or place > first
    }
    return series(train, measured, first=first, begins=begins, first_events=first_events)


def _go_back(run: Run, attempt: int, number: int, back: Rollback, now: float) -> None:
    detail = f"loss 7.634 at iteration {back.last:,}: 62.0 standard deviations above the median 0.812"
    ending = Ending(outcome=Outcome.CRASHED, reason=Reason.SPIKE, detail=detail)
    run.store.attempts.end(attempt, ending=ending, exit_code=None, signal=None, now=now)
    answer = f"went back to iteration {back.to:,} (rollback {number} of 3); gradients clipped to 1"
    seen = {"iteration": back.last, "first_flag": back.last - 50, "loss": 7.634, "back_to": back.to, "rollback": number}
    incident = Incident(
        job_id=run.id, attempt=number, time=now, code="spike", text=detail, evidence=seen | {"action": answer}
    )
    decision = Decision(status=Status.WAITING, reason=Reason.SPIKE, detail=detail, not_before=now)
    run.store.leases.settle(run.id, decision, owner=WORKER, now=now, incidents=[incident])
    with run.store.database.writing() as db:
        for table in (points, validations, checkpoints):
            db.execute(update(table).where(table.c.iteration > back.to).values(superseded=True))
    assert run.store.leases.claim(WORKER, now + 1) is not None


def _autopsy(back: Rollback, now: float) -> MadeEvent:
    flag = back.last - 50
    rows = [{"line": f"train.jsonl:{flag + place}", "loss": 9.1 - place} for place in range(3)]
    text = f"the 96 rows around iteration {flag:,}, by their own loss at iteration {back.to:,}"
    return Kind.WARNING, now + 1, {"code": "autopsy", "text": text, "data": {"first_flag": flag, "rows": rows}}


def _write_run_plan(run: Run, backs: Sequence[Rollback]) -> None:
    run_plan = RunPlan.requested(run.spec)
    for number, back in enumerate(backs, start=1):
        stage = dataclasses.replace(
            run_plan.stages[-1],
            first_example=back.to * run.spec.batch_size,
            salt=number,
            learning_rate_factor=0.5 ** (number - 1),
            because=f"spike at iteration {back.last}",
        )
        run_plan = RunPlan(stages=(*run_plan.stages, stage))
    (run.folder / "run_plan.json").write_text(json.dumps(to_json(run_plan)))
