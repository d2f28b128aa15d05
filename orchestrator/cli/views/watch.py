"""`lq watch`: the status view on the whole screen, with keys that select, show and control a job."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from jobs.model.errors import LqError
from jobs.model.exit_codes import ExitCode
from jobs.model.job import Job
from jobs.model.states import ENDED, RETRIABLE
from orchestrator.cli import home_access
from orchestrator.cli.commands import control
from orchestrator.cli.output import ChangeOutput
from orchestrator.cli.views import job as job_view
from orchestrator.cli.views import status
from orchestrator.cli.views.job_log import newest_entries, wrapped
from orchestrator.cli.views.screen import CLOSED, Screen
from orchestrator.cli.views.snapshot import Snapshot, VerdictCache, take_snapshot
from orchestrator.cli.views.terminal import Fitted, console_for
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

TICK_S = 1.0
"""The screen is redrawn at most this often, except for keys and a new size."""

REFRESH_S = 5.0
"""A new snapshot is taken this often although the store has not changed: worker, battery and clock may have."""

_LEAST_LOG = 4
"""Free lines below the list from which on they show the log of the selected job."""

_BELOW = 8
"""Lines of a running job, which stay visible with it."""

_LIST_KEYS = ("q quits", "? help", "↑↓ select", "enter show", "l log", "p pause", "r resume", "c cancel")
_TEXT_KEYS = ("q back", "? help", "↑↓ scroll", "p pause", "r resume", "c cancel")
_HELP = {
    "up, down, k, j": "select a job, or scroll",
    "page up, page down": "move by a screen",
    "home, end": "first or last job or line",
    "enter": "show the job",
    "l": "show its log, and follow it",
    "p": "pause it",
    "r": "resume it; a failed or cancelled job is queued again",
    "c": "cancel it, after a question",
    "d": "dismiss it, if it did not succeed",
    "esc, q": "back to the list",
    "q in the list, Ctrl-C": "leave; the worker and the jobs continue",
}
_MOVES = ("up", "down", "k", "j", "page up", "page down", "home", "end")


def watching(*, every: bool, group: str | None) -> int:
    """Show the status view until the user leaves; return the exit code."""
    if not sys.stdout.isatty() or console_for(sys.stdout).is_dumb_terminal:
        raise click.UsageError("lq watch needs a terminal; without one use: lq status, or lq logs ID -f")
    try:
        with home_access.open_app() as app:
            watch = Watch(app, every=every, group=group)  # errors appear before the screen is taken
            with Screen() as screen:
                screen.show(watch)
                while not watch.left:
                    keys = screen.keys_within(TICK_S)
                    for key in keys:
                        watch.press(key, page=screen.height - 2)
                    if watch.refresh() or keys:
                        screen.show(watch)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return 0


class Watch:
    """What the screen shows, and what a key does."""

    def __init__(self, app: App, *, every: bool = False, group: str | None = None) -> None:
        """Take the first snapshot, and select the first job."""
        self._app, self._every, self._group, self._verdicts = app, every, group, VerdictCache()
        self.left = False
        self._mode = "list"  # or show, log, help
        self._asked: Job | None = None  # the job to cancel, while the question is shown
        self._message = ""
        self._first, self._last = 0, 0  # first line of a text that is shown, and the highest that can be
        self._follows = False  # the end of the text
        self.snapshot = self._take()
        self.selected = self._ids[0] if self._ids else None

    def _take(self) -> Snapshot:
        self._changes, self._taken_at = self._version(), time.monotonic()
        return take_snapshot(self._app, every=self._every, group=self._group, verdicts=self._verdicts)

    def _version(self) -> int | None:
        return self._app.store.status.data_version() if home_access.has_store(self._app) else None

    def refresh(self, *, now: bool = False) -> bool:
        """Take a new snapshot if something has changed, or `now`; return whether it was taken."""
        if not now and self._version() == self._changes and time.monotonic() - self._taken_at < REFRESH_S:
            return False
        place = self._ids.index(self.selected) if self.selected in self._ids else 0
        self.snapshot = self._take()
        if self.selected not in self._ids:  # it is not listed any more
            self.selected = self._ids[min(place, len(self._ids) - 1)] if self._ids else None
        return True

    @property
    def _ids(self) -> list[int]:
        return [job.id for part in status.parts_of(self.snapshot) for job in part]

    # --- keys ---

    def press(self, key: str, *, page: int = 20) -> None:
        """Do what a key means; `page` is a number of lines."""
        asked, self._asked, self._message = self._asked, None, ""
        if key == CLOSED:
            self.left = True
        elif asked is not None:
            if key in ("y", "Y"):
                self._change(asked, key="c")
        elif key in ("q", "Q", "esc"):
            self.left = self._mode == "list" and key != "esc"
            self._open("list")
        elif key in _MOVES:
            (self._select if self._mode == "list" else self._scroll)(key, page)
        elif key == "?":
            self._open("help")
        elif self.selected is not None and key in ("enter", "l", "p", "r", "c", "d"):
            self._use(self._app.store.jobs.get(self.selected), key)

    def _use(self, job: Job, key: str) -> None:
        if key in ("enter", "l"):
            self._open("show" if key == "enter" else "log")
        elif key == "c" and job.status not in ENDED:
            self._asked = job
        else:
            self._change(job, key)

    def _open(self, mode: str) -> None:
        self._mode, self._first, self._follows = mode, 0, mode == "log"

    def _select(self, key: str, page: int) -> None:
        if self.selected in self._ids:
            self.selected = self._ids[_moved(self._ids.index(self.selected), key, page, len(self._ids) - 1)]

    def _scroll(self, key: str, page: int) -> None:
        self._first = _moved(self._last if self._follows else self._first, key, page, self._last)
        self._follows = self._mode == "log" and self._first == self._last

    def _change(self, job: Job, key: str) -> None:
        """Pause, resume, retry or cancel a job, and keep what the verb says."""
        lines: list[str] = []
        out = ChangeOutput(echo=lines.append)
        try:
            home_access.require_wakeup(self._app)
            if key == "p":
                control.pause_jobs(self._app, [job], out, waits=False)
            elif key == "d":
                control.dismiss_jobs(self._app, [job], out)
            elif key == "c":
                control.cancel_jobs(self._app, [job], out, waits=False)
            else:
                again = control.retry_jobs if job.status in RETRIABLE else control.resume_jobs
                again(self._app, [job], out)
                out.line(home_access.wake_worker(self._app))
        except LqError as error:
            lines.append(f"lq: {error}")
        self._message = "; ".join(lines)
        self.refresh(now=True)  # the version of the store does not change with its own writes

    # --- the screen ---

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render as many lines as the screen has: a part of the view, and a last line with keys or a message."""
        rows, options = console.size.height - 1, options.update(height=None)
        lines = console.render_lines(self._view(), options, pad=False)
        if self._mode == "list":
            spare = rows - len(lines) - 2
            if spare >= _LEAST_LOG and self.selected is not None:
                lines += console.render_lines(Group("", *self._log(options.max_width, spare)), options, pad=False)
            marked = next((place for place, line in enumerate(lines) if _is_marked(line)), 0)
            is_top = self.selected == next(iter(self._ids), None) and marked < rows - 1
            self._first = 0 if is_top else max(min(self._first, marked - 1), marked - rows + _BELOW)
        self._last = max(0, len(lines) - rows)
        self._first = self._last if self._follows else min(max(self._first, 0), self._last)
        shown = lines[self._first : self._first + rows]
        for place, left_out in ((0, self._first), (-1, self._last - self._first)):
            if left_out and rows > 2:
                note = f"… {left_out + 1} more lines {'below' if place else 'above'}"
                shown[place] = console.render_lines(Text(note, "dim", no_wrap=True), options, pad=False)[0]
        filler: list[list[Segment]] = [[]] * (rows - len(shown))
        for line in [*shown, *filler]:
            yield from (*line, Segment.line())
        yield self._foot(options.max_width)

    def _view(self) -> RenderableType:
        if self._mode == "help":
            table = Table.grid(padding=(0, 2, 0, 0))
            for keys, effect in _HELP.items():
                table.add_row(Text(keys, "bold"), effect)
            return table
        if self._mode == "list" or self.selected is None:
            return status.render(self.snapshot, self.selected)
        if self._mode == "show":
            return job_view.render(self._app, self._app.store.jobs.get(self.selected), now=self.snapshot.now)
        return Fitted(lambda width: Group(*self._log(width)))

    def _log(self, width: int, most: int | None = None) -> list[Text]:
        """Return the log of the selected job: its `most` last lines, cut, or its end, wrapped."""
        assert self.selected is not None
        title = Text(f"log of job {self.selected}", "bold")
        lines = []
        for entry in newest_entries(self._app, self.selected)[-(most or 0) :]:
            for text in wrapped(entry.text, width) if most is None else [entry.text]:
                lines.append(Text(text, entry.style, no_wrap=True, overflow="ellipsis"))
        return [title, *(lines or [Text("no line yet", "dim")])]

    def _foot(self, width: int) -> Text:
        if self._asked is not None:
            name = f"{self._asked.id} ({self._asked.name})"
            return Text(f"cancel job {name}? y, or any other key to keep it", "careful", no_wrap=True)
        if self._message:
            return Text(self._message, "careful", no_wrap=True, overflow="ellipsis")
        moment = f"as of {fmt.short_time(self.snapshot.now, self.snapshot.now)}"
        left = ""
        for key in _LIST_KEYS if self._mode == "list" else _TEXT_KEYS:
            if len(left) + len(key) + 2 + len(moment) <= width:
                left += f"{key}  "
        return Text(f"{left}{moment:>{max(1, width - len(left))}}", "dim", no_wrap=True)


def _moved(place: int, key: str, page: int, last: int) -> int:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page, "home": -last, "end": last}
    return min(max(place + steps[key], 0), last)


def _is_marked(line: Sequence[Segment]) -> bool:
    return any(segment.style is not None and segment.style.reverse for segment in line)
