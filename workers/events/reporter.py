"""Writes trained iterations as progress events: one loss for each iteration, a line every few seconds. No mlx."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from jobs.model.events import MemoryReading, ProgressEvent
from workers.events.log import EventLog

SHORTEST_LINE_S = 0.25
"""Limits the lines of small, fast models; their losses are written with the next line."""

HEARTBEAT_S = 5.0


Rewards = tuple[float, float, float]
"""Of an iteration: the mean reward of the chosen answers, that of the rejected ones, and the accuracy, 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """One trained iteration."""

    loss: float  # nats per token
    tokens: int  # trained tokens
    seconds: float
    learning_rate: float
    grad_norm: float | None = None  # global norm of the last update's gradients
    rewards: Rewards | None = None  # of a preference objective
    lost: int = 0  # how many of the last iterations, with this one, belong to an update that was not applied


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingReport:
    """The incomplete report at a checkpoint; a resume completes it, so that report boundaries stay the same."""

    tokens: int  # trained since the start of the job
    losses: tuple[float, ...]  # of the iterations since the last line, in nats per token
    skipped: tuple[int, ...]  # iterations since the last line whose update was not applied
    rewards: tuple[Rewards, ...] = ()  # of the same iterations as the losses

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read the content of a checkpoint; JSON stores a non-finite loss as a string."""
        return cls(
            tokens=int(content["tokens"]),
            losses=tuple(float(loss) for loss in content["losses"]),
            skipped=tuple(int(iteration) for iteration in content["skipped"]),
            rewards=tuple((float(one), float(two), float(three)) for one, two, three in content.get("rewards", ())),
        )


class Reporter:
    """Collects iterations and writes them as progress events at report boundaries."""

    def __init__(self, events: EventLog, *, steps_per_report: int, memory: Callable[[], MemoryReading]) -> None:
        """Start at the beginning of a run; `restore` moves it to a checkpoint."""
        self._events = events
        self._every = steps_per_report
        self._memory = memory
        self._losses: list[float] = []
        self._rewards: list[Rewards] = []
        self._seconds = 0.0
        self._timed = 0  # iterations in the seconds above; iterations of an earlier attempt are not timed
        self._line_tokens = 0
        self._lost: list[int] = []  # iterations since the last line whose update was not applied
        self._last_line = float("-inf")
        self._learning_rate: float | None = None
        self._grad_norm: float | None = None  # of the last update
        self.iteration = 0  # completed iterations
        self.tokens = 0  # trained tokens since the start of the job

    def restore(self, iteration: int, pending: PendingReport) -> None:
        """Continue after `iteration` completed iterations, from what `pending` returned then."""
        self.iteration, self.tokens = iteration, pending.tokens
        self._losses, self._lost, self._rewards = list(pending.losses), list(pending.skipped), list(pending.rewards)

    def pending(self) -> PendingReport:
        """Return the state that a checkpoint must contain."""
        losses, skipped, rewards = tuple(self._losses), tuple(self._lost), tuple(self._rewards)
        return PendingReport(tokens=self.tokens, losses=losses, skipped=skipped, rewards=rewards)

    def count(self, trained: Trained) -> float:
        """Add an iteration, write a line if one is due, and return the mean of the present report's finite losses."""
        self.iteration += 1
        self.tokens += trained.tokens
        self._losses.append(trained.loss)
        self._rewards += [] if trained.rewards is None else [trained.rewards]
        self._learning_rate, self._grad_norm = trained.learning_rate, trained.grad_norm
        self._seconds += trained.seconds
        self._timed += 1
        self._line_tokens += trained.tokens
        self._lost += range(self.iteration - trained.lost + 1, self.iteration + 1)
        report = self._losses[-((self.iteration - 1) % self._every + 1) :]
        if self.iteration % self._every == 0 and time.monotonic() - self._last_line >= SHORTEST_LINE_S:
            self.flush()
        finite = [loss for loss in report if math.isfinite(loss)]
        return sum(finite) / len(finite) if finite else math.nan

    def flush(self) -> None:
        """Write the collected iterations, even if the report is incomplete."""
        if self._losses:
            self._write(self._losses)
            self._losses, self._seconds, self._timed, self._line_tokens, self._lost = [], 0.0, 0, 0, []
            self._rewards = []

    def beat(self) -> None:
        """Write a line without losses: the trainer runs, without a new iteration."""
        self._write([])

    def _write(self, losses: Sequence[float]) -> None:
        seconds = self._seconds if losses else 0.0
        measured = seconds > 0
        self._last_line = time.monotonic()
        self._events.append(
            ProgressEvent(
                iteration=self.iteration,
                losses=tuple(losses),
                **(_columns(self._rewards) if losses else {}),
                learning_rate=self._learning_rate,
                tokens=self.tokens,
                it_s=self._timed / seconds if measured else None,
                tok_s=self._line_tokens / seconds if measured else None,
                grad_norm=self._grad_norm,
                skipped=tuple(self._lost) if losses else (),
                memory=self._memory(),
            )
        )


def _columns(rewards: Sequence[Rewards]) -> dict[str, tuple[float, ...]]:
    """Return the rewards of iterations as fields of a progress event; none if the objective has no rewards."""
    names = ("chosen_rewards", "rejected_rewards", "accuracies")
    return dict(zip(names, zip(*rewards, strict=True), strict=False)) if rewards else {}
