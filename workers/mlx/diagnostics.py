"""Facts for the report, and the rows to blame for a loss that is not finite or spikes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from jobs.model.events import FactEvent, WarningEvent
from jobs.model.outcomes import Reason
from jobs.model.run_plan import RunPlan
from workers.data.dataset_facts import dataset_facts
from workers.mlx.context import RunContext
from workers.mlx.data import TrainingData, line_of
from workers.mlx.evaluate import Evaluator

MAX_EXAMINED = 20
"""Non-finite iterations per attempt whose rows are measured; later ones are only counted."""

AUTOPSY_ROWS, AUTOPSY_REPORTED = 256, 20
"""Rows around a spike that are measured again, and how many of them are reported."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLoss:
    """The loss of one training row under the present weights."""

    row: int  # index, from 0
    line: str  # file and line, from 1
    loss: float  # nats per token


class Diagnostics:
    """Examines rows, and reports facts that only the trainer can read."""

    def __init__(self, context: RunContext, data: TrainingData, evaluator: Evaluator) -> None:
        self._context, self._data, self._evaluator = context, data, evaluator
        self._examined = 0

    def report_fact(self, name: str, value: Any) -> None:
        """Report a fact, unless it is None."""
        if value is not None:
            self._context.events.append(FactEvent(name=name, value=value))

    def report_dataset(self) -> None:
        """Report rows, lengths, padding and duplicates of the data sets."""
        data, spec = self._data, self._context.spec
        others = {"valid": data.valid, "test": data.test}
        batches = {"valid": spec.val_batches, "test": spec.test_batches}
        measured = {name: data.examples(rows, batches[name]) for name, rows in others.items()}
        facts = dataset_facts(data.train, others, measured, data.order, self._context.stage)
        self.report_fact("dataset", facts)

    def report_not_finite(self, loss: float) -> None:
        """Report which rows make the loss of the last iteration non-finite by themselves."""
        self._examined += 1
        if self._examined > MAX_EXAMINED:
            return
        iteration = self._context.iteration
        rows = self._data.order.rows(iteration - 1)
        ranked = self.rank(rows)
        finite = self._weights_are_finite(rows)
        culprits = [row for row in ranked if not math.isfinite(row.loss)] if finite else []
        lines = ", ".join(row.line for row in culprits) or "no single row"
        why = f"by itself not finite: {lines}" if finite else "every row gives that under these weights"
        self._context.events.append(
            WarningEvent(
                code="not_applied",
                text=f"iteration {iteration:,}: the loss is {loss:g}, so the update is not applied; {why}",
                data={
                    "iteration": iteration,
                    "loss": loss,
                    "rows": [dataclasses.asdict(row) for row in culprits],
                    "weights_finite": finite,
                },
            )
        )

    def _weights_are_finite(self, suspects: Sequence[int]) -> bool:
        """Return whether the weights give finite losses on rows that are not suspects."""
        if len(self._data.valid):
            measured = self._evaluator.measure(self._data.valid, range(self._data.examples(self._data.valid, 1)))
        else:
            others = [row for row in self._data.order.pool if row not in set(suspects)]
            measured = self._evaluator.measure(self._data.train, others[: self._context.spec.batch_size])
        return any(math.isfinite(loss) for loss in measured.row_losses)

    def rank(self, rows: Sequence[int]) -> list[RowLoss]:
        """Return training rows with their losses under the present weights, the highest loss first."""
        measured = self._evaluator.measure(self._data.train, rows)
        losses = [
            RowLoss(row=row, line=line_of(self._context.spec, row), loss=loss)
            for row, loss in zip(rows, measured.row_losses, strict=True)
        ]
        return sorted(losses, key=lambda row: row.loss if math.isfinite(row.loss) else math.inf, reverse=True)

    def autopsy(self) -> None:
        """At the start of a rollback, rank the rows around the first flag by their loss under the healthy weights."""
        stage = self._context.stage
        by_rows = stage.rollback and not stage.because.startswith(Reason.NO_GRADIENT)
        if not by_rows or stage.first_flag is None or not self._context.is_stage_start:
            return
        ranked = self.rank(self._rows_around(stage.first_flag)[-AUTOPSY_ROWS:])
        worst = ", ".join(f"{row.line} ({row.loss:.3g})" for row in ranked[:3])
        median = ranked[len(ranked) // 2].loss
        self._context.events.append(
            WarningEvent(
                code="autopsy",
                text=(
                    f"the {len(ranked)} rows around iteration {stage.first_flag:,}, by their own loss at iteration "
                    f"{self._context.iteration:,}: {worst}; their median is {median:.3g}"
                ),
                data={
                    "first_flag": stage.first_flag,
                    "measured": len(ranked),
                    "median": median,
                    "rows": [dataclasses.asdict(row) for row in ranked[:AUTOPSY_REPORTED]],
                },
            )
        )

    def _rows_around(self, iteration: int) -> list[int]:
        """Return the rows that were trained around an iteration before the rollback, without repetition."""
        spec = self._context.spec
        before = RunPlan(stages=self._context.run_plan.stages[: self._context.stage_index])
        first, last = iteration - 2 * spec.steps_per_report, iteration + spec.steps_per_report
        rows: dict[int, None] = {}  # an ordered set
        for position in range(max(0, first), min(last, spec.iters)):
            rows.update(dict.fromkeys(self._data.orders[before.index_at(position)].rows(position)))
        return list(rows)
