"""The night as a page: who watches, what runs, what is to come, what has ended. Lines in, nothing is asked."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len

from jobs.model.job import Job, Message
from jobs.model.memory_limit import fits
from jobs.model.states import ENDED, LIVE, Status
from jobs.policies.verdict import Code
from orchestrator.cli.views.snapshot import JobDetails, MachineState, Snapshot
from orchestrator.cli.views.table import Column, grid
from orchestrator.cli.views.terminal import Paper, Piece, bar, curve, cut, padded, shortened
from orchestrator.cli.views.waiting import begins, reasons
from orchestrator.formatting import text as fmt
from orchestrator.formatting.incidents import title_of

if TYPE_CHECKING:
    from jobs.scheduling.timeline import Placed

WIDE = 130
"""From so many columns on there are two beside each other."""

MOST_EXPLAINED = 5
"""Jobs of a group of which it is said why they do not run: mostly it is the same of all."""

STYLE_OF = {
    Status.RUNNING: "good",
    Status.WAITING: "careful",
    Status.PAUSED: "careful",
    Status.HELD: "careful",
    Status.FAILED: "bad",
    Status.SKIPPED: "bad",
}
STYLE_OF_VERDICT: Mapping[str, str] = {Code.OK: "good", Code.DIVERGED: "bad", Code.INCONCLUSIVE: "dim"}
"""Of the others something can be done."""

_INDENT = 5
_LABEL = 12
_FIGURE = 9
_BAR = 24  # of memory
_SHORTEST_BAR = 5
_LONGEST_BAR = 72
_MUCH = 0.8
"""Of the memory a job may take."""

_PHASES = {
    "load": "loads the model",
    "tokenize": "tokenises the data",
    "probe": "tries the first updates",
    "validate": "validates",
    "save": "saves",
    "test": "measures the test set",
}
_WISHES = {
    "cancel": "is cancelled after its checkpoint",
    "pause": "pauses after its checkpoint",
    "worker_stop": "pauses after its checkpoint: the worker goes home",
}


def page(snapshot: Snapshot, paper: Paper) -> list[str]:
    """Return the lines of a glance.

    Args:
        snapshot: the night.
        paper: what they are for.
    """
    return [*_head(snapshot, paper), *_jobs(snapshot, paper), *_foot(snapshot, paper)]


def _jobs(snapshot: Snapshot, paper: Paper) -> Iterator[str]:
    if not snapshot.jobs:
        yield paper.line("no jobs yet; queue one: lq submit config.yaml, or see the whole story: lq demo")
        return
    if snapshot.group is not None:
        from orchestrator.cli.views import group

        yield from ("", *group.lines(snapshot.group, paper))
        yield from _reasons([job for job in snapshot.jobs if job.status in LIVE][:MOST_EXPLAINED], snapshot, paper)
        return
    running = [job for job in snapshot.jobs if job.status is Status.RUNNING]
    to_come = [job for job in snapshot.jobs if job.status in LIVE and job.status is not Status.RUNNING]
    finished = [job for job in snapshot.jobs if job.status in ENDED]
    if running:
        yield from ("", paper.line(("running", "bold")))
        for job in running:
            yield from _running(job, snapshot, paper)
    if to_come:
        yield from ("", paper.line(("to come", "bold")))
        yield from grid(_columns_to_come(to_come, snapshot, paper), paper)
        yield from _reasons(to_come, snapshot, paper)
    if finished:
        yield from ("", paper.line(("finished", "bold")))
        yield from grid(_columns_of_finished(finished, snapshot, paper), paper)
        yield from _reasons(finished, snapshot, paper)


# --- who watches ---


def _head(snapshot: Snapshot, paper: Paper) -> Iterator[str]:
    if snapshot.worker is not None:
        since = fmt.short_time(snapshot.worker.get("started_at"), snapshot.now)
        kept = {True: ", keeps the machine awake", False: "; the machine may fall asleep: lq doctor", None: ""}
        awake, style = kept[snapshot.machine.kept_awake], "careful" if snapshot.machine.kept_awake is False else ""
        yield from _told(paper, f"worker: running since {since}, pid {snapshot.pid}{awake}", style)
    elif any(job.status in (Status.QUEUED, Status.WAITING, Status.RUNNING) for job in snapshot.jobs):
        yield paper.line(("worker: none runs; start one: lq worker --detach", "careful"))
    else:
        yield paper.line("worker: none runs, and nothing waits for one")
    yield from _machine(snapshot.machine, paper)
    if snapshot.queue.paused_at is not None:
        since = fmt.clock(snapshot.queue.paused_at)
        yield from _told(paper, f"queue: paused since {since}; no job starts before: lq resume --queue", "careful")
        yield from _told(paper, f"       {snapshot.queue.because}", "careful", indent=7)


def _machine(machine: MachineState, paper: Paper) -> Iterator[str]:
    charge = f", battery {machine.charge}%" if machine.charge is not None else ""
    power = {True: f"on mains{charge}", False: f"on battery{charge.replace(', battery', ',')}"}
    said = [power[machine.mains]] if machine.mains is not None else []
    if machine.free_bytes is not None and machine.all_bytes is not None:
        said.append(f"{fmt.size(machine.free_bytes)} of {fmt.size(machine.all_bytes)} memory free")
    if said:
        yield paper.line(f"machine: {'; '.join(said)}")


def _foot(snapshot: Snapshot, paper: Paper) -> Iterator[str]:
    """Say what else somebody who looks at the night may be waiting for."""
    said = _missed(snapshot.undelivered)
    dropped = snapshot.inbox
    some = "1 file waits" if dropped.files == 1 else f"{dropped.files} files wait"
    if dropped.because is not None:
        said.append(f"inbox: nothing is taken from it: it {dropped.because}")
    elif dropped.files and snapshot.worker is None:
        said.append(f"inbox: {some} for a worker; start one: lq worker --detach")
    if said:
        yield ""
    for text in said:
        yield from _told(paper, text, "careful")


def _missed(missed: Sequence[Message]) -> list[str]:
    waiting = still_tried(missed)
    gave_up = len(missed) - waiting
    said = [
        *([f"{waiting} not delivered yet, tried again"] if waiting else []),
        *([f"{gave_up} given up after a day"] if gave_up else []),
    ]
    return [f"messages: {', '.join(said)}; see: lq notify list"] if said else []


def still_tried(missed: Sequence[Message]) -> int:
    """Return how many of the messages that services did not get are tried again."""
    return sum(message.settled is None for message in missed)


# --- what runs ---


def _running(job: Job, snapshot: Snapshot, paper: Paper) -> Iterator[str]:
    """Tell of a job that runs: its name, and below it figures, where there is room in two columns."""
    details = snapshot.details.get(job.id, JobDetails())
    yield _name_line(job, details, snapshot, paper)
    columns = 2 if paper.width >= WIDE and not paper.endless else 1
    width = (min(paper.width, 240) - _INDENT - 4 * (columns - 1)) // columns
    rows = [row for row in (_progress(job, width), *_losses(job, details, width), _speed(job, snapshot)) if row]
    more = [row for row in (_memory(details, width), _incidents(details, snapshot, width)) if row]
    if columns == 1:
        for row in [*rows, *more]:
            yield paper.line(" " * _INDENT, *row)
        return
    right = [rows.pop(), *more]
    for one, other in zip_longest(rows, right):
        taken = sum(cell_len(piece if isinstance(piece, str) else piece[0]) for piece in one or ())
        yield paper.line(" " * _INDENT, *(one or ()), " " * (width - taken + 4), *(other or ()))


def _name_line(job: Job, details: JobDetails, snapshot: Snapshot, paper: Paper) -> str:
    said = []
    if details.life is not None:
        said.append(f"attempt {details.life.number}, since {fmt.short_time(details.life.since, snapshot.now)}")
        if details.life.phase in _PHASES:
            said.append(_PHASES[details.life.phase])
    if job.stop_request is not None:
        said = [_WISHES.get(job.stop_request, job.stop_request)]
    right = ", ".join(said)
    name = fmt.printable(job.name)
    room = max(8, paper.width - _INDENT - cell_len(right) - 2 * bool(right))
    style = "careful" if job.stop_request else "dim"
    if paper.endless:  # what is looked for by its name is found with what matters
        done = f"{_share(job)}, loss {fmt.short_loss(job.train_loss)}, {fmt.short_duration(job.eta_seconds)} left"
        return paper.line(f"{job.id:>3}  {name}  {job.status}: {done}", (f"; {right}" if right else "", style))
    return paper.line(f"{job.id:>3}  ", (padded(shortened(name, room), room), "bold"), "  ", (right, style))


def _progress(job: Job, width: int) -> list[Piece]:
    figures = f"  {100 * job.iteration // job.iters:>3}%  {job.iteration:,} of {job.iters:,}"
    full, rest = bar(job.iteration / job.iters, max(10, min(_LONGEST_BAR, width - len(figures))))
    return [(full, "good"), (rest, "dim"), figures]


def _losses(job: Job, details: JobDetails, width: int) -> Iterator[list[Piece]]:
    values = [point.train_loss for point in details.recent]
    loss = values[-1] if values else job.train_loss
    if loss is not None:
        drawn = curve(values, width - _LABEL - _FIGURE - 2)
        yield [*_figure("loss", fmt.short_loss(loss), loss), (drawn, "good" if _fine(values) else "careful")]
    if job.val_loss is not None:
        best = (
            f"best {fmt.short_loss(details.best.loss)} at {details.best.iteration:,}"
            if details.best is not None
            else ""
        )
        yield [*_figure("validation", fmt.short_loss(job.val_loss), job.val_loss), best]


def _fine(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def _speed(job: Job, snapshot: Snapshot) -> list[Piece]:
    if job.it_s is None:
        return []
    done = ""
    if job.iteration >= job.iters:
        done = "trained to its end; adapter and report are made"
    elif job.eta_seconds is not None:
        end = round((snapshot.now + job.eta_seconds) / 60) * 60
        done = f"{fmt.short_duration(job.eta_seconds)} left, done {fmt.upcoming(end)}"
    return [*_figure("speed", f"{fmt.figure(job.it_s)} it/s"), done]


def _memory(details: JobDetails, width: int) -> list[Piece]:
    last = next((point for point in reversed(details.recent) if point.footprint_bytes or point.peak_bytes), None)
    if last is None:
        return []
    taken = last.footprint_bytes or last.peak_bytes or 0
    peak = f"peak {fmt.size(last.peak_bytes)}" if last.peak_bytes and last.footprint_bytes else ""
    row = _figure("memory", fmt.size(taken))
    if not last.limit_bytes:
        return [*row, peak]
    share = taken / last.limit_bytes
    said = f"  {100 * share:.0f}% of {fmt.size(last.limit_bytes)}" + (f", {peak}" if peak else "")
    room = width - _LABEL - _FIGURE - 2 - len(said)
    if room < _SHORTEST_BAR:
        return [*row, said.lstrip()]
    full, rest = bar(share, min(_BAR, room))
    style = "bad" if not fits(taken, last.limit_bytes) else "careful" if share > _MUCH else "good"
    return [*row, (full, style), (rest, "dim"), said]


def _incidents(details: JobDetails, snapshot: Snapshot, width: int) -> list[Piece]:
    if details.newest is None:
        return []
    when = fmt.short_time(details.newest.time, snapshot.now)
    newest = f"newest {when}: {title_of(details.newest.code)}"
    return [*_figure("incidents", str(details.incidents)), (cut(newest, width - _LABEL - _FIGURE - 2), "careful")]


def _figure(label: str, figure: str, value: float = 0.0) -> list[Piece]:
    style = "" if math.isfinite(value) else "bad"
    return [(f"{label:<{_LABEL}}", "dim"), (f"{figure:>{_FIGURE}}", style), "  "]


# --- what is to come, and what has ended ---


def _columns_to_come(jobs: Sequence[Job], snapshot: Snapshot, paper: Paper) -> list[Column]:
    return [
        *_naming(jobs),
        Column(title="done", cells=[_share(job) if job.iteration else "" for job in jobs], goes=2),
        Column(title="best val", cells=[_best(snapshot.details.get(job.id)) for job in jobs], goes=4),
        Column(title="attempts", cells=[str(job.attempts) if job.attempts else "" for job in jobs], goes=5),
        Column(title="priority", cells=[str(job.priority) if job.priority else "" for job in jobs], goes=3),
        *_grouped(jobs, paper),
        Column(title="starts", cells=[_starts(job, snapshot) for job in jobs]),
        Column(title="ends", cells=[_ends(snapshot.forecasts.get(job.id)) for job in jobs], goes=1),
    ]


def _columns_of_finished(jobs: Sequence[Job], snapshot: Snapshot, paper: Paper) -> list[Column]:
    details = [snapshot.details.get(job.id, JobDetails()) for job in jobs]
    wide = paper.width >= WIDE and not paper.endless
    return [
        *_naming(jobs),
        Column(title="verdict", cells=[_verdict(details.verdict) for details in details], right=False),
        Column(title="done", cells=[_share(job) for job in jobs], goes=4),
        *([Column(title="iterations", cells=[f"{job.iteration:,}" for job in jobs])] if wide else []),
        Column(title="loss", cells=[_loss(job.train_loss) for job in jobs], goes=5),
        Column(title="best val", cells=[_best(details) for details in details], goes=1),
        *(
            [Column(title="at", cells=[f"{one.best.iteration:,}" if one.best else "" for one in details])]
            if wide
            else []
        ),
        *([Column(title="last val", cells=[_loss(job.val_loss) for job in jobs])] if wide else []),
        *([Column(title="attempts", cells=[str(job.attempts) for job in jobs])] if wide else []),
        Column(title="incidents", cells=[str(details.incidents or "") for details in details], goes=7),
        *_grouped(jobs, paper),
        Column(title="took", cells=[_took(job) for job in jobs], goes=6),
        Column(title="ended", cells=[fmt.short_time(job.ended_at, snapshot.now) for job in jobs], goes=3),
    ]


def _naming(jobs: Sequence[Job]) -> list[Column]:
    return [
        Column(title="id", cells=[f"{job.id:>3}" for job in jobs]),
        Column(title="name", cells=[job.name for job in jobs], right=False, name=True),
        Column(title="state", cells=[(job.status.value, STYLE_OF.get(job.status, "")) for job in jobs], right=False),
    ]


def _grouped(jobs: Sequence[Job], paper: Paper) -> list[Column]:
    if paper.width < WIDE or paper.endless:
        return []
    return [Column(title="group", cells=[job.group_name or "" for job in jobs], right=False, goes=8)]


def _share(job: Job) -> str:
    return f"{100 * job.iteration // job.iters}%"


def _loss(value: float | None) -> Piece:
    return fmt.short_loss(value), "bad" if value is not None and not math.isfinite(value) else ""


def _best(details: JobDetails | None) -> Piece:
    return _loss(details.best.loss) if details is not None and details.best is not None else fmt.NONE


def _verdict(code: str | None) -> Piece:
    if code is None:
        return fmt.NONE
    return code, STYLE_OF_VERDICT.get(code, "careful")


def _took(job: Job) -> str:
    return fmt.short_duration(job.ended_at - job.started_at) if job.ended_at and job.started_at else fmt.NONE


def _starts(job: Job, snapshot: Snapshot) -> str:
    """Return when a job goes on: `~` says that it is a forecast."""
    if job.status is Status.WAITING and job.not_before is not None:
        return fmt.short_time(job.not_before, snapshot.now) if job.not_before > snapshot.now else "soon"
    turn = snapshot.turns.get(job.id)
    until = turn.obstacle.until if turn is not None and turn.obstacle is not None else None
    forecast = begins(snapshot.forecasts.get(job.id))
    return f"~{fmt.short_time(until, snapshot.now)}" if forecast == fmt.NONE and until is not None else forecast


def _ends(placed: Placed | None) -> str:
    return f"~{fmt.short_time(placed.end)}" if placed is not None and placed.end is not None else fmt.NONE


def _reasons(jobs: Sequence[Job], snapshot: Snapshot, paper: Paper) -> Iterator[str]:
    for status, text in reasons(jobs, snapshot.queue, snapshot.turns):
        yield from _told(paper, text, STYLE_OF.get(status, ""))


def _told(paper: Paper, text: str, style: str, *, indent: int = 4) -> Iterator[str]:
    """Yield a text in as many lines as it needs."""
    if paper.endless or cell_len(text) <= paper.width:
        yield paper.line((text, style))
        return
    for line in textwrap.wrap(
        text, paper.width, subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True
    ):
        yield paper.line((line, style))
