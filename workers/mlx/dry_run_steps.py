"""The steps of a dry run: everything a run does, a few times, measured. No mlx of its own.

The timed updates are real ones, on batches as wide as the run's mean batch. The first update compiles the step; the
later ones have the same shapes and do not.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jobs.model.events import PhaseEvent
from workers.checkpoints import storage
from workers.data.batches import Rows, padded_length
from workers.data.dataset_facts import MAX_BATCHES
from workers.mlx.context import RunContext
from workers.mlx.objectives import Batch
from workers.mlx.run import RunParts

MIN_UPDATES, MAX_UPDATES = 2, 32
MIN_UPDATES_S = 2.0
"""Updates are repeated until they took this long together, because a single quick one is no measurement."""

VALIDATION_S = 1.0
MAX_EXAMINED = 3
"""Batches with a non-finite loss whose rows are measured."""


Shapes = tuple[tuple[int, int], ...]
"""Rows and padded length of each micro-batch."""


class DryRun:
    """Tries a run at a position, without continuing it."""

    def __init__(self, context: RunContext, parts: RunParts) -> None:
        self._context, self._parts = context, parts
        parts.trainer.enter_stage()
        self._stage = context.stage
        self._start = context.iteration
        self._seconds: list[float] = []  # of each iteration
        self._not_finite: dict[int, float] = {}  # loss by position, of iterations whose update was dropped

    def run(self, *, saves: bool) -> None:
        """Try the longest batch, some updates, a validation and, if it `saves`, a checkpoint; report what they took."""
        parts = self._parts
        parts.diagnostics.report_dataset()
        parts.trainer.probe()
        tried = self._try_updates() | self._try_validation()
        if saves:
            tried["checkpoint"] = self._try_checkpoint()
        parts.diagnostics.report_fact("dry_run", tried)

    # --- updates ---

    def _try_updates(self) -> dict[str, Any]:
        """Train some updates and return what they took."""
        order, train = self._parts.data.order, self._parts.data.train
        accumulation = self._context.spec.grad_accumulation_steps
        candidates = range(self._start, self._start + min(order.batches_per_epoch, MAX_BATCHES))
        shapes = {position: self._shapes(train, order.rows(position)) for position in candidates}
        mean = statistics.fmean(_padded_tokens(shape) for shape in shapes.values())
        nearest = min(candidates, key=lambda position: abs(_padded_tokens(shapes[position]) - mean))
        alike = [position for position in candidates if shapes[position] == shapes[nearest]]
        iterations = MAX_UPDATES * accumulation
        self._parts.trainer.train(self._batches(alike, iterations), iterations=iterations)
        self._context.reporter.flush()
        by_update = [
            sum(self._seconds[start : start + accumulation]) for start in range(0, len(self._seconds), accumulation)
        ]
        return {
            "iteration": self._start,
            "reference_s": self._parts.reference_s,
            "updates": len(by_update),
            "accumulation": accumulation,
            "first_update_s": by_update[0],
            "update_s": statistics.median(by_update[1:]),
            "positions": _padded_tokens(shapes[nearest]),
            "mean_positions": mean,
            "batches_per_epoch": order.batches_per_epoch,
            "rows": len(train),
            "supervised": len(train.supervised(self._stage.max_seq_length)),
            "not_finite": [self._blame(*item) for item in list(self._not_finite.items())[:MAX_EXAMINED]],
        }

    def _batches(self, positions: Sequence[int], iterations: int) -> Iterator[Batch]:
        """Yield the batches at these positions, over and over, until enough updates are timed."""
        accumulation = self._context.spec.grad_accumulation_steps
        for position in itertools.islice(itertools.cycle(positions), iterations):
            began = time.monotonic()
            trained = yield from self._parts.trainer.iteration(position)
            self._context.reporter.count(trained)
            self._seconds.append(time.monotonic() - began)
            if trained.lost or not math.isfinite(trained.loss):
                self._not_finite[position] = trained.loss
            updates, unfinished = divmod(len(self._seconds), accumulation)
            enough = sum(self._seconds[accumulation:]) >= MIN_UPDATES_S
            if not unfinished and updates >= MIN_UPDATES and enough:
                return

    def _shapes(self, rows: Rows, chosen: Sequence[int]) -> Shapes:
        """Return the shapes of the micro-batches of the chosen rows."""
        size, limit = self._stage.batch_size, self._stage.max_seq_length
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        lengths = [max(rows.lengths[row] for row in batch) for batch in batches]
        return tuple(
            (rows.width * len(batch), padded_length(longest, limit))
            for batch, longest in zip(batches, lengths, strict=True)
        )

    def _blame(self, position: int, loss: float) -> str:
        """Name the rows that make the loss of a batch non-finite."""
        ranked = self._parts.diagnostics.rank(self._parts.data.order.rows(position))
        culprits = [row.line for row in ranked if not math.isfinite(row.loss)]
        if not culprits:
            return f"the loss of a batch is {loss:g}, but the loss of every row in it is finite"
        if len(culprits) == len(ranked):
            return f"the loss of a batch is {loss:g}, and so is that of every row in it; the first is {culprits[0]}"
        return f"the loss of a batch is {loss:g}; by itself not finite: {', '.join(culprits)}"

    # --- validation and checkpoint ---

    def _try_validation(self) -> dict[str, Any]:
        """Measure some validation batches, and estimate the time of the whole set."""
        spec, data = self._context.spec, self._parts.data
        self._context.events.append(PhaseEvent(phase="validate"))
        examples = data.examples(data.valid, spec.val_batches)
        validation_s, loss = self._try_measuring(data.valid, examples)
        test_s, _ = self._try_measuring(data.test, data.examples(data.test, spec.test_batches) if spec.test else 0)
        return {
            "validation_s": validation_s,
            "validation_loss": loss,
            "validation_rows": examples,
            "test_s": test_s,
        }

    def _try_measuring(self, rows: Rows, examples: int) -> tuple[float | None, float | None]:
        """Return the seconds that measuring the first `examples` rows takes, and the loss of the measured ones."""
        if not examples:
            return None, None
        size, measure = self._stage.batch_size, self._parts.evaluator.measure
        first = measure(rows, range(min(size, examples)))  # compiles
        count = min(examples, size * max(1, int(VALIDATION_S / max(first.seconds, 1e-6))))
        measured = measure(rows, range(count))
        whole, part = (_padded_tokens(self._shapes(rows, range(size))) for size in (examples, count))
        return measured.seconds * whole / part, measured.loss

    def _try_checkpoint(self) -> dict[str, Any]:
        began = time.monotonic()
        self._parts.checkpoints.write()
        seconds = time.monotonic() - began
        (written,) = storage.listed(self._context.job_dir.checkpoints)
        storage.verify(written)
        return {"bytes": sum(path.stat().st_size for path in written.path.iterdir()), "seconds": seconds}


def _padded_tokens(shapes: Shapes) -> int:
    return sum(rows * length for rows, length in shapes)
