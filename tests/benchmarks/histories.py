"""A home with a million progress points, and the growth of the store by one run."""

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
    """Growth of the store by a run of 15,000 iterations."""

    usual: float  # MB, with 10 iterations per report
    dense: float  # MB, with 1 iteration per report

    @property
    def text(self) -> str:
        """Return a note for the table."""
        return (
            f"{ITERS:,} iterations with the default 10 per report, {ITERS // EVALUATED + 1} validations with the "
            f"losses of {ROWS} rows each; with 1 iteration per report {self.dense:.1f} MB"
        )


def many_points(folder: Path) -> tuple[Path, Grown]:
    """Make a home with POINTS progress points; return it and the growth by one run."""
    folder.mkdir()
    usual = _growth(folder / "usual", every=10)
    dense = _growth(folder / "dense", every=1)
    store = folder / "dense" / "lq.db"
    grown = Grown(usual=usual, dense=dense)
    copy_job(store, 1, -(-POINTS // ITERS) - 1, points=True)
    return folder / "dense", grown


def _growth(home: Path, *, every: int) -> float:
    """Make a home with one run; return the growth of its store in MB."""
    home.mkdir()
    noise = random.Random(0)  # noqa: S311 the same losses every time
    train: dict[int, float | str] = {
        at: 3 * math.exp(-at / 3000) + 0.5 + noise.gauss(0, 0.05) for at in range(every, ITERS + 1, every)
    }
    measured = {at: validation(at, 1.2) for at in range(0, ITERS + 1, EVALUATED)}
    empty = 0.0

    def events_of(run: Run) -> Iterator[MadeEvent]:
        nonlocal empty
        empty = _size(run)
        return series(train, measured)

    run = played(home, events_of, iters=ITERS, steps_per_report=every)
    grown = _size(run) - empty
    run.store.close()
    return grown


def _size(run: Run) -> float:
    with run.store.database.reading() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        return float(pages * db.exec_driver_sql("PRAGMA page_size").scalar_one() / 1e6)
