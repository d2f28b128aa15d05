"""What a sequence of events changes in the store, as rows. A pure function; events.py writes the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.model.errors import EventInvalid
from jobs.model.events import (
    CheckpointEvent,
    EndedEvent,
    Event,
    FactEvent,
    Kind,
    MeasuredEvent,
    PhaseEvent,
    ProgressEvent,
    SelfTestEvent,
    StartedEvent,
    ValidationEvent,
    WarningEvent,
    finite,
)
from jobs.model.job import Incident

Row = dict[str, Any]

SNAPSHOT = "snapshot"
"""The kind of a validation that the loss guard requested between two scheduled ones."""

MEMORY = ("active", "cache", "peak", "footprint", "swap", "limit")
"""The fields of a MemoryReading that a progress point has, in bytes."""


class Fold:
    """The rows and changes that events of one job cause. `seen`: by attempt, the seq of its last event in the store."""

    def __init__(self, job_id: int, *, seen: Mapping[int, int], steps_per_report: int) -> None:
        self._job_id = job_id
        self._seen = dict(seen)
        self._every = steps_per_report
        self.points: list[Row] = []
        self.validations: list[Row] = []
        self.checkpoints: list[Row] = []
        self.incidents: list[Incident] = []
        self.facts: dict[str, Row] = {}  # by name
        self.job: Row = {}  # columns to set
        self.attempts: dict[int, Row] = {}  # columns to set, by number
        self.children: dict[int, Row] = {}  # identity columns, by number
        self.rewound: dict[int, int] = {}  # by number: the iteration after which it repeats earlier attempts
        self.reported_from: dict[int, int] = {}  # by number: the first iteration of its reports

    def add(self, event: Event) -> None:
        """Add an event, unless the store has it. An event of a wrong shape becomes an incident."""
        last = self._seen.get(event.attempt)
        if last is None:
            self._unreadable(event, f"an event of attempt {event.attempt}, which the store does not have")
            return
        if event.seq <= last:
            return
        self._seen[event.attempt] = event.seq
        self._attempt(event)["last_seq"] = event.seq
        self.job["last_event_at"] = event.time
        try:
            self._add_value(event)
        except EventInvalid as error:
            self._unreadable(event, str(error))

    def _add_value(self, event: Event) -> None:
        match event.value:
            case StartedEvent() as started:
                self._started(event, started)
            case PhaseEvent(phase=phase):
                self._attempt(event)["phase"] = phase
            case ProgressEvent() as progress:
                self._progress(event, progress)
            case MeasuredEvent() as measured:
                self._measured(event, measured)
            case CheckpointEvent() as checkpoint:
                self._checkpoint(event, checkpoint)
            case SelfTestEvent() as self_test:
                self._self_test(event, self_test)
            case FactEvent(name=name, value=value):
                row = {"job_id": self._job_id, "name": name, "attempt": event.attempt, "time": event.time}
                self.facts[name] = row | {"value": finite(value)}
            case WarningEvent(code=code, text=text, data=data):
                self._incident(event, code, text, data or {})
            case EndedEvent(iteration=int(iteration)):
                self._reached(event, iteration)

    def _attempt(self, event: Event) -> Row:
        return self.attempts.setdefault(event.attempt, {})

    def _reached(self, event: Event, iteration: int) -> None:
        self._attempt(event)["last_iteration"] = iteration
        self.job["iteration"] = iteration

    def _unreadable(self, event: Event, text: str) -> None:
        self._incident(event, "events_unreadable", text, {"seq": event.seq, "kind": event.kind.value})

    def _incident(self, event: Event, code: str, text: str, evidence: Mapping[str, Any]) -> None:
        self.incidents.append(
            Incident(
                job_id=self._job_id,
                attempt=event.attempt if event.attempt in self._seen else None,
                time=event.time,
                code=code,
                text=text,
                evidence=evidence,
            )
        )

    def _started(self, event: Event, started: StartedEvent) -> None:
        self._attempt(event).update(
            first_iteration=started.iteration,
            resumed_from=started.resumed_from,
            quality=started.resume_quality,
            stage=started.stage,
        )
        self.job["iteration"] = started.iteration
        self.rewound[event.attempt] = started.iteration
        if started.pid is not None:
            self.children[event.attempt] = {
                "child_pid": started.pid,
                "child_create_time": started.create_time,
                "child_boot_id": started.boot_id,
            }

    def _progress(self, event: Event, progress: ProgressEvent) -> None:
        self._reached(event, progress.iteration)
        if progress.it_s is not None:
            self.job["it_s"] = progress.it_s
        if not progress.losses:
            return
        first = progress.iteration - len(progress.losses) + 1
        self.reported_from.setdefault(event.attempt, first)
        new = []
        for begin, end in _reports(first, len(progress.losses), self._every):
            new.append(self._point(event, progress, first + end - 1, slice(begin, end)))
        # these are values at the end of the line; the others are means over the whole line
        new[-1].update(tokens=progress.tokens, learning_rate=progress.learning_rate)
        self.points += new
        self.job["train_loss"] = new[-1]["train_loss"]

    def _point(self, event: Event, progress: ProgressEvent, iteration: int, part: slice) -> Row:
        losses = progress.losses[part]
        # an iteration with a non-finite loss did not change the weights, so the mean omits it
        finite_losses = [loss for loss in losses if math.isfinite(loss)] or losses
        return {
            **self._metric(event, iteration),
            "train_loss": sum(finite_losses) / len(finite_losses),
            "skipped": sum(iteration - len(losses) < skipped <= iteration for skipped in progress.skipped),
            "learning_rate": None,
            "tokens": None,
            "it_s": progress.it_s,
            "tok_s": progress.tok_s,
            "grad_norm": progress.grad_norm,
            "chosen_reward": _mean_of(progress.chosen_rewards, part),
            "rejected_reward": _mean_of(progress.rejected_rewards, part),
            "accuracy": _mean_of(progress.accuracies, part),
            **{f"{name}_bytes": getattr(progress.memory, name) for name in MEMORY},
        }

    def _metric(self, event: Event, iteration: int) -> Row:
        return {"job_id": self._job_id, "attempt": event.attempt, "iteration": iteration, "time": event.time}

    def _measured(self, event: Event, measured: MeasuredEvent) -> None:
        # a validation at the request of the loss guard cannot be the best: another run does not have it
        asked = isinstance(measured, ValidationEvent) and measured.asked
        row = {
            **self._metric(event, measured.iteration),
            "kind": SNAPSHOT if asked else event.kind.value,
            "loss": measured.loss,
            "standard_error": measured.standard_error,
            "examples": measured.examples,
            "seconds": measured.seconds,
            "row_losses": finite(measured.row_losses),
            "rewards": None if measured.rewards is None else finite(measured.rewards.to_data()),
        }
        self.validations.append(row)
        if row["kind"] == Kind.VALIDATION:
            self.job["val_loss"] = measured.loss

    def _checkpoint(self, event: Event, checkpoint: CheckpointEvent) -> None:
        row = self._metric(event, checkpoint.iteration)
        row |= {"path": checkpoint.path, "size_bytes": checkpoint.bytes, "seconds": checkpoint.seconds}
        self.checkpoints.append(row)

    def _self_test(self, event: Event, self_test: SelfTestEvent) -> None:
        self._attempt(event)["self_test"] = finite(dict(event.data))
        if not self_test.equal:
            text = f"validation measured again after the resume: {self_test.measured}, recorded: {self_test.recorded}"
            self._incident(event, "self_test", text, event.data)


def _reports(first: int, count: int, every: int) -> Iterator[tuple[int, int]]:
    """Split `count` iterations, of which `first` is the first one, at multiples of `every`: (begin, end) each."""
    begin = 0
    while begin < count:
        end = min(count, begin + every - (first + begin - 1) % every)
        yield begin, end
        begin = end


def _mean_of(values: Sequence[float] | None, part: slice) -> float | None:
    """Return the mean of the finite values of some iterations; None if there are none."""
    known = [value for value in (values or ())[part] if math.isfinite(value)]
    return sum(known) / len(known) if known else None
