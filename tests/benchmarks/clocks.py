"""Runs a job file under lq and under `mlx_lm.lora` alone, and reads the times of the iterations."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobs.model.events import Kind
from tests.benchmarks.peer import CLOCK
from tests.harness import Lq, Training

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """The times of the reports of a run."""

    began: float  # unix seconds, start of the command
    reports: Sequence[tuple[int, float]]  # (iteration, unix seconds), in order
    marks: Mapping[str, float] = dataclasses.field(default_factory=dict)  # seconds since the start of the command

    def seconds(self, first: int, last: int) -> float:
        """Return the seconds from iteration `first` to iteration `last`, interpolated between reports."""
        (before, left), (after, right) = self._at(first), self._at(last)
        return (right - left) / (after - before) * (last - first)

    def _at(self, iteration: int) -> tuple[int, float]:
        return next(report for report in self.reports if report[0] >= iteration)

    @property
    def start_seconds(self) -> float:
        """Seconds from the command to the first report."""
        return self.reports[0][1] - self.began


def under_lq(lq: Lq, file: Path) -> tuple[Timeline, Training]:
    """Run a job file to its end with a running worker."""
    began = time.time()
    training = lq.submit(file)
    submitted = time.time()
    training.wait(seconds=TIMEOUT_S)
    imported, loaded = loading(training, attempt=1)
    moments = {
        "the submit returned": submitted,
        "the trainer had imported MLX": imported,
        "had loaded the model": loaded,
    }
    marks = {name: moment - began for name, moment in moments.items()}
    return Timeline(began=began, reports=reports(training), marks=marks), training


def loading(training: Training, *, attempt: int) -> tuple[float, float]:
    """Return the start and the end of loading model and data in an attempt, in unix seconds."""
    phases = [event for event in training.events(Kind.PHASE) if event.attempt == attempt]
    tests = [event for event in training.events(Kind.SELF_TEST) if event.attempt == attempt]
    began = next(event.time for event in phases if event.data["phase"] == "load")
    later = [event for event in phases if event.data["phase"] not in ("load", "tokenize")]
    return began, min(event.time for event in (*later, *tests))


def reports(training: Training, attempt: int = 1) -> list[tuple[int, float]]:
    """Return the iterations that an attempt reported, with their times."""
    events = (event for event in training.events(Kind.PROGRESS) if event.attempt == attempt and event.data["losses"])
    return [(int(event.data["iteration"]), event.time) for event in events]


def alone(file: Path, scratch: Path) -> Timeline:
    """Run a job file to its end with `mlx_lm.lora` alone.

    Args:
        file: the job file.
        scratch: new folder for its adapter and its log.
    """
    scratch.mkdir()
    clock = scratch / "clock"
    command = [sys.executable, "-m", "tests.benchmarks.peer", "-c", str(file), "--adapter-path", str(scratch / "out")]
    began = time.time()
    with (scratch / "log").open("w") as log:
        subprocess.run(
            command,
            check=True,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {CLOCK: str(clock), "HF_HUB_OFFLINE": "1"},
            timeout=TIMEOUT_S,
        )
    stamped = (line.split() for line in clock.read_text().splitlines())
    return Timeline(began=began, reports=[(int(iteration), float(moment)) for iteration, moment in stamped])


def command_seconds(command: Sequence[str | Path], environment: dict[str, str]) -> float:
    """Return the duration of a command."""
    began = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | environment,
        timeout=TIMEOUT_S,
    )
    return time.perf_counter() - began


def command_processor_seconds(command: Sequence[str | Path], environment: dict[str, str]) -> tuple[float, float]:
    """Return the duration and the processor time of a command, which differ on a busy machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = command_seconds(command, environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alternating(mine: Callable[[], float], other: Callable[[], float], rounds: int) -> list[tuple[float, float]]:
    """Measure lq (`mine`) and its peer in alternating order; return (mine, other) of each round."""
    results = []
    for number in range(rounds):
        if number % 2:
            after = other()
            results.append((mine(), after))
        else:
            first = mine()
            results.append((first, other()))
    return results
