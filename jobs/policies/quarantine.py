"""Rows that make the loss non-finite (docs/explanation/policies.md, section 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from jobs.model.run_plan import Stage

TIMES = 2
MAX_SHARE = 0.01
"""If more of the rows are quarantined, the data is invalid."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonFiniteRows:
    """The rows that made the loss of one iteration non-finite, each by itself."""

    iteration: int
    rows: tuple[int, ...]  # of the training set, from 0
    lines: tuple[str, ...]  # the same as file and line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantine:
    """Rows to leave out for the rest of the run."""

    rows: tuple[int, ...]  # new ones
    lines: tuple[str, ...]  # the same as file and line
    iteration: int  # of the first second time
    too_many: bool  # more than `MAX_SHARE` of the rows


def quarantine(reported: Sequence[NonFiniteRows], *, already: Collection[int], train_rows: int) -> Quarantine | None:
    """Return the rows to leave out in addition to those `already` left out; None if there are none.

    A row counts once per iteration, because a resume can repeat an iteration.
    """
    iterations: dict[int, set[int]] = {}
    lines: dict[int, str] = {}
    second_time: dict[int, int] = {}  # row -> iteration
    for report in reported:
        for row, line in zip(report.rows, report.lines, strict=True):
            if row in already:
                continue
            lines[row] = line
            iterations.setdefault(row, set()).add(report.iteration)
            if len(iterations[row]) >= TIMES:
                second_time.setdefault(row, report.iteration)
    if not second_time:
        return None
    rows = tuple(sorted(second_time))
    return Quarantine(
        rows=rows,
        lines=tuple(lines[row] for row in rows),
        iteration=min(second_time.values()),
        too_many=len(rows) + len(already) > max(1, int(MAX_SHARE * train_rows)),
    )


def stage_without(
    quarantined: Quarantine, stage: Stage, *, stages: Sequence[Stage], first_example: int, updates: int
) -> Stage:
    """Return a stage without the rows, after `updates` updates: a later start of the warm-up moves there."""
    return stage.continued(
        first_example,
        because=f"quarantined: {', '.join(quarantined.lines)}",
        salt=max(each.salt for each in stages) + 1,
        quarantined=tuple(sorted({*stage.quarantined, *quarantined.rows})),
        first_update=min(stage.first_update, updates),
    )
