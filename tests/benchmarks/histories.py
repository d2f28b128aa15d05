"""A home with a million progress points, and what a night adds to the store."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.finished_jobs import copy_job
from tests.unit.orchestrator.report_runs import Run
from tests.unit.orchestrator.series_runs import ROWS, MadeEvent, played, series, validation

POINTS = 1_000_000
ITERS, EVALUATED = 15_000, 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grown:
    """What a night of 15,000 iterations adds to the store."""

    context: float  # MB, with 10 iterations a report
    busy_night: float  # MB, with a report an iteration

    @property
    def text(self) -> str:
        """Say what it is made of."""
        return (
            f"{ITERS:,} iterations at the default 10 a report, {ITERS // EVALUATED + 1} validations with the losses of "
            f"{ROWS} rows each; with a report an iteration {self.busy_night:.1f} MB"
        )


def many_points(folder: Path) -> tuple[Path, Grown]:
    """Make a home with so many points; return it, and what a night adds."""
    folder.mkdir()
    context = _context(folder / "usual", every=10)
    busy = _context(folder / "busy", every=1)
    store = folder / "busy" / "lq.db"
    grown = Grown(context=context, busy_night=busy)
    copy_job(store, 1, -(-POINTS // ITERS) - 1, points=True)
    return folder / "busy", grown


def _context(home: Path, *, every: int) -> float:
    """Make a home with one night in it; return by how many MB its store has grown."""
    home.mkdir()
    noise = random.Random(0)  # noqa: S311 the same losses every time
    train: dict[int, float | str] = {
        place: 3 * math.exp(-place / 3000) + 0.5 + noise.gauss(0, 0.05) for place in range(every, ITERS + 1, every)
    }
    measured = {place: validation(place, 1.2) for place in range(0, ITERS + 1, EVALUATED)}
    empty = 0.0

    def told(run: Run) -> Iterator[MadeEvent]:
        nonlocal empty
        empty = _size(run)
        return series(train, measured)

    run = played(home, told, iters=ITERS, steps_per_report=every)
    grown = _size(run) - empty
    run.store.close()
    return grown


def _size(run: Run) -> float:
    with run.store.database.reading() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        return float(pages * db.exec_driver_sql("PRAGMA page_size").scalar_one() / 1e6)
