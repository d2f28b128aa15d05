"""Rows that make the loss non-finite (policies.md 2): once is an accident, twice is the row. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from jobs.model.run_plan import Stage

TIMES = 2
MOST_SHARE = 0.01
"""More of the rows than this is no accident of single rows: the data cannot be used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonFiniteRows:
    """The rows that made the loss of one iteration non-finite, by themselves."""

    iteration: int
    rows: tuple[int, ...]  # of the training set, from 0
    lines: tuple[str, ...]  # the same, as file and line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantine:
    """Rows that are to be left out from now on."""

    rows: tuple[int, ...]  # new ones
    lines: tuple[str, ...]  # the same, as file and line
    iteration: int  # where the first of them was found guilty for the second time
    too_many: bool  # more than `MOST_SHARE` of the rows: the data cannot be used


def quarantine(seen: Sequence[NonFiniteRows], *, already: Collection[int], train_rows: int) -> Quarantine | None:
    """Say which rows are to be left out; None where none is.

    An iteration that a resume repeats is the same accident, so iterations are counted, not tellings.

    Args:
        seen: what was told of non-finite iterations, in their order.
        already: rows that are left out already.
        train_rows: rows of the training set.
    """
    iterations: dict[int, set[int]] = {}
    lines: dict[int, str] = {}
    guilty: dict[int, int] = {}  # row -> iteration of the second time
    for one in seen:
        for row, line in zip(one.rows, one.lines, strict=True):
            if row in already:
                continue
            lines[row] = line
            iterations.setdefault(row, set()).add(one.iteration)
            if len(iterations[row]) >= TIMES:
                guilty.setdefault(row, one.iteration)
    if not guilty:
        return None
    rows = tuple(sorted(guilty))
    most = max(1, int(MOST_SHARE * train_rows))
    return Quarantine(
        rows=rows,
        lines=tuple(lines[row] for row in rows),
        iteration=min(guilty.values()),
        too_many=len(rows) + len(already) > most,
    )


def stage_without(
    found: Quarantine, stage: Stage, *, stages: Sequence[Stage], first_example: int, updates: int
) -> Stage:
    """Return the stage that goes on without the rows.

    Args:
        found: what is to be left out.
        stage: the settings the run goes on under.
        stages: of the run plan so far.
        first_example: examples seen where it begins.
        updates: made by then; a climb of the learning rate that begins later begins here.
    """
    rows = tuple(sorted({*stage.quarantined, *found.rows}))
    salt = max(one.salt for one in stages) + 1
    return stage.continued(
        first_example,
        because=f"quarantined: {', '.join(found.lines)}",
        salt=salt,
        quarantined=rows,
        first_update=min(stage.first_update, updates),
    )
