"""What events become in the store: a pure fold from Events to rows. No SQL here; observations.py writes the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from jobs.model.events import Event, Kind, finite, number
from jobs.model.job import Incident

Row = dict[str, Any]

SNAPSHOT = "snapshot"
"""The kind of a validation that was asked for between two due ones."""


MEMORY = ("active", "cache", "peak", "footprint", "swap", "limit")
"""What a progress line tells of memory, in bytes."""


class Fold:
    """The rows and changes that a stretch of one job's events amounts to."""

    def __init__(self, job_id: int, *, seen: Mapping[int, int], steps_per_report: int) -> None:
        """Begin after what is known.

        Args:
            job_id: whose events.
            seen: for each attempt, by number, the seq of its last event that was taken.
            steps_per_report: iterations per report.
        """
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
        self.rewound: dict[int, int] = {}  # by number: the iteration from which it repeats earlier attempts
        self.reported_from: dict[int, int] = {}  # by number: the first iteration its reports cover

    def add(self, event: Event) -> None:
        """Take an event; one that was taken before changes nothing, one of a wrong shape becomes an incident."""
        last = self._seen.get(event.attempt)
        if last is None:
            self._unreadable(event, f"an event of attempt {event.attempt}, which the store does not know")
            return
        if event.seq <= last:
            return
        self._seen[event.attempt] = event.seq
        self._attempt(event)["last_seq"] = event.seq
        self.job["last_event_at"] = event.time
        try:
            self._TAKE[event.kind](self, event)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            self._unreadable(event, f"event {event.seq} of kind {event.kind} cannot be used: {error!r}")

    def _attempt(self, event: Event) -> Row:
        return self.attempts.setdefault(event.attempt, {})

    def _reached(self, event: Event) -> int:
        iteration = int(event.data["iteration"])
        self._attempt(event)["last_iteration"] = iteration
        self.job["iteration"] = iteration
        return iteration

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

    def _started(self, event: Event) -> None:
        data = event.data
        iteration = int(data["iteration"])
        self._attempt(event).update(
            first_iteration=iteration,
            resumed_from=_text(data.get("resumed_from")),
            quality=_text(data.get("resume_quality")),
            stage=_whole(data.get("stage")),
        )
        self.job["iteration"] = iteration
        self.rewound[event.attempt] = iteration
        if data.get("pid") is not None:
            self.children[event.attempt] = {
                "child_pid": int(data["pid"]),
                "child_create_time": float(data["create_time"]),
                "child_boot_id": str(data["boot_id"]),
            }

    def _phase(self, event: Event) -> None:
        self._attempt(event)["phase"] = str(event.data["phase"])

    def _progress(self, event: Event) -> None:
        iteration = self._reached(event)
        losses = [float(item) for item in event.data.get("losses") or ()]
        if event.data.get("it_s") is not None:
            self.job["it_s"] = number(event.data["it_s"])
        if not losses:
            return  # a heartbeat
        first = iteration - len(losses) + 1
        self.reported_from.setdefault(event.attempt, first)
        lost = [int(item) for item in event.data.get("skipped") or ()]
        new = [self._point(event, end, chunk, lost) for end, chunk in _reports(first, losses, self._every)]
        # these are true at the end of the line only; the rest was measured over the whole of it
        new[-1].update(tokens=_whole(event.data.get("tokens")), learning_rate=number(event.data.get("learning_rate")))
        self.points += new
        self.job["train_loss"] = new[-1]["train_loss"]

    def _point(self, event: Event, iteration: int, losses: list[float], lost: list[int]) -> Row:
        memory = event.data.get("memory") or {}
        # an iteration whose loss was not finite did not change the weights, so it says nothing about them
        telling = [loss for loss in losses if math.isfinite(loss)] or losses
        return {
            **self._seen_in(event, iteration),
            "train_loss": sum(telling) / len(telling),
            "skipped": sum(iteration - len(losses) < one <= iteration for one in lost),
            "learning_rate": None,
            "tokens": None,
            "it_s": number(event.data.get("it_s")),
            "tok_s": number(event.data.get("tok_s")),
            "grad_norm": number(event.data.get("grad_norm")),
            **{f"{name}_bytes": _whole(memory.get(name)) for name in MEMORY},
        }

    def _seen_in(self, event: Event, iteration: int) -> Row:
        return {"job_id": self._job_id, "attempt": event.attempt, "iteration": iteration, "time": event.time}

    def _validation(self, event: Event) -> None:
        data = event.data
        losses = data.get("row_losses")
        row = {
            **self._seen_in(event, int(data["iteration"])),
            # one that the loss guard asked for in a suspicion is no candidate: another run would not have it there
            "kind": SNAPSHOT if data.get("asked") else event.kind.value,
            "loss": float(data["loss"]),
            "standard_error": number(data.get("standard_error")),
            "examples": int(data["examples"]),
            "seconds": float(data["seconds"]),
            "row_losses": None if losses is None else finite(list(losses)),
        }
        self.validations.append(row)
        if row["kind"] == Kind.VALIDATION:
            self.job["val_loss"] = row["loss"]

    def _checkpoint(self, event: Event) -> None:
        data = event.data
        row = self._seen_in(event, int(data["iteration"]))
        row |= {"path": str(data["path"]), "size_bytes": int(data["bytes"]), "seconds": float(data["seconds"])}
        self.checkpoints.append(row)

    def _self_test(self, event: Event) -> None:
        data = event.data
        self._attempt(event)["self_test"] = finite(dict(data))
        if data["equal"] is False:
            text = (
                f"validation measured again after the resume: {data.get('measured')}, recorded: {data.get('recorded')}"
            )
            self._incident(event, "self_test", text, data)

    def _fact(self, event: Event) -> None:
        name = str(event.data["name"])
        self.facts[name] = {
            "job_id": self._job_id,
            "name": name,
            "attempt": event.attempt,
            "time": event.time,
            "value": finite(event.data["value"]),
        }

    def _warning(self, event: Event) -> None:
        data = event.data
        self._incident(event, str(data["code"]), str(data["text"]), dict(data.get("data") or {}))

    def _ended(self, event: Event) -> None:
        if event.data.get("iteration") is not None:
            self._reached(event)

    _TAKE: ClassVar[Mapping[Kind, Callable[[Fold, Event], None]]] = {
        Kind.STARTED: _started,
        Kind.PHASE: _phase,
        Kind.PROGRESS: _progress,
        Kind.VALIDATION: _validation,
        Kind.TEST: _validation,
        Kind.CHECKPOINT: _checkpoint,
        Kind.SELF_TEST: _self_test,
        Kind.FACT: _fact,
        Kind.WARNING: _warning,
        Kind.ENDED: _ended,
    }


def _reports(first: int, losses: list[float], every: int) -> Iterator[tuple[int, list[float]]]:
    """Split the losses of the iterations from `first` on at multiples of `every`: (last iteration, losses) each."""
    begin = 0
    while begin < len(losses):
        start = first + begin
        size = every - (start - 1) % every
        chunk = losses[begin : begin + size]
        yield start + len(chunk) - 1, chunk
        begin += size


def _whole(value: object) -> int | None:
    exact = number(value)
    return None if exact is None else int(exact)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
