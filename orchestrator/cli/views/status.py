"""`lq status`: the worker, running, pending and finished jobs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.model.job import Job
from jobs.model.memory_limit import fits
from jobs.model.states import ENDED, LIVE, Status
from jobs.policies.verdict import Code
from orchestrator.cli.views.snapshot import JobDetails, MachineState, Snapshot
from orchestrator.cli.views.terminal import (
    MARKED,
    UNCUT,
    Column,
    Fitted,
    Sparkline,
    fitted_table,
    labelled,
    share,
    shortened,
)
from orchestrator.cli.views.waiting import INTERRUPTED, id_ranges, waits_of
from orchestrator.formatting import text as fmt
from orchestrator.formatting.incidents import title_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.planning.queue_forecast import QueueForecast

WIDE = 130
"""Columns of a terminal that shows the figures of a running job in two columns."""

STYLE_OF = {
    Status.RUNNING: "good",
    Status.WAITING: "careful",
    Status.PAUSED: "careful",
    Status.HELD: "careful",
    Status.FAILED: "bad",
    Status.SKIPPED: "bad",
}
STYLE_OF_VERDICT: Mapping[str, str] = {Code.OK: "good", Code.DIVERGED: "bad", Code.INCONCLUSIVE: "dim"}
"""Verdicts without a style here are `careful`."""

_EXPLAINED_OF_GROUP = 5
_LONGEST_BAR = 72
_MEMORY_BAR = 24
_SHORTEST_BAR = 5
_LABEL_WIDTH = 23  # label and value of a figure, with the space after each
_MUCH_MEMORY = 0.8  # share of the limit

_PHASES = {
    "load": "loading the model",
    "tokenize": "tokenizing the data",
    "reference": "measuring the reference",
    "probe": "probing memory",
    "validate": "validating",
    "save": "saving a checkpoint",
    "test": "evaluating the test set",
}
_STOP_REQUESTS = {
    "cancel": "stops after its next checkpoint: cancelled",
    "pause": "pauses after its next checkpoint",
    "worker_stop": "pauses after its next checkpoint: the worker shuts down",
}

Row = tuple[str, Text, "RenderableType"]
"""A figure of a running job: label, value, and a bar, curve or note."""


def render(snapshot: Snapshot, selected: int | None = None) -> RenderableType:
    """Return the view of a snapshot; the job `selected` is marked."""
    return Fitted(lambda width: Group(*_head(snapshot), *_jobs(snapshot, width, selected), *_foot(snapshot)))


def parts_of(snapshot: Snapshot) -> tuple[list[Job], list[Job], list[Job]]:
    """Return the jobs in the order of the view: running, pending, and finished ones; of a group all at once."""
    if snapshot.group is not None:
        return [], [], list(snapshot.jobs)
    running = [job for job in snapshot.jobs if job.status is Status.RUNNING]
    pending = [job for job in snapshot.jobs if job.status in LIVE and job.status is not Status.RUNNING]
    return running, pending, [job for job in snapshot.jobs if job.status in ENDED]


def _jobs(snapshot: Snapshot, width: int, selected: int | None) -> Iterator[RenderableType]:
    if not snapshot.jobs:
        yield Text("no jobs yet; queue one: lq submit config.yaml, or run the demonstration: lq demo")
        return
    if snapshot.group is not None:
        from orchestrator.cli.views.comparison import status_of_group

        yield from ("", status_of_group(snapshot.group, selected))
        live = [job for job in snapshot.jobs if job.status in LIVE]
        yield from _reasons(live[:_EXPLAINED_OF_GROUP], snapshot)
        return
    running, pending, finished = parts_of(snapshot)
    if running:
        yield from ("", Text("running", style="bold"))
        for job in running:
            yield from _running(job, snapshot, width, selected)
    for title, jobs, columns in (("pending", pending, _pending_columns), ("finished", finished, _finished_columns)):
        if jobs:
            yield from ("", Text(title, style="bold"))
            ids = [job.id for job in jobs]
            yield fitted_table(columns(jobs, snapshot), width, ids.index(selected) if selected in ids else None)
            yield from _reasons(jobs, snapshot)


# --- worker, machine, queue, messages, inbox ---


def _head(snapshot: Snapshot) -> Iterator[RenderableType]:
    if snapshot.worker is not None:
        since = fmt.short_time(snapshot.worker.get("started_at"), snapshot.now)
        awake = {True: ", keeps the machine awake", False: "; the machine may go to sleep: lq doctor", None: ""}
        style = "careful" if snapshot.machine.kept_awake is False else ""
        yield labelled(
            "worker:", f"running since {since}, pid {snapshot.pid}{awake[snapshot.machine.kept_awake]}", style
        )
    elif any(job.status in (Status.QUEUED, Status.WAITING, Status.RUNNING) for job in snapshot.jobs):
        yield labelled("worker:", "not running; start one: lq worker start", "careful")
    else:
        yield labelled("worker:", "not running; no job needs one")
    if facts := _machine(snapshot.machine):
        yield labelled("machine:", "; ".join(facts))
    if snapshot.queue.paused_at is not None:
        since = fmt.short_time(snapshot.queue.paused_at, snapshot.now)
        yield labelled("queue:", f"paused since {since}, starts no job: {snapshot.queue.text}", "careful")
    if snapshot.settings_fault is not None:
        remedy = "until you fix it, no message is sent and no job can be submitted"
        yield labelled("settings:", f"{snapshot.settings_fault}; {remedy}", "bad")


def _machine(machine: MachineState) -> list[str]:
    facts = []
    if machine.mains is not None:
        charge = f", battery {machine.charge}%" if machine.charge is not None else ""
        facts.append(f"on mains{charge}" if machine.mains else f"on battery{charge.replace(', battery', ',')}")
    if machine.free_bytes is not None and machine.all_bytes is not None:
        facts.append(f"{fmt.size(machine.free_bytes)} of {fmt.size(machine.all_bytes)} memory free")
    return facts


def _foot(snapshot: Snapshot) -> Iterator[RenderableType]:
    lines: list[RenderableType] = [""]
    inbox = snapshot.inbox
    if snapshot.undelivered:
        gave_up = len(snapshot.undelivered) - snapshot.still_tried
        counts = {"not delivered yet, retrying": snapshot.still_tried, "given up after a day": gave_up}
        text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        lines.append(labelled("messages:", f"{text}; see: lq notify list", "careful"))
    if inbox.because is not None:
        lines.append(labelled("inbox:", f"lq does not read it: it {inbox.because}", "careful"))
    elif inbox.files and snapshot.worker is None:
        files = "1 file waits" if inbox.files == 1 else f"{inbox.files} files wait"
        lines.append(labelled("inbox:", f"{files} for a worker; start one: lq worker start", "careful"))
    yield from lines if len(lines) > 1 else ()


def _reasons(jobs: Sequence[Job], snapshot: Snapshot) -> Iterator[RenderableType]:
    for wait, ids in waits_of(jobs, snapshot.queue, snapshot.turns, now=snapshot.now).items():
        label = f"{'job' if len(ids) == 1 else 'jobs'} {id_ranges(ids)}"
        yield labelled(label, wait.text(ids), STYLE_OF.get(wait.status, ""))


# --- running jobs ---


def _running(job: Job, snapshot: Snapshot, width: int, selected: int | None) -> Iterator[RenderableType]:
    details = snapshot.details.get(job.id, JobDetails())
    line = _name_line(job, details, snapshot, width)
    line.stylize(MARKED if job.id == selected else "")
    yield line
    is_wide = WIDE <= width < UNCUT
    half = (width - 9) // 2 if is_wide else (80 if width >= UNCUT else width) - 5
    rows = [*_losses(job, details), *_speed(job, snapshot)]
    more = [*_memory(details, half - _LABEL_WIDTH), *_incidents(details, snapshot)]
    if is_wide:
        two = Table.grid(expand=True, padding=(0, 4, 0, 0))
        two.add_column(ratio=1)
        two.add_column(ratio=1)
        two.add_row(Group(_progress(job, half), _grid(rows[:-1])), _grid([*rows[-1:], *more]))
        yield Padding.indent(two, 5)
    else:
        yield Padding.indent(Group(_progress(job, half), _grid([*rows, *more])), 5)


def _grid(rows: Iterable[Row]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=10)
    table.add_column(justify="right", no_wrap=True, min_width=9)
    table.add_column()
    for label, value, rest in rows:
        table.add_row(label, value, Text(rest, no_wrap=True, overflow="ellipsis") if isinstance(rest, str) else rest)
    return table


def _name_line(job: Job, details: JobDetails, snapshot: Snapshot, width: int) -> Text:
    note, style = "", "careful" if job.stop_request or job.id in snapshot.interrupted else "dim"
    if job.id in snapshot.interrupted:
        note = INTERRUPTED
    elif job.stop_request is not None:
        note = _STOP_REQUESTS.get(job.stop_request, job.stop_request)
    elif details.life is not None:
        attempt = f"attempt {details.life.number}, since {fmt.short_time(details.life.since, snapshot.now)}"
        note = ", ".join(filter(None, (attempt, _PHASES.get(details.life.phase or ""))))
    if width >= UNCUT:
        left = snapshot.forecast.time_left.get(job.id)
        time_left = fmt.short_duration(left.expected_s if left is not None else None)
        done = f"{share(job)}, loss {fmt.short_loss(job.train_loss)}, {time_left} left"
        return Text.assemble(f"{job.id:>3}  {job.name}  {job.status}: {done}", (f"; {note}" if note else "", style))
    space = width - 7 - Text(note).cell_len
    name = Text(shortened(job.name, max(8, space)), style="bold")
    name.pad_right(max(0, space - name.cell_len))
    return Text.assemble(f"{job.id:>3}  ", name, "  ", (note, style))


def _progress(job: Job, width: int) -> RenderableType:
    figures = f"{share(job):>4}  {job.iteration:,} of {job.iters:,}"
    bar = _bar(job.iteration, job.iters, "good", max(10, min(_LONGEST_BAR, width - len(figures) - 2)))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row(bar, Text(figures, no_wrap=True))
    return table


def _bar(completed: float, total: float, style: str, width: int) -> ProgressBar:
    return ProgressBar(total, completed, width=width, style="dim", complete_style=style, finished_style=style)


def _losses(job: Job, details: JobDetails) -> Iterator[Row]:
    values, best = [point.train_loss for point in details.recent], details.best
    loss = values[-1] if values else job.train_loss
    if loss is not None:
        yield "loss", _loss(loss), Sparkline(values, "good" if all(map(math.isfinite, values)) else "careful")
    if job.val_loss is not None:
        text = f"best {fmt.short_loss(best.loss)} at {best.iteration:,}" if best is not None else ""
        yield "validation", _loss(job.val_loss), text


def _speed(job: Job, snapshot: Snapshot) -> Iterator[Row]:
    if job.it_s is not None:
        end = time_left(job, snapshot.forecast, snapshot.now)
        if job.iteration >= job.iters and job.id not in snapshot.interrupted:
            end = "training complete, writing the adapter and the report"
        yield "speed", Text(f"{fmt.figure(job.it_s)} it/s"), end


def time_left(job: Job, forecast: QueueForecast, now: float) -> str:
    """Return how long a running job still takes and when it will be done; empty if unknown."""
    left, times = forecast.time_left.get(job.id), forecast.times.get(job.id)
    if left is None:
        return ""
    end = round(times.end / 60) * 60 if times is not None and times.end is not None else None
    return f"{fmt.short_duration(left.expected_s)} left" + (f", done {fmt.upcoming(end, now)}" if end else "")


def _memory(details: JobDetails, width: int) -> Iterator[Row]:
    last = next((point for point in reversed(details.recent) if point.footprint_bytes or point.peak_bytes), None)
    if last is None:
        return
    used = last.footprint_bytes or last.peak_bytes or 0
    peak = f"peak {fmt.size(last.peak_bytes)}" if last.peak_bytes and last.footprint_bytes else ""
    if not last.limit_bytes:
        yield "memory", Text(fmt.size(used)), peak
        return
    of_limit = used / last.limit_bytes
    style = "bad" if not fits(used, last.limit_bytes) else "careful" if of_limit > _MUCH_MEMORY else "good"
    figures = f"{of_limit:.0%} of {fmt.size(last.limit_bytes)}" + (f", {peak}" if peak else "")
    space = min(_MEMORY_BAR, width - len(figures) - 2)
    bar = Table.grid(padding=(0, 2, 0, 0))
    bar.add_row(*([_bar(used, last.limit_bytes, style, space)] if space >= _SHORTEST_BAR else []), figures)
    yield "memory", Text(fmt.size(used)), bar


def _incidents(details: JobDetails, snapshot: Snapshot) -> Iterator[Row]:
    if details.newest is not None:
        last = f"last {fmt.short_time(details.newest.time, snapshot.now)}: {title_of(details.newest.code)}"
        yield "incidents", Text(str(details.incidents)), Text(last, "careful", no_wrap=True, overflow="ellipsis")


# --- tables ---


def _pending_columns(jobs: Sequence[Job], snapshot: Snapshot) -> list[Column]:
    times = [snapshot.forecast.times.get(job.id) for job in jobs]
    return [
        *_identity(jobs),
        Column("done", [share(job) if job.iteration else "" for job in jobs], drop=2),
        Column("best val", [_best(snapshot.details.get(job.id)) for job in jobs], drop=4),
        Column("attempts", [str(job.attempts or "") for job in jobs], drop=5),
        Column("priority", [str(job.priority or "") for job in jobs], drop=3),
        Column("group", [job.group_name or "" for job in jobs], right=False, drop=6),
        Column("starts", [_starts(job, snapshot) for job in jobs]),
        Column("ends", [_forecast(one.end if one else None, snapshot.now) for one in times], drop=1),
    ]


def _finished_columns(jobs: Sequence[Job], snapshot: Snapshot) -> list[Column]:
    details = [snapshot.details.get(job.id, JobDetails()) for job in jobs]
    took = [job.ended_at - job.started_at if job.ended_at and job.started_at else None for job in jobs]
    return [
        *_identity(jobs),
        Column("verdict", [_verdict(one.verdict) for one in details], right=False),
        Column("done", [share(job) for job in jobs], drop=4),
        Column("loss", [_loss(job.train_loss) for job in jobs], drop=5),
        Column("best val", [_best(one) for one in details], drop=1),
        Column("at", [f"{one.best.iteration:,}" if one.best else "" for one in details], drop=9),
        Column("attempts", [str(job.attempts) for job in jobs], drop=10),
        Column("incidents", [str(one.incidents or "") for one in details], drop=7),
        Column("group", [job.group_name or "" for job in jobs], right=False, drop=8),
        Column("took", [fmt.short_duration(seconds) for seconds in took], drop=6),
        Column("ended", [fmt.short_time(job.ended_at, snapshot.now) for job in jobs], drop=3),
    ]


def _identity(jobs: Sequence[Job]) -> list[Column]:
    return [
        Column("id", [f"{job.id:>3}" for job in jobs]),
        Column("name", [job.name for job in jobs], right=False, is_name=True),
        Column("state", [Text(job.status, _style(job)) for job in jobs], right=False),
    ]


def _style(job: Job) -> str:
    return STYLE_OF.get(job.status, "") if job.dismissed_at is None else "dim"


def _loss(value: float | None) -> Text:
    return Text(fmt.short_loss(value), "bad" if value is not None and not math.isfinite(value) else "")


def _best(details: JobDetails | None) -> Text:
    return _loss(details.best.loss if details is not None and details.best is not None else None)


def _verdict(code: str | None) -> Text:
    return Text(code or fmt.NONE, STYLE_OF_VERDICT.get(code, "careful") if code else "")


def _starts(job: Job, snapshot: Snapshot) -> str:
    """Return when a job starts or resumes; `~` marks a forecast."""
    if job.status is Status.WAITING and job.not_before is not None:
        return fmt.short_time(job.not_before, snapshot.now) if job.not_before > snapshot.now else "soon"
    times, turn = snapshot.forecast.times.get(job.id), snapshot.turns.get(job.id)
    until = turn.obstacle.until if turn is not None and turn.obstacle is not None else None
    return _forecast(until if times is None or times.start is None else times.start, snapshot.now)


def _forecast(moment: float | None, now: float) -> str:
    return fmt.NONE if moment is None else f"~{fmt.short_time(moment, now)}"
