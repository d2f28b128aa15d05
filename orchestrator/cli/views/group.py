"""How `lq status --group` tells of a group: the jobs to come, then those that ended by their best validation."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from orchestrator.cli import home_access
from orchestrator.formatting import text as fmt
from orchestrator.report.analysis.settings_diff import differing, validated_alike

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.cli.views.terminal import Paper
    from orchestrator.core.app import App

PIPED = 200
"""Columns where no terminal says how many there are: values of settings may be long."""


class Group:
    """A group as it stands."""

    def __init__(self, app: App, name: str) -> None:
        """Read it.

        Raises:
            NoSuchJob: there is no such group.
        """
        self.name = name
        jobs = home_access.jobs_of_group(app, name)
        specs = app.store.groups.specs(name)
        self.losses: Mapping[int, float] = app.store.groups.best_losses(name)
        read = {job.id: json.loads(specs[job.id]) for job in jobs}
        self.jobs = sorted(jobs, key=self._rank)
        ordered = [read[job.id] for job in self.jobs]
        self.varied: Sequence[tuple[str, tuple[str, ...]]] = differing(ordered)
        self.alike = validated_alike(ordered)

    def _rank(self, job: Job) -> tuple[bool, int, float, int]:
        """Live ones in the order of a status, ended ones by their best validation, those without one last."""
        if job.status not in ENDED:
            return (False, _LIVE_FIRST.get(job.status, 1), 0.0, job.id)
        loss = self.losses.get(job.id)
        return (True, int(loss is None), loss or 0.0, job.id)

    @property
    def best(self) -> int | None:
        """The id of the job of the lowest validation that succeeded; None where losses are not of the same tokens."""
        able = [job.id for job in self.jobs if job.status is Status.SUCCEEDED and job.id in self.losses]
        return min(able, key=lambda job_id: (self.losses[job_id], job_id), default=None) if self.alike else None


_LIVE_FIRST = {Status.RUNNING: 0}


def lines(group: Group, paper: Paper) -> list[str]:
    """Return what is told of a group."""
    from rich.console import Console

    written = io.StringIO()
    width = PIPED if paper.endless and "COLUMNS" not in os.environ else paper.width
    console = Console(
        file=written,
        width=width,
        force_terminal=paper.colours,
        color_system="standard" if paper.colours else None,
        highlight=False,
        soft_wrap=paper.endless,
    )
    tell(console, group)
    return [paper.printable(line.rstrip()) for line in written.getvalue().splitlines()]


def tell(console: Console, group: Group) -> None:
    """Print a group, a job a line, with the settings that differ as columns."""
    from rich.table import Table
    from rich.text import Text

    from configs.labels import short_keys

    console.print(Text(f"group {group.name}: {_counted(group.jobs)}"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    for word in short_keys([key for key, _ in group.varied]):
        table.add_column(word, justify="right", overflow="fold")
    table.add_column("state", no_wrap=True)
    for title in ("progress", "loss", "val", "best val", ""):
        table.add_column(title, justify="right", no_wrap=True)
    best = group.best
    for place, job in enumerate(group.jobs):
        table.add_row(
            str(job.id),
            *(Text(values[place]) for _, values in group.varied),
            job.status,
            f"{100 * job.iteration // job.iters:3}%",
            fmt.short_loss(job.train_loss),
            fmt.short_loss(job.val_loss),
            fmt.short_loss(group.losses.get(job.id)),
            "best" if job.id == best else "",
            style="bold" if job.id == best else "dim" if job.status in (Status.CANCELLED, Status.SKIPPED) else "",
        )
    console.print(table)
    if not group.alike:
        console.print("no best: the jobs are not validated on the same tokens")
    elif best is not None:
        console.print(Text(f"by how much, and the adapter: lq compare --group {shlex.quote(group.name)}"))


def _counted(jobs: Sequence[Job]) -> str:
    counts = {status: sum(job.status is status for job in jobs) for status in Status}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
