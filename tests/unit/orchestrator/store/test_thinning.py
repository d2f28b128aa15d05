"""What the store forgets of long runs that ended long ago, and that nobody misses it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs import thinning
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.commands.show import show
from orchestrator.report.collect import collect_all
from orchestrator.report.facts import Facts
from orchestrator.thinning import Thinner
from tests.unit.orchestrator.report_runs import START, Life, Run
from tests.unit.orchestrator.series_runs import went_back
from workers.events import log as event_log

ITERS = 24_000
LATER = START + 40 * 86_400.0


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run of 2,400 reports and two rollbacks, that succeeded."""
    run = went_back(tmp_path, iters=ITERS)
    yield run
    run.store.close()


def facts_of(run: Run) -> Facts:
    """What the report of a run says."""
    return collect_all(run.store, run.id, now=LATER)[0]


def count(run: Run) -> int:
    """Points in the store."""
    return len(run.store.points(run.id, superseded=True))


def test_an_old_run_keeps_a_third_of_its_points_and_its_report_says_what_it_said(run: Run) -> None:
    before, there_were = facts_of(run), count(run)
    Thinner().tick(run.store, LATER)
    assert run.store.job(run.id).thinned_from == there_were > 2_400
    assert count(run) < there_were / 2
    assert facts_of(run) == before


def test_a_compressed_log_is_as_good(run: Run) -> None:
    before = facts_of(run)
    event_log.pack(run.folder / "events.jsonl")
    Thinner().tick(run.store, LATER)
    assert facts_of(run) == before


def test_without_the_log_the_report_says_what_it_is_made_of(run: Run) -> None:
    before, there_were = facts_of(run), count(run)
    Thinner().tick(run.store, LATER)
    (run.folder / "events.jsonl").unlink()
    after = facts_of(run)
    [line] = after.unread
    assert f"come from {count(run):,} of {there_were:,}" in line
    assert after.findings.phases == ()
    lowest = (before.train_loss.lowest, before.train_loss.first, before.train_loss.last)
    assert (after.train_loss.lowest, after.train_loss.first, after.train_loss.last) == lowest
    assert after.train_loss.not_finite == before.train_loss.not_finite
    assert (after.validation, after.tests, after.attempts) == (before.validation, before.tests, before.attempts)
    assert after.progress.peak_bytes == before.progress.peak_bytes
    told = [dataclasses.replace(one, numbers={}) for one in before.findings.happenings if one.attempt is not None]
    assert [dataclasses.replace(one, numbers={}) for one in after.findings.happenings] == told


def test_another_log_is_not_taken_for_its_own(run: Run) -> None:
    Thinner().tick(run.store, LATER)
    log = run.folder / "events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"losses":[', b'"losses":[9.0,', 1))
    assert facts_of(run).unread


def test_show_tells_the_same_of_its_incidents(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LQ_HOME", str(run.home))
    before = CliRunner().invoke(show, [str(run.id)])
    Thinner().tick(run.store, LATER)
    after = CliRunner().invoke(show, [str(run.id)])
    assert before.exit_code == after.exit_code == 0
    assert "What it cost" in before.output
    assert after.output == before.output


def test_it_is_done_once(run: Run) -> None:
    Thinner().tick(run.store, LATER)
    left = count(run)
    Thinner().tick(run.store, LATER)
    assert count(run) == left


def test_a_run_that_ended_of_late_stays_whole(run: Run) -> None:
    Thinner().tick(run.store, START + 86_400.0)
    assert run.store.job(run.id).thinned_from is None


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_job_that_may_be_retried_stays_whole(tmp_path: Path, status: Status) -> None:
    run = long_run(tmp_path)
    run.settle(status, Reason.STOPPED_BY_USER, "x", START + 20_000)
    assert_whole(run)


def test_a_live_job_stays_whole(tmp_path: Path) -> None:
    assert_whole(long_run(tmp_path))


def test_a_short_run_stays_whole(tmp_path: Path) -> None:
    run = long_run(tmp_path, iters=10 * thinning.FEWEST)
    run.settle(Status.SUCCEEDED, Reason.COMPLETED, "x", START + 20_000)
    assert_whole(run)


def test_a_job_that_was_cleaned_stays_whole(run: Run) -> None:
    run.store.mark_cleaned(run.id, time.time())
    assert_whole(run)


def test_a_job_without_its_log_stays_whole(run: Run) -> None:
    (run.folder / "events.jsonl").unlink()
    assert_whole(run, close=False)


def long_run(home: Path, iters: int = ITERS) -> Run:
    """Return a run that has ended, and is not settled yet."""
    run = Run(home, iters=iters)
    run.play(Life(first=0, last=iters, begins=0.0))
    return run


def assert_whole(run: Run, *, close: bool = True) -> None:
    """Thin a store, and find every point of the run still there."""
    there_were = count(run)
    assert there_were >= thinning.FEWEST
    thinner = Thinner()
    for _ in range(2):
        thinner.tick(run.store, LATER)
    assert count(run) == there_were
    assert run.store.job(run.id).thinned_from is None
    if close:
        run.store.close()
