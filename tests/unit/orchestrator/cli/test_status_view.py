"""The status view: golden files for four widths, foreign text, and numbers that are not finite."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Group

from jobs.model.events import Event, Kind
from jobs.model.job import QueueState
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.views.snapshot import Snapshot, VerdictCache, take_snapshot
from orchestrator.cli.views.status import render
from orchestrator.cli.views.terminal import (
    LEVELS,
    NOT_FINITE,
    UNCUT,
    averaged,
    console_for,
    is_ascii_only,
    shortened,
    sparkline,
)
from tests.unit.orchestrator.cli_homes import MACHINE, NOW, WORKER, Home, Seen, ingest, report
from tests.unit.orchestrator.job_files import app_of
from tests.unit.orchestrator.rendering import assert_view, text_of

STRANGE = "[red]qwen[/] :smile: 日本語 " + "x" * 40 + "-rank16"
NAN = float("nan")
SEEN = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)


def snapshot_of(home: Home, now: float | None = None) -> Snapshot:
    """Return a snapshot of a home on a machine that is the same everywhere."""
    with app_of(home) as app:
        return dataclasses.replace(take_snapshot(app, now=now), machine=MACHINE)


def lines_of(home: Home, width: int = 80) -> list[str]:
    return text_of(render(snapshot_of(home)), width).splitlines()


def row(lines: Sequence[str], word: str) -> list[str]:
    """Split the one line that contains `word`."""
    (line,) = [line for line in lines if word in line]
    return line.split()


@pytest.mark.parametrize("width", [60, 80, 160, UNCUT])
def test_status_view_matches_golden(full_home: Home, utc: None, width: int) -> None:
    name = "pipe" if width == UNCUT else str(width)
    assert_view(render(snapshot_of(full_home, NOW)), f"status_{name}", width)


def test_status_heads_match_golden(home: Home, utc: None) -> None:
    snapshot = snapshot_of(home, NOW)
    worker = {"pid": 7, "started_at": NOW - 3600}
    heads = [
        snapshot,
        dataclasses.replace(snapshot, worker=worker, machine=dataclasses.replace(MACHINE, kept_awake=True)),
        dataclasses.replace(snapshot, worker=worker, machine=dataclasses.replace(MACHINE, kept_awake=False)),
        dataclasses.replace(snapshot, machine=dataclasses.replace(MACHINE, mains=False, charge=43)),
        dataclasses.replace(snapshot, machine=dataclasses.replace(MACHINE, mains=None, charge=None)),
        dataclasses.replace(snapshot, queue=QueueState(paused_at=NOW - 60, because="paused by the user")),
    ]
    assert_view(Group(*map(render, heads)), "status_heads", 80)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_exceeds_the_terminal(full_home: Home, width: int) -> None:
    full_home.queued(STRANGE)
    for number in range(30):
        full_home.store.jobs.hold(full_home.queued(f"held-{number}").id, "held by the user", 1.0)
    lines = lines_of(full_home, width)
    assert [line for line in lines if cell_len(line) > width] == []
    name = next(line for line in lines if "[red]q" in line)
    assert "rank16" in name
    assert sum("held by the" in line for line in lines) == 1


def test_wide_terminal_uses_two_columns(full_home: Home) -> None:
    assert len(lines_of(full_home, 160)) < len(lines_of(full_home, 120))


def test_pipe_keeps_names_and_no_escapes(full_home: Home) -> None:
    full_home.store.jobs.hold(full_home.queued(STRANGE).id, "held \x1b[2J", NOW)
    text = "\n".join(lines_of(full_home, UNCUT))
    assert STRANGE in text
    assert "held  [2J" in text
    assert "\x1b" not in text


def test_ascii_view_has_only_ascii(full_home: Home) -> None:
    (job,) = full_home.store.jobs.running()
    report(full_home.store, job.id, [1.0, NAN, 0.5])
    assert text_of(render(snapshot_of(full_home)), 80, ascii_only=True).isascii()


def test_nan_losses_are_marked(home: Home) -> None:
    report(home.store, home.running("night", seen=SEEN).id, [1.0, NAN, 0.5, NAN])
    lines = lines_of(home)
    assert row(lines, "loss ")[1] == "nan"
    assert "".join(lines).count(NOT_FINITE) == 2


def test_best_validation_ignores_nan(home: Home) -> None:
    job = home.running("night", seen=SEEN)
    events = [
        Event(
            seq=seq, time=1.0, awake=1.0, attempt=1, kind=Kind.VALIDATION,
            data={"iteration": iteration, "loss": loss, "examples": 8, "seconds": 0.1},
        )
        for seq, (iteration, loss) in enumerate([(510, 1.4), (520, NAN), (530, 1.2), (540, 1.3)], start=10)
    ]  # fmt: skip
    ingest(home.store, job.id, events)
    best = snapshot_of(home).details[job.id].best
    assert best is not None
    assert (best.loss, best.iteration) == (1.2, 530)
    assert home.store.status.best_validations([job.id, 99]).keys() == {job.id}


def test_job_without_reports_has_no_figures(home: Home) -> None:
    home.attach_trainer(home.running("silent").id)
    lines = lines_of(home)
    assert row(lines, "silent")[:4] == ["1", "silent", "attempt", "1,"]
    assert not [line for line in lines if "loss" in line or "speed" in line]


def test_finished_job_shows_its_verdict(home: Home) -> None:
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="over", seen=SEEN)
    assert snapshot_of(home).details[job.id].verdict is None
    write_verdict(job.job_dir, "UNDERTRAINED")
    assert row(lines_of(home), " over ")[:4] == ["1", "over", "succeeded", "UNDERTRAINED"]


def test_verdict_cache_reads_a_verdict_once(home: Home) -> None:
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=SEEN)
    verdicts = VerdictCache()
    assert verdicts.of(job) is None
    write_verdict(job.job_dir, "OK")
    assert verdicts.of(job) == "OK"
    write_verdict(job.job_dir, "WASTED")
    assert verdicts.of(job) == "OK"


def write_verdict(job_dir: str, code: str) -> None:
    """Write the part of a report that holds the verdict."""
    folder = Path(job_dir) / "report"
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"findings": {"ruling": {"verdict": {"code": code}}}}))


# --- terminal ---


class Stream(io.StringIO):
    """A terminal or a pipe with an encoding."""

    def __init__(self, encoding: str, *, terminal: bool) -> None:
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("encoding", "environment", "expected"),
    [
        ("utf-8", {}, False),
        ("utf-8", {"LC_ALL": "C"}, True),
        ("utf-8", {"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),
        ("ascii", {}, True),
        ("latin-1", {}, True),
    ],
)
def test_ascii_follows_locale_and_encoding(encoding: str, environment: dict[str, str], expected: bool) -> None:
    assert is_ascii_only(Stream(encoding, terminal=False), environment) is expected


@pytest.mark.parametrize(
    ("environment", "terminal", "coloured"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, False, True),
    ],
)
def test_colour_follows_the_environment(environment: dict[str, str], terminal: bool, coloured: bool) -> None:
    console = console_for(Stream("utf-8", terminal=terminal), environment)
    assert (console.color_system is not None and not console.no_color) is coloured


def test_sparkline_scale_ignores_a_spike() -> None:
    assert sparkline([], 5) == ""
    assert sparkline([1.0, 1.0], 5) == LEVELS[4] * 2
    assert sparkline([3.0, 2.0, 1.0], 2) == LEVELS[-1] + LEVELS[0]
    assert sparkline([NAN, math.inf], 5) == NOT_FINITE * 2
    spiked = sparkline([1.0 + number % 2 for number in range(30)] + [1000.0] + [1.0, 2.0] * 5, 60)
    assert LEVELS[0] + LEVELS[-1] in spiked
    falling = sparkline([8.0, *[1.0, 1.1] * 20], 60)
    assert set(falling[1:]) == {LEVELS[0]}
    assert len(averaged([float(number) for number in range(1000)], 40)) == 40


def test_names_are_shortened_in_the_middle() -> None:
    assert shortened("日本語日本語", 8) == "日本…語"
    assert shortened("short", 8) == "short"
    assert all(cell_len(shortened(STRANGE, width)) <= width for width in range(40))


def test_interrupted_job_has_no_end(home: Home) -> None:
    """Worker and trainer are gone: nothing goes on until a worker starts, so no time is left to show."""
    job = home.running("night", seen=SEEN)
    home.attach_trainer(job.id)
    running = snapshot_of(home)
    assert (running.interrupted, job.id in running.forecast.time_left) == (set(), True)
    home.store.attempts.set_child(home.store.attempts.of(job.id)[-1].id, WORKER)
    stopped = snapshot_of(home)
    assert (stopped.interrupted, stopped.forecast.time_left) == ({job.id}, {})
    assert any("resumes when a worker starts" in line for line in lines_of(home))
