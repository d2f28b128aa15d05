"""The night as a page: at 60, 80 and 200 columns, in a pipe, in ASCII, with strange names and numbers that are none."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from jobs.model.events import Event, Kind
from jobs.model.job import Incident
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.views.snapshot import MachineState, Snapshot, VerdictCache, take_snapshot
from orchestrator.cli.views.status import page
from orchestrator.cli.views.terminal import BROKEN, LEVELS, Paper, bar, curve, cut, shortened, whole_curve
from orchestrator.core.app import App
from orchestrator.store.store import Store
from tests.unit.orchestrator.cli_homes import Home, Seen, one_of_each

STRANGE = "[red]qwen[/] :smile: 日本語 " + "x" * 40 + "-rank16"
NAN = float("nan")
SEEN = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)


def told(
    home: Home, width: int = 80, *, change: Callable[[Snapshot], Snapshot] = lambda it: it, **paper: bool
) -> list[str]:
    """Return the page of a home."""
    with App(home=dataclasses.replace(App.of_this_user().home, path=home.path)) as app:
        return page(change(take_snapshot(app)), Paper(width=width, **paper))


def reports(store: Store, job_id: int, losses: Sequence[float], **memory: int) -> None:
    """Let a job's trainer report ten iterations for each of these losses."""
    events = [
        Event(
            seq=seq + 10,
            time=time.time(),
            awake=1.0,
            attempt=1,
            kind=Kind.PROGRESS,
            data={"iteration": 500 + 10 * seq, "losses": [loss] * 10, "it_s": 2.0, "tokens": 1, "memory": memory},
        )
        for seq, loss in enumerate(losses, start=1)
    ]
    before = store.events.offset(job_id)
    assert store.events.ingest(
        job_id, events, offset_before=before, offset_after=before + 1, steps_per_report=10, now=1.0
    )


def incident(job_id: int) -> Incident:
    """Return a death."""
    return Incident(job_id=job_id, attempt=1, time=time.time(), code=Reason.KILLED.value, text="x", evidence={})


def row(lines: Sequence[str], word: str) -> str:
    """Return the one line with a word, its spaces made one."""
    (found,) = [line for line in lines if word in line]
    return " ".join(found.split())


def test_a_running_job_is_told_with_everything_that_a_glance_is_for(home: Home) -> None:
    job = home.running("night", seen=SEEN)
    reports(home.store, job.id, [1.2, 1.1], footprint=7_000_000_000, peak=6_000_000_000, limit=10_000_000_000)
    home.store.incidents.add(incident(job.id))
    lines = told(home)
    assert row(lines, "of 1,000").endswith("52% 520 of 1,000")
    assert row(lines, "loss ").startswith("loss 1.100 ")
    assert row(lines, "validation") == "validation 1.500 best 1.500 at 500"
    assert row(lines, "speed").startswith("speed 2 it/s 4m01 left, done ")
    assert "70% of 10 GB, peak 6 GB" in row(lines, "memory  ")
    assert row(lines, "incidents").startswith("incidents 1 newest ")
    assert row(lines, "incidents").endswith("The trainer was killed")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_strange_names_come_as_they_are(home: Home, width: int) -> None:
    one_of_each(home)
    home.queued(STRANGE)
    job = home.store.jobs.running()[0]
    reports(home.store, job.id, [1.0] * 200, footprint=7_000_000_000, peak=6_000_000_000, limit=10_000_000_000)
    for number in range(30):
        home.store.jobs.hold(home.queued(f"held-{number}").id, "held by the user", 1.0)
    lines = told(home, width)
    assert [line for line in lines if cell_len(line) > width] == []
    named = next(line for line in lines if "[red]q" in line)
    assert "rank16" in named, "names that begin alike differ at their ends"
    assert (STRANGE in named) == (width == 200)
    assert sum("held by the" in line for line in lines) == 1, "what is true of many is said once"


def test_two_columns_use_the_room_of_a_wide_terminal(home: Home) -> None:
    job = home.running("night", seen=SEEN)
    reports(home.store, job.id, [2.0 - number / 100 for number in range(120)])
    narrow, wide = told(home, 80), told(home, 200)
    assert len(wide) < len(narrow)
    assert sum(char in LEVELS for char in "".join(wide)) > sum(char in LEVELS for char in "".join(narrow))


def test_a_pipe_gets_no_colours_and_whole_names(home: Home) -> None:
    one_of_each(home)
    home.queued(STRANGE)
    text = "\n".join(told(home, endless=True))
    assert "\x1b" not in text
    assert STRANGE in text


def test_ascii_is_all_that_is_printed_where_nothing_else_can_be(home: Home) -> None:
    one_of_each(home)
    reports(home.store, home.store.jobs.running()[0].id, [1.0, NAN, 0.5], footprint=7, peak=6, limit=10)
    assert "\n".join(told(home, ascii=True)).isascii()


def test_a_loss_that_is_no_number_is_seen(home: Home) -> None:
    job = home.running("night", seen=SEEN)
    reports(home.store, job.id, [1.0, NAN, 0.5, NAN])
    lines = told(home)
    assert row(lines, "loss ").startswith("loss nan ")
    assert row(lines, "loss ").count(BROKEN) == 2


def test_the_best_validation_is_the_lowest_that_is_a_number(home: Home) -> None:
    job = home.running("night", seen=SEEN)
    told_of = [(510, 1.4), (520, NAN), (530, 1.2), (540, 1.3)]
    events = [
        Event(
            seq=seq, time=1.0, awake=1.0, attempt=1, kind=Kind.VALIDATION,
            data={"iteration": iteration, "loss": loss, "examples": 8, "seconds": 0.1},
        )
        for seq, (iteration, loss) in enumerate(told_of, start=10)
    ]  # fmt: skip
    before = home.store.events.offset(job.id)
    home.store.events.ingest(
        job.id, events, offset_before=before, offset_after=before + 1, steps_per_report=10, now=1.0
    )
    assert row(told(home), "validation") == "validation 1.300 best 1.200 at 530"
    assert home.store.status.best_validations([job.id, 99]).keys() == {job.id}


def test_a_job_that_has_said_nothing_yet_is_a_name_and_an_empty_bar(home: Home) -> None:
    home.running("silent")
    lines = told(home)
    assert row(lines, "silent").startswith("1 silent attempt 1, since ")
    assert not [line for line in lines if "loss" in line or "speed" in line]


def test_a_finished_job_has_the_verdict_of_its_report(home: Home) -> None:
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="over", seen=SEEN)
    assert "UNDERTRAINED" not in "\n".join(told(home))
    verdict_written(job.job_dir, "UNDERTRAINED")
    assert row(told(home), " over ").startswith("1 over succeeded UNDERTRAINED")


def test_a_verdict_is_read_once(home: Home) -> None:
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=SEEN)
    verdicts = VerdictCache()
    assert verdicts.of(job) is None
    verdict_written(job.job_dir, "OK")
    assert verdicts.of(job) == "OK"
    verdict_written(job.job_dir, "WASTED")
    assert verdicts.of(job) == "OK"


def verdict_written(job_dir: str, code: str) -> None:
    """Write as much of a report as holds a verdict."""
    report = Path(job_dir) / "report"
    report.mkdir(exist_ok=True)
    (report / "report.json").write_text(json.dumps({"findings": {"ruling": {"verdict": {"code": code}}}}))


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        ({"mains": False, "charge": 43}, "machine: on battery, 43%; 4 GB of 16 GB memory free"),
        ({"mains": True, "charge": 81}, "machine: on mains, battery 81%; 4 GB of 16 GB memory free"),
        ({"mains": None, "charge": None}, "machine: 4 GB of 16 GB memory free"),
    ],
)
def test_the_machine_is_told_as_far_as_it_is_known(home: Home, machine: dict[str, Any], line: str) -> None:
    known = MachineState(kept_awake=None, free_bytes=4_000_000_000, all_bytes=16_000_000_000, **machine)
    assert line in told(home, change=lambda seen: dataclasses.replace(seen, machine=known))


@pytest.mark.parametrize(
    ("kept", "words"), [(True, ", keeps the machine awake"), (False, "; the machine may fall asleep: lq doctor")]
)
def test_the_worker_says_whether_the_machine_stays_awake(home: Home, kept: bool, words: str) -> None:
    worker = {"pid": 7, "started_at": time.time()}

    def with_worker(seen: Snapshot) -> Snapshot:
        return dataclasses.replace(seen, worker=worker, machine=dataclasses.replace(seen.machine, kept_awake=kept))

    assert told(home, change=with_worker)[0].endswith(f", pid 7{words}")


# --- paper ---


class Stream(io.StringIO):
    """A terminal, or none, of some encoding."""

    def __init__(self, encoding: str, *, terminal: bool) -> None:
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("encoding", "environment", "only"),
    [
        ("utf-8", {}, False),
        ("utf-8", {"LC_ALL": "C"}, True),
        ("utf-8", {"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),
        ("ascii", {}, True),
        ("latin-1", {}, True),
    ],
)
def test_ascii_where_bars_cannot_be_printed(encoding: str, environment: dict[str, str], only: bool) -> None:
    assert Paper.of(Stream(encoding, terminal=False), environment).ascii is only


@pytest.mark.parametrize(
    ("environment", "terminal", "colours"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
    ],
)
def test_colours_where_they_are_wanted(environment: dict[str, str], terminal: bool, colours: bool) -> None:
    assert Paper.of(Stream("utf-8", terminal=terminal), environment).colours is colours


def test_a_bar_is_as_long_as_its_share() -> None:
    assert [len(bar(share, 10)[0]) for share in (-1.0, 0.0, 0.5, 1.0, 7.0)] == [0, 0, 5, 10, 10]
    assert all(len("".join(bar(share / 100, 10))) == 10 for share in range(101))
    assert bar(math.inf, 4)[0] == ""


def test_a_curve_shows_the_last_values_and_no_spike_flattens_it() -> None:
    assert curve([], 5) == ""
    assert curve([1.0, 1.0], 5) == LEVELS[4] * 2
    assert curve([3.0, 2.0, 1.0], 2) == LEVELS[-1] + LEVELS[0]
    assert curve([NAN, math.inf], 5) == BROKEN * 2
    spiked = curve([1.0 + number % 2 for number in range(30)] + [1000.0] + [1.0, 2.0] * 5, 60)
    assert LEVELS[0] + LEVELS[-1] in spiked
    falling = curve([8.0, *[1.0, 1.1] * 20], 60)
    assert set(falling[1:]) == {LEVELS[0]}, "a loss that begins high and falls is no spike"
    assert len(whole_curve([float(number) for number in range(1000)], 40)) == 40


def test_wide_characters_are_cut_at_whole_ones() -> None:
    assert cut("日本語", 4) == "日…"
    assert shortened("日本語日本語", 8) == "日本…語"
    assert shortened("short", 8) == "short"
    assert all(cell_len(shortened(STRANGE, width)) <= width for width in range(40))
