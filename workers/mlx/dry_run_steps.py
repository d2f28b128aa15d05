"""Everything a run does, a few times, measured: whether it fits and how fast it is. No mlx of its own.

The updates that are timed are real ones, of batches as wide as the run's mean one: the first update compiles, the
later ones have the same shapes and do not.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jobs.model.events import Kind
from workers.checkpoints import storage
from workers.data.batches import Rows, padded_length
from workers.data.dataset_facts import MOST_BATCHES, dataset_facts
from workers.mlx.run import TrainingRun

LEAST_UPDATES, MOST_UPDATES = 2, 32
ENOUGH_S = 2.0
"""Quick updates are tried again until they took so long together: one alone says little."""

VALIDATION_S = 1.0
MOST_TOLD = 3
"""Batches whose loss is not finite, of which the rows are looked at."""


class Rehearsal(TrainingRun):
    """A run taken up somewhere, without going on with it."""

    def rehearse(self, at: int, *, saves: bool) -> None:
        """Load, try the longest batch, some updates, a validation and a checkpoint, and tell what they took.

        Args:
            at: iterations the run has completed; says which stage holds.
            saves: write a checkpoint, and read it again.
        """
        self.stage = self.run_plan.stages[self._index_at(at)]
        with self.requests.nothing_to_lose():
            self._load_model()
            self._load_rows()
            self._prepare_training(fresh=at == 0)
            self.reporter.iteration = at
            self._begin_stage()
            data = dataset_facts(self.train_rows, self.valid_rows, self.test_rows, self.order, self.stage)
            self._tell_fact("dataset", data)
            self._probe()
            tried = self._try_updates(at)
            tried |= self._try_validation()
            if saves:
                tried["checkpoint"] = self._try_checkpoint()
            self._tell_fact("rehearsal", tried)

    # --- updates ---

    def _try_updates(self, at: int) -> dict[str, Any]:
        """Train some updates through MLX-LM's train(), and return what they took."""
        places = range(at, at + min(self.order.batches_per_epoch, MOST_BATCHES))
        mean = statistics.fmean(self._positions_at(place) for place in places)
        nearest = min(places, key=lambda place: abs(self._positions_at(place) - mean))
        self._alike = [place for place in places if self._shapes_at(place) == self._shapes_at(nearest)]
        self._seconds: list[float] = []
        self._lost: dict[int, float] = {}  # by position: the loss of an update that was not applied
        accumulation = self.spec.grad_accumulation_steps
        self._train_until(self.reporter.iteration + MOST_UPDATES * accumulation)
        self.reporter.flush()
        by_update = [
            sum(self._seconds[start : start + accumulation]) for start in range(0, len(self._seconds), accumulation)
        ]
        return {
            "iteration": at,
            "updates": len(by_update),
            "accumulation": accumulation,
            "first_update_s": by_update[0],
            "update_s": statistics.median(by_update[1:]),
            "positions": self._positions_at(nearest),
            "mean_positions": mean,
            "batches_per_epoch": self.order.batches_per_epoch,
            "rows": len(self.train_rows),
            "supervised": len(self.train_rows.supervised(self.stage.max_seq_length)),
            "not_finite": [self._told(place, loss) for place, loss in list(self._lost.items())[:MOST_TOLD]],
        }

    def _batches(self, end: int) -> Iterator[Any]:
        """Yield batches as wide as the mean one, until enough updates are timed; train() drives this."""
        accumulation = self.spec.grad_accumulation_steps
        for place in itertools.islice(itertools.cycle(self._alike), end - self.reporter.iteration):
            began = time.monotonic()
            yield from self._iteration(place)
            self._seconds.append(time.monotonic() - began)
            if self._not_finite is not None:
                self._lost[place] = self._not_finite
            made, unfinished = divmod(len(self._seconds), accumulation)
            enough = sum(self._seconds[accumulation:]) >= ENOUGH_S
            if not unfinished and made >= LEAST_UPDATES and enough:
                return

    def _shapes_at(self, place: int) -> tuple[tuple[int, int], ...]:
        """Return rows and width of each micro-batch of an iteration."""
        rows, size = self.order.rows(place), self.stage.batch_size
        cut = [rows[start : start + size] for start in range(0, len(rows), size)]
        return tuple((len(micro), self._width(self.train_rows, micro)) for micro in cut)

    def _positions_at(self, place: int) -> int:
        return sum(count * wide for count, wide in self._shapes_at(place))

    def _width(self, rows: Rows, chosen: Sequence[int]) -> int:
        return padded_length(max(len(rows.tokens[row]) for row in chosen), self.stage.max_seq_length)

    def _told(self, place: int, loss: float) -> str:
        """Say which rows of a batch are to blame, as a run would."""
        alone = self._ranked(self.order.rows(place))
        guilty = [str(one["line"]) for one in alone if not math.isfinite(one["loss"])]
        if not guilty:
            return f"the loss of a batch is {loss:g}, of no single row in it"
        if len(guilty) == len(alone):
            return f"the loss of a batch is {loss:g}, and of every row in it: the first is {guilty[0]}"
        return f"the loss of a batch is {loss:g}; by itself not finite: {', '.join(guilty)}"

    # --- validation and checkpoint ---

    def _try_validation(self) -> dict[str, Any]:
        """Measure some validation batches, and say what the whole set takes."""
        self.events.append(Kind.PHASE, phase="validate")
        examples = self._examples(self.valid_rows, self.spec.val_batches)
        tests = self._examples(self.test_rows, self.spec.test_batches) if self.spec.test else 0
        validation, test = self._tried(self.valid_rows, examples), self._tried(self.test_rows, tests)
        return {
            "validation_s": validation[0],
            "validation_loss": validation[1],
            "validation_rows": examples,
            "test_s": test[0],
        }

    def _tried(self, rows: Rows, examples: int) -> tuple[float | None, float | None]:
        """Return what measuring so many rows takes, in seconds, and the loss of those that were measured for it."""
        if not examples:
            return None, None
        size = self.stage.batch_size
        first = self._measure(rows, range(min(size, examples)))  # compiles
        count = min(examples, size * max(1, int(VALIDATION_S / max(first.seconds, 1e-6))))
        again = self._measure(rows, range(count))
        return again.seconds * self._positions(rows, examples) / self._positions(rows, count), again.loss

    def _positions(self, rows: Rows, examples: int) -> int:
        """Return the padded tokens of the first so many rows, in batches of their order."""
        size = self.stage.batch_size
        cut = [range(start, min(start + size, examples)) for start in range(0, examples, size)]
        return sum(len(batch) * self._width(rows, batch) for batch in cut)

    def _try_checkpoint(self) -> dict[str, Any]:
        began = time.monotonic()
        self._save(self.reporter.iteration)
        seconds = time.monotonic() - began
        (written,) = storage.listed(self.job_dir.checkpoints)
        storage.verify(written)
        return {"bytes": sum(path.stat().st_size for path in written.path.iterdir()), "seconds": seconds}
