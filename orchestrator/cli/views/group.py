"""`lq status --group`: live jobs first, then ended jobs by their best validation, with the settings that differ."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from orchestrator.cli import home_access
from orchestrator.formatting import text as fmt
from orchestrator.report.analysis.settings_diff import differing, validated_alike

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from orchestrator.core.app import App


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupSnapshot:
    """The jobs of a group at one moment."""

    name: str
    jobs: Sequence[Job]  # in the order of the view
    losses: Mapping[int, float]  # the best validation, by job id
    settings: Sequence[tuple[str, tuple[str, ...]]]  # keys that differ, and their value in each job
    is_comparable: bool  # all jobs validate on the same tokens

    @property
    def best(self) -> int | None:
        """The id of the succeeded job with the lowest validation loss; None if the losses cannot be compared."""
        ranked = [job.id for job in self.jobs if job.status is Status.SUCCEEDED and job.id in self.losses]
        return (
            min(ranked, key=lambda job_id: (self.losses[job_id], job_id), default=None) if self.is_comparable else None
        )


def group_snapshot(app: App, name: str) -> GroupSnapshot:
    """Return a group as it is now.

    Raises:
        NoSuchJob: the group does not exist.
    """
    jobs = home_access.jobs_of_group(app, name)
    losses = app.store.groups.best_losses(name)
    jobs.sort(key=lambda job: _rank(job, losses.get(job.id)))
    by_id = app.store.groups.specs(name)
    specs = [json.loads(by_id[job.id]) for job in jobs]
    return GroupSnapshot(
        name=name, jobs=jobs, losses=losses, settings=differing(specs), is_comparable=validated_alike(specs)
    )


def _rank(job: Job, loss: float | None) -> tuple[bool, int, float, int]:
    if job.status not in ENDED:
        return (False, job.status is not Status.RUNNING, 0.0, job.id)
    return (True, loss is None, loss or 0.0, job.id)


def render(group: GroupSnapshot) -> Group:
    """Return the view of a group."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"group {group.name}: {_counts(group.jobs)}"), _table(group)]
    if not group.is_comparable:
        parts.append(Text("no best job: the jobs do not validate on the same tokens"))
    elif group.best is not None:
        parts.append(
            Text(f"differences between the jobs, and the best adapter: lq compare --group {shlex.quote(group.name)}")
        )
    return Group(*parts)


def _table(group: GroupSnapshot) -> Table:
    from rich.table import Table
    from rich.text import Text

    from configs.labels import short_keys

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    for key in short_keys([key for key, _ in group.settings]):
        table.add_column(key, justify="right", overflow="fold")
    table.add_column("state", no_wrap=True)
    for title in ("done", "loss", "val", "best val", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for place, job in enumerate(group.jobs):
        is_best = job.id == group.best
        table.add_row(
            str(job.id),
            *(Text(values[place]) for _, values in group.settings),
            job.status,
            f"{100 * job.iteration // job.iters}%",
            fmt.short_loss(job.train_loss),
            fmt.short_loss(job.val_loss),
            fmt.short_loss(group.losses.get(job.id)),
            "best" if is_best else "",
            style="bold" if is_best else "dim" if job.status in (Status.CANCELLED, Status.SKIPPED) else "",
        )
    return table


def _counts(jobs: Sequence[Job]) -> str:
    counts = {status: sum(job.status is status for job in jobs) for status in Status}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
