"""status."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from jobs.job import Job, Message, QueueState
from jobs.states import ENDED, Status
from orchestrator import duty
from orchestrator.cli import group, output, reach
from orchestrator.cli.group import Group
from orchestrator.cli.notify import undelivered
from orchestrator.cli.output import json_option
from orchestrator.cli.waiting import begins, forecast, waiting_turns, waits
from orchestrator.dropped import Waiting, waiting_in
from workers.process import is_alive

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from jobs.timeline import Placed
    from orchestrator.schedule import Turn

_COLOURS = {
    Status.RUNNING: "green",
    Status.WAITING: "yellow",
    Status.PAUSED: "yellow",
    Status.HELD: "yellow",
    Status.SUCCEEDED: "bold",
    Status.FAILED: "red",
}
_BAR = 12
MOST_EXPLAINED = 5
"""Jobs of a group of which it is said why they do not run: mostly it is the same of all."""


@click.command()
@click.option("--all", "every", is_flag=True, help="Every job, not only the last 20 that ended.")
@click.option(
    "--group",
    "group_name",
    metavar="NAME",
    shell_complete=reach.offer_groups,
    help="Only the jobs of this group, with their settings; the best one marked.",
)
@json_option
def status(every: bool, group_name: str | None, as_json: bool) -> None:
    """List every live job and the last ones that ended."""
    with reach.opened() as app:
        alive = duty.running(app.home)
        of_group = Group(app, group_name) if group_name is not None else None
        jobs = of_group.jobs if of_group is not None else reach.all_jobs(app, every=every)
        queue = app.store.queue_state() if reach.has_store(app) else QueueState(paused_at=None, because=None)
        turns = waiting_turns(app, jobs)
        placed = forecast(app, turns, slots=int((alive or {}).get("slots", 1)))
        missed, dropped = undelivered(app), waiting_in(app.home.inbox)
        if as_json:
            pid = int(alive["pid"]) if alive is not None else None
            output.print_json(
                {
                    "worker": {"alive": alive is not None, "pid": pid},
                    "queue": {"paused": queue.paused_at is not None, "because": queue.because},
                    "messages": {"waiting": _waiting(missed), "gave_up": len(missed) - _waiting(missed)},
                    "inbox": {"waiting": dropped.files, "because": dropped.because},
                    "jobs": [
                        entry(job, turns.get(job.id), placed.get(job.id))
                        | (of_group.entry(place) if of_group is not None else {})
                        for place, job in enumerate(jobs)
                    ],
                }
            )
            return
        _tell(jobs, alive, queue, turns, placed, of_group)
        _tell_missed(missed)
        _tell_dropped(dropped, alive is not None)


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


def _tell_dropped(dropped: Waiting, looked_after: bool) -> None:
    """Say why dropped files are not taken in: no worker looks, or the folder is not as it must be."""
    some = "1 file waits" if dropped.files == 1 else f"{dropped.files} files wait"
    if dropped.because is not None:
        output.console().print(f"inbox: nothing is taken from it: it {dropped.because}", style="yellow")
    elif dropped.files and not looked_after:
        output.console().print(f"inbox: {some} for a worker; start one: lq worker --detach", style="yellow")


def entry(job: Job, turn: Turn | None, placed: Placed | None = None) -> dict[str, Any]:
    """Return a job as `lq status --json` gives it.

    Args:
        job: the job.
        turn: what keeps it from training; None where it does not wait for its turn.
        placed: when it will start and end, as far as that is known.
    """
    starts = placed.start if placed is not None and turn is not None else None
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
        "starts_at": starts,
        "not_before": job.not_before if job.status is Status.WAITING else obstacle and obstacle.until,
        "pid": job.child.pid if job.child is not None and is_alive(job.child) else None,
        "job_dir": job.job_dir,
    }


def _tell(
    jobs: list[Job],
    alive: dict[str, Any] | None,
    queue: QueueState,
    turns: Mapping[int, Turn],
    placed: Mapping[int, Placed],
    of_group: Group | None = None,
) -> None:
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
    if of_group is not None:
        group.tell(console, of_group)
        jobs = [job for job in jobs if job.status not in ENDED][:MOST_EXPLAINED]
    else:
        console.print(_table(jobs, placed, wide=console.width >= 100))
    for job in jobs:
        if (text := waits(job, queue, turns.get(job.id))) is not None:
            line = Text(text, style=_COLOURS.get(job.status, ""))
            console.print(line, no_wrap=True, overflow="ellipsis" if console.is_terminal else "ignore")


def _paused(queue: QueueState) -> Text:
    from rich.text import Text

    return Text(
        f"queue: paused since {output.clock(queue.paused_at)}; no job starts before: lq resume --queue\n"
        f"       {queue.because}"
    )


def _table(jobs: list[Job], placed: Mapping[int, Placed], *, wide: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    table.add_column("name", min_width=8)  # the only one that gives way where the terminal is narrow
    table.add_column("state", no_wrap=True)
    table.add_column("progress", no_wrap=True)
    for title in ("loss", "val", "it/s", "ETA", "attempts" if wide else "att"):
        table.add_column(title, justify="right", no_wrap=True)
    for job in jobs:
        table.add_row(
            *_row(job, placed.get(job.id)), style="dim" if job.status in (Status.CANCELLED, Status.SKIPPED) else ""
        )
    return table


def _row(job: Job, placed: Placed | None) -> list[str | Text]:
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
        output.span(job.eta_seconds) if job.status is Status.RUNNING else begins(placed),
        str(job.attempts),
    ]
