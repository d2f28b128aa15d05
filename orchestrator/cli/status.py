"""status."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from jobs.job import Job, Message, QueueState
from jobs.states import Status
from orchestrator import duty
from orchestrator.cli import output, reach
from orchestrator.cli.notify import undelivered
from orchestrator.cli.output import json_option
from workers.process import is_alive

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from orchestrator.app import App
    from orchestrator.schedule import Turn

_COLOURS = {
    Status.RUNNING: "green",
    Status.WAITING: "yellow",
    Status.PAUSED: "yellow",
    Status.HELD: "yellow",
    Status.SUCCEEDED: "bold",
    Status.FAILED: "red",
}
_SAY_IT_ALL = (Status.RUNNING, Status.QUEUED, Status.SUCCEEDED, Status.CANCELLED)
"""States that leave no question open; the others have their reason told."""

_BAR = 12


@click.command()
@click.option("--all", "every", is_flag=True, help="Every job, not only the last 20 that ended.")
@json_option
def status(every: bool, as_json: bool) -> None:
    """List every live job and the last ones that ended."""
    with reach.opened() as app:
        alive = duty.running(app.home)
        jobs = reach.all_jobs(app, every=every)
        queue = app.store.queue_state() if reach.has_store(app) else QueueState(paused_at=None, because=None)
        turns = waiting_turns(app, jobs)
        missed = undelivered(app)
        if as_json:
            pid = int(alive["pid"]) if alive is not None else None
            output.print_json(
                {
                    "worker": {"alive": alive is not None, "pid": pid},
                    "queue": {"paused": queue.paused_at is not None, "because": queue.because},
                    "messages": {"waiting": _waiting(missed), "gave_up": len(missed) - _waiting(missed)},
                    "jobs": [entry(job, turns.get(job.id)) for job in jobs],
                }
            )
            return
        _tell(jobs, alive, queue, turns)
        _tell_missed(missed)


def _waiting(missed: Sequence[Message]) -> int:
    return sum(message.settled is None for message in missed)


def _tell_missed(missed: Sequence[Message]) -> None:
    """Say that services did not get what they were to get: whoever reads this may be waiting for it."""
    waiting = _waiting(missed)
    gave_up = len(missed) - waiting
    said = [
        *([f"{waiting} not delivered yet, tried again"] if waiting else []),
        *([f"{gave_up} given up after a day"] if gave_up else []),
    ]
    if said:
        output.console().print(f"messages: {', '.join(said)}; see: lq notify list", style="yellow")


def waiting_turns(app: App, jobs: Sequence[Job]) -> dict[int, Turn]:
    """Return what keeps the jobs that wait for their turn, by id."""
    if not any(job.status in (Status.QUEUED, Status.WAITING) for job in jobs):
        return {}
    from orchestrator import schedule
    from workers.readings import Gauge

    found = schedule.turns(app.store, now=time.time(), zone=None, read=Gauge().read)
    return {turn.job.id: turn for turn in found}


def entry(job: Job, turn: Turn | None) -> dict[str, Any]:
    """Return a job as `lq status --json` gives it.

    Args:
        job: the job.
        turn: what keeps it from training; None where it does not wait for its turn.
    """
    obstacle = turn.obstacle if turn is not None and job.status is Status.QUEUED else None
    return {
        "id": job.id,
        "name": job.name,
        "status": job.status.value,
        "reason": job.reason,
        "iteration": job.iteration,
        "iters": job.iters,
        "train_loss": job.train_loss,
        "val_loss": job.val_loss,
        "it_s": job.it_s,
        "eta_seconds": job.eta_seconds,
        "attempts": job.attempts,
        "priority": job.priority,
        "group": job.group_name,
        "kept_by": None if obstacle is None else dataclasses.asdict(obstacle) | {"why": obstacle.why.value},
        "not_before": job.not_before if job.status is Status.WAITING else obstacle and obstacle.until,
        "pid": job.child.pid if job.child is not None and is_alive(job.child) else None,
        "job_dir": job.job_dir,
    }


def goes_on(job: Job, queue: QueueState, turn: Turn | None = None) -> str | None:
    """Say when a job that does not run goes on; None where it runs, has ended, is simply the next, or nobody knows.

    Args:
        job: the job.
        queue: whether it hands out jobs.
        turn: what keeps the job from training.
    """
    if job.status is Status.WAITING:
        due = job.not_before or 0.0
        return output.ahead(due) if due > time.time() else "as soon as it can"
    if job.status is Status.HELD:
        return f"with lq release {job.id}"
    if job.status is Status.PAUSED:
        return f"with lq resume {job.id}"
    if job.status is Status.QUEUED and queue.paused_at is not None:
        return "with lq resume --queue"
    until = turn.obstacle.until if turn is not None and turn.obstacle is not None else None
    return output.ahead(until) if until is not None else None


def _tell(jobs: list[Job], alive: dict[str, Any] | None, queue: QueueState, turns: Mapping[int, Turn]) -> None:
    from rich.text import Text

    console = output.console()
    if alive is not None:
        console.print(f"worker: running since {output.clock(alive.get('started_at'))}, pid {alive['pid']}")
    elif any(job.status in (Status.QUEUED, Status.WAITING, Status.RUNNING) for job in jobs):
        console.print("worker: none runs; start one: lq worker --detach", style="yellow")
    else:
        console.print("worker: none runs, and nothing waits for one")
    if queue.paused_at is not None:
        console.print(_paused(queue), style="yellow")
    if not jobs:
        console.print("no jobs yet; queue one: lq submit config.yaml, or see the whole story: lq demo")
        return
    console.print(_table(jobs, wide=console.width >= 100))
    for job in jobs:
        if (text := waits(job, queue, turns.get(job.id))) is not None:
            line = Text(text, style=_COLOURS.get(job.status, ""))
            console.print(line, no_wrap=True, overflow="ellipsis" if console.is_terminal else "ignore")


def waits(job: Job, queue: QueueState, turn: Turn | None) -> str | None:
    """Say why a job does not run, in one line; None where its state says it all."""
    because = f"{job.reason}: {job.detail}" if job.status not in _SAY_IT_ALL and job.detail else None
    if job.status is Status.QUEUED and turn is not None and turn.obstacle is not None:
        because = turn.obstacle.text
    if because is None:
        return None
    when = goes_on(job, queue, turn)
    verb = "starts" if job.status is Status.QUEUED and not job.attempts else "goes on"
    goes = f", {verb} {when}" if when is not None else ""
    return f"job {job.id} {job.status}{goes}: {because}"


def _paused(queue: QueueState) -> Text:
    from rich.text import Text

    return Text(
        f"queue: paused since {output.clock(queue.paused_at)}; no job starts before: lq resume --queue\n"
        f"       {queue.because}"
    )


def _table(jobs: list[Job], *, wide: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    table.add_column("name", min_width=8)  # the only one that gives way where the terminal is narrow
    table.add_column("state", no_wrap=True)
    table.add_column("progress", no_wrap=True)
    for title in ("loss", "val", "it/s", "ETA", "attempts" if wide else "att"):
        table.add_column(title, justify="right", no_wrap=True)
    for job in jobs:
        table.add_row(*_row(job), style="dim" if job.status in (Status.CANCELLED, Status.SKIPPED) else "")
    return table


def _row(job: Job) -> list[str | Text]:
    from rich.text import Text

    share = f"{100 * job.iteration // job.iters:3}%"
    return [
        str(job.id),
        Text(job.name, no_wrap=True, overflow="ellipsis"),  # as it is, whatever brackets and colons are in it
        Text(job.status, style=_COLOURS.get(job.status, "")),
        f"{output.bar(job.iteration, job.iters, _BAR)} {share}",
        output.loss(job.train_loss),
        output.loss(job.val_loss),
        output.speed(job.it_s) if job.status is Status.RUNNING else output.NONE,
        output.span(job.eta_seconds),
        str(job.attempts),
    ]
