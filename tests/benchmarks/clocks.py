"""Running the same job file under lq and under `mlx_lm.lora` alone, and reading when which iteration was done."""

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
LONGEST_S = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """When a run was where."""

    began: float  # unix seconds: when the command was typed
    reports: Sequence[tuple[int, float]]  # (iteration, unix seconds), in order
    marks: Mapping[str, float] = dataclasses.field(default_factory=dict)  # seconds from the command until then

    def seconds(self, first: int, last: int) -> float:
        """Return the seconds it took from iteration `first` to iteration `last`, as if both had been reported."""
        (before, left), (after, right) = self._at(first), self._at(last)
        return (right - left) / (after - before) * (last - first)

    def _at(self, iteration: int) -> tuple[int, float]:
        return next(report for report in self.reports if report[0] >= iteration)

    @property
    def start_seconds(self) -> float:
        """Seconds from the command to the first report."""
        return self.reports[0][1] - self.began


def under_lq(lq: Lq, file: Path) -> tuple[Timeline, Training]:
    """Run a job file to its end with a worker that is there already."""
    began = time.time()
    training = lq.submit(file)
    submitted = time.time()
    training.wait(seconds=LONGEST_S)
    imported, loaded = loading(training, attempt=1)
    moments = {"the submit had returned": submitted, "the trainer had imported MLX": imported, "had loaded": loaded}
    marks = {name: moment - began for name, moment in moments.items()}
    return Timeline(began=began, reports=reports(training), marks=marks), training


def loading(training: Training, *, attempt: int) -> tuple[float, float]:
    """Return when an attempt began to load model and data, and when it had done so, in unix seconds."""
    phases = [event for event in training.events(Kind.PHASE) if event.attempt == attempt]
    tests = [event for event in training.events(Kind.SELF_TEST) if event.attempt == attempt]
    began = next(event.time for event in phases if event.data["phase"] == "load")
    later = [event for event in phases if event.data["phase"] not in ("load", "tokenize")]
    return began, min(event.time for event in (*later, *tests))


def reports(training: Training, attempt: int = 1) -> list[tuple[int, float]]:
    """Return when an attempt reported which iteration."""
    told = (event for event in training.events(Kind.PROGRESS) if event.attempt == attempt and event.data["losses"])
    return [(int(event.data["iteration"]), event.time) for event in told]


def alone(file: Path, scratch: Path) -> Timeline:
    """Run a job file to its end with `mlx_lm.lora` alone.

    Args:
        file: the job file.
        scratch: for its adapter and its log; made.
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
            timeout=LONGEST_S,
        )
    stamped = (line.split() for line in clock.read_text().splitlines())
    return Timeline(began=began, reports=[(int(iteration), float(moment)) for iteration, moment in stamped])


def command_seconds(command: Sequence[str | Path], environment: dict[str, str]) -> float:
    """Return how long a command takes, from its start to its end."""
    began = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | environment,
        timeout=LONGEST_S,
    )
    return time.perf_counter() - began


def command_processor_seconds(command: Sequence[str | Path], environment: dict[str, str]) -> tuple[float, float]:
    """Return how long a command takes, and how much processor time of it: on a busy machine these part."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = command_seconds(command, environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alternating(mine: Callable[[], float], other: Callable[[], float], rounds: int) -> list[tuple[float, float]]:
    """Measure both in alternating order, so that neither always follows the other.

    Args:
        mine: measures lq.
        other: measures its peer.
        rounds: how often.

    Returns:
        (mine, other) of each round.
    """
    found = []
    for number in range(rounds):
        if number % 2:
            after = other()
            found.append((mine(), after))
        else:
            first = mine()
            found.append((first, other()))
    return found
