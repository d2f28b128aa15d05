"""Progress lines: each loss once, and the same report boundaries after any interruption."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.events import Event, Kind, MemoryReading, ProgressEvent, number
from workers.events.log import EventLog, read
from workers.events.reporter import SHORTEST_LINE_S, PendingReport, Reporter, Trained

MEMORY = MemoryReading(active=1, cache=2, peak=3, footprint=4)


def report(loss: float, tokens: int, *, it_s: float = 4.0) -> Trained:
    """Return a trained iteration."""
    return Trained(loss=loss, tokens=tokens, seconds=1.0 / it_s, learning_rate=1e-4)


def loss_of(iteration: int) -> float:
    return 10.0 + iteration


class Run:
    """A run of several attempts, each with its own reporter, in one events.jsonl."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every, self.attempt = path, every, 0

    def train(self, iterations: int, resume: tuple[int, PendingReport] | None = None) -> tuple[int, PendingReport]:
        """Train some iterations and return the state for a checkpoint."""
        self.attempt += 1
        with EventLog(self.path, self.attempt) as log:
            reporter = Reporter(log, steps_per_report=self.every, memory=lambda: MEMORY)
            if resume is not None:
                reporter.restore(*resume)
            for _ in range(iterations):
                reporter.count(report(loss_of(reporter.iteration + 1), 7))
            if reporter.iteration % self.every == 0:  # as the trainer does before it saves
                reporter.flush()
            return reporter.iteration, reporter.pending()

    def lines(self) -> list[Event]:
        return [event for event in read(self.path, 0).events if event.kind is Kind.PROGRESS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of events.jsonl."""
    return tmp_path / "events.jsonl"


def covered(line: Event) -> list[tuple[int, float]]:
    """Return the iterations and losses of a line."""
    losses = [float(item) for item in line.data["losses"]]
    first = line.data["iteration"] - len(losses) + 1
    return list(zip(range(first, first + len(losses)), losses, strict=True))


@given(every=st.integers(1, 12), stretches=st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_interruptions_keep_reports(every: int, stretches: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    run, resume = Run(path, every), None
    for stretch in stretches:
        resume = run.train(stretch, resume)
    assert resume is not None
    iterations, pending = resume
    written = [item for line in run.lines() for item in covered(line)]
    waiting = list(enumerate(pending.losses, iterations - len(pending.losses) + 1))
    assert written + waiting == [(iteration, loss_of(iteration)) for iteration in range(1, sum(stretches) + 1)]
    assert all(line.data["iteration"] % every == 0 for line in run.lines())
    assert pending.tokens == 7 * sum(stretches)


def test_fast_run_writes_few_lines(path: Path) -> None:
    Run(path, 1).train(2000)
    assert len(Run(path, 1).lines()) < 2 + 60 / SHORTEST_LINE_S  # one for each iteration without the limit


def test_first_report_is_immediate(path: Path) -> None:
    with EventLog(path, 1) as log:
        reporter = Reporter(log, steps_per_report=2, memory=lambda: MEMORY)
        reporter.count(report(3.0, 5))
        assert read(path, 0).events == []
        reporter.count(report(2.0, 6, it_s=2.0))
    [line] = read(path, 0).events
    assert line.value == ProgressEvent(
        iteration=2,
        losses=(3.0, 2.0),
        learning_rate=1e-4,
        tokens=11,
        it_s=2 / 0.75,
        tok_s=11 / 0.75,
        memory=MEMORY,
    )


def test_end_writes_incomplete_report(path: Path) -> None:
    with EventLog(path, 1) as log:
        reporter = Reporter(log, steps_per_report=10, memory=lambda: MEMORY)
        for loss in (3.0, 2.0, 1.0):
            reporter.count(report(loss, 5))
        reporter.flush()
        reporter.flush()
    [line] = read(path, 0).events
    assert (line.data["iteration"], line.data["losses"]) == (3, [3.0, 2.0, 1.0])


def test_heartbeat_has_no_losses(path: Path) -> None:
    with EventLog(path, 1) as log:
        reporter = Reporter(log, steps_per_report=10, memory=lambda: MEMORY)
        reporter.count(report(3.0, 5))
        reporter.beat()
        reporter.flush()
    beat, line = read(path, 0).events
    assert (beat.data["iteration"], beat.data["losses"], beat.data["it_s"]) == (1, [], None)
    assert line.data["losses"] == [3.0]


def test_speed_excludes_earlier_attempt(path: Path) -> None:
    with EventLog(path, 1) as log:
        reporter = Reporter(log, steps_per_report=4, memory=lambda: MEMORY)
        reporter.restore(2, PendingReport(tokens=100, losses=(9.0, 8.0), skipped=()))
        reporter.count(report(7.0, 10, it_s=2.0))
        reporter.count(report(6.0, 10, it_s=2.0))
    [line] = read(path, 0).events
    assert line.data["losses"] == [9.0, 8.0, 7.0, 6.0]
    assert (line.data["it_s"], line.data["tok_s"], line.data["tokens"]) == (2.0, 20.0, 120)


def test_nan_losses_survive_checkpoint(path: Path) -> None:
    with EventLog(path, 1) as log:
        reporter = Reporter(log, steps_per_report=3, memory=lambda: MEMORY)
        reporter.restore(1, PendingReport.from_json({"tokens": 0, "losses": ["nan"], "skipped": []}))
        reporter.count(report(math.inf, 1))
        assert [str(loss) for loss in reporter.pending().losses] == ["nan", "inf"]
        reporter.count(report(2.0, 1))
    [line] = read(path, 0).events
    assert [str(number(loss)) for loss in line.data["losses"]] == ["nan", "inf", "2.0"]


def test_mean_loss_as_in_mlx_lm(path: Path) -> None:
    """Also after a resume within a report."""
    with EventLog(path, 1) as log:
        reporter = Reporter(log, steps_per_report=3, memory=lambda: MEMORY)
        assert [reporter.count(report(loss, 1)) for loss in (6.0, 2.0, 4.0, 9.0)] == [6.0, 4.0, 4.0, 9.0]
        kept = reporter.pending()
    with EventLog(path, 2) as log:
        reporter = Reporter(log, steps_per_report=3, memory=lambda: MEMORY)
        reporter.restore(4, kept)
        assert [reporter.count(report(loss, 1)) for loss in (5.0, 1.0)] == [7.0, 5.0]
