"""`lq watch`: the night at a glance, drawn anew where something changed."""

from __future__ import annotations

import os
import sys
import time

import click

from jobs.model.exit_codes import ExitCode
from orchestrator.cli import home_access
from orchestrator.cli.views.screen import GONE, Screen
from orchestrator.cli.views.snapshot import Snapshot, VerdictCache, take_snapshot
from orchestrator.cli.views.status import page
from orchestrator.cli.views.terminal import Paper, is_able
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

TICK_S = 1.0
"""The screen changes at most so often, but for another size of it."""

LOOK_S = 5.0
"""The store and the machine are looked at so often where nothing rings: clocks, batteries and workers do not."""

LEAVE = ("q", "Q", "\x04", GONE)


def watching(*, every: bool, group: str | None) -> int:
    """Watch until the user leaves; return the exit code.

    Args:
        every: every job, not only the last 20 that ended.
        group: only the jobs of this group.
    """
    if not sys.stdout.isatty() or not is_able(os.environ):
        raise click.UsageError(
            "lq watch draws on a terminal, and this is none; one look: lq status; a line an event: lq logs ID -f"
        )
    try:
        with home_access.open_app() as app:
            snapshot = take_snapshot(app, every=every, group=group)  # what is wrong is told before the screen is taken
            with Screen() as screen:
                _watch(app, screen, snapshot, VerdictCache(), every=every, group=group)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return 0


def _watch(
    app: App, screen: Screen, snapshot: Snapshot, verdicts: VerdictCache, *, every: bool, group: str | None
) -> None:
    changes, looked, due = _changes(app), time.monotonic(), 0.0
    while True:
        screen.show(_drawn(snapshot, screen))
        due = time.monotonic() + TICK_S
        while (left := due - time.monotonic()) > 0:
            key, anew = screen.wait(left)
            if key in LEAVE:
                return
            if anew:
                screen.show(_drawn(snapshot, screen))
        if (now_at := _changes(app)) != changes or time.monotonic() - looked >= LOOK_S:
            changes, looked = now_at, time.monotonic()
            snapshot = take_snapshot(app, every=every, group=group, verdicts=verdicts)


def _changes(app: App) -> int | None:
    return app.store.status.data_version() if home_access.has_store(app) else None


def _drawn(snapshot: Snapshot, screen: Screen) -> list[str]:
    """Return the page as far as the screen has room, and a last line that says how to leave."""
    columns, rows = screen.size
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    paper = Paper.of(sys.stdout, environment)
    lines = page(snapshot, paper)
    room = max(1, rows - 2)
    if len(lines) > room:
        more = len(lines) - room + 1
        lines = [*lines[: room - 1], paper.line((f"… {more} more lines; all of them: lq status", "dim"))]
    left, right = "q leaves", f"as of {fmt.short_time(snapshot.now)}"
    foot = f"{left}{right:>{max(1, columns - len(left))}}"
    return [*lines, *[""] * (rows - 1 - len(lines)), paper.line((foot, "dim"))]
