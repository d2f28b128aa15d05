"""Two trainings that take turns of a few seconds; the waiting one is stopped, including its worker.

The speed of a shared machine changes within seconds by more than the overhead of lq. Many short alternating turns
compare the trainings; a few long runs would measure the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.benchmarks.clocks import ROOT, reports
from tests.benchmarks.peer import CLOCK
from tests.harness import Lq, held, until

WARM_UP = 30
"""Iterations during which MLX compiles shapes."""

TURN_REPORTS = 3
"""Reports of a turn; the first one, which began before the turn, does not count."""

Stamps = Sequence[tuple[int, float]]
"""(iteration, unix seconds) of each report."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """A training that can be stopped and continued."""

    pids: tuple[int, ...]  # the trainer, and the worker
    stamps: Callable[[], Stamps]

    def rest(self, stack: contextlib.ExitStack) -> None:
        """Stop until the stack is closed."""
        for pid in self.pids:
            stack.enter_context(held(pid))

    def turn(self) -> float:
        """Train for one turn; return iterations per second."""
        before = len(self.stamps())
        until(lambda: len(self.stamps()) >= before + TURN_REPORTS, "a turn's reports", every=0.02)
        (first, began), (last, ended) = self.stamps()[before], self.stamps()[-1]
        return (last - first) / (ended - began)


def turns(mine: Side, other: Side, pairs: int) -> list[tuple[float, float]]:
    """Let two trainings take turns in alternating order; return iterations per second of each pair (mine, other)."""
    for side, waits in ((mine, other), (other, mine)):
        with contextlib.ExitStack() as stack:
            waits.rest(stack)
            until(lambda side=side: _reached(side, WARM_UP), "warm-up", every=0.1)  # type: ignore[misc]
    results = []
    for number in range(pairs):
        speeds = {}
        for side in (mine, other) if number % 2 else (other, mine):
            with contextlib.ExitStack() as stack:
                (other if side is mine else mine).rest(stack)
                speeds[side.pids] = side.turn()
        results.append((speeds[mine.pids], speeds[other.pids]))
    return results


def _reached(side: Side, iteration: int) -> bool:
    stamps = side.stamps()
    return bool(stamps) and stamps[-1][0] >= iteration


@contextlib.contextmanager
def under_lq(lq: Lq, file: Path) -> Iterator[Side]:
    """Train a job file under lq with a running worker, until the block ends."""
    training = lq.submit(file)
    until(lambda: reports(training), "the first report", every=0.1)
    try:
        yield Side(pids=(training.trainer(), lq.worker()), stamps=lambda: reports(training))
    finally:
        lq("cancel", training.id)
        training.until_status("cancelled")


@contextlib.contextmanager
def alone(file: Path, scratch: Path) -> Iterator[Side]:
    """Train a job file with `mlx_lm.lora` alone, until the block ends; `scratch` is a new folder."""
    scratch.mkdir()
    clock = scratch / "clock"
    words = [sys.executable, "-m", "tests.benchmarks.peer", "-c", str(file), "--adapter-path", str(scratch / "out")]
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {CLOCK: str(clock), "HF_HUB_OFFLINE": "1"},
        )
    try:
        yield Side(pids=(process.pid,), stamps=lambda: _stamped(clock))
    finally:
        process.kill()
        process.wait()


def _stamped(clock: Path) -> Stamps:
    if not clock.exists():
        return []
    whole, _, _ = clock.read_text().rpartition("\n")
    words = (line.split() for line in whole.splitlines())
    return [(int(iteration), float(moment)) for iteration, moment in words]
