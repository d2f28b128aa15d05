"""Jobs side by side: `lq compare`, and the jobs of a group in `lq status --group`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from configs.labels import short_keys
from jobs.model.states import Status
from jobs.policies.verdict import interval
from orchestrator.cli.views.terminal import MARKED, share
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.cli.views.snapshot import GroupSnapshot
    from orchestrator.report.analysis.comparison import BestOf, Compared, Entry

_LEFT_OUT = (Status.CANCELLED, Status.SKIPPED)
MOST_NAMED = 4
"""Jobs named in one line; further ones are counted."""

Settings = Sequence[tuple[str, Sequence[str]]]
"""Keys that differ, and their value in each job."""


def status_of_group(group: GroupSnapshot, selected: int | None = None) -> Group:
    """Return the jobs of a group with their progress and best validation; the job `selected` is marked."""
    counts = {status: sum(job.status is status for job in group.jobs) for status in Status}
    listed = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    titles = {"state": "left"} | dict.fromkeys(("done", "loss", "val", "best val", ""), "right")
    table = _table(group.settings, titles, gap=1)
    for place, job in enumerate(group.jobs):
        is_best = job.id == group.best
        losses = (fmt.short_loss(loss) for loss in (job.train_loss, job.val_loss, group.losses.get(job.id)))
        table.add_row(
            *_first_cells(str(job.id), group.settings, place),
            job.status,
            share(job),
            *losses,
            "best" if is_best else "",
            style=MARKED if job.id == selected else "bold" if is_best else "dim" if job.status in _LEFT_OUT else "",
        )
    parts: list[RenderableType] = [Text(f"group {group.name}: {listed}"), table]
    if not group.is_comparable:
        parts.append(Text("no best job: the validation losses of the jobs measure different things"))
    elif group.best is not None:
        command = f"lq compare --group {shlex.quote(group.name)}"
        parts.append(Text(f"differences between the jobs, and the best adapter: {command}"))
    return Group(*parts)


def render(compared: Compared, picture: Path, group: str | None, best: BestOf) -> Group:
    """Return the view of two or more jobs, or of a group with the best job first, in the order of `best`."""
    parts = _group(group, best, compared) if group is not None else _side_by_side(compared)
    return Group(*parts, f"picture: {picture}")


def _side_by_side(compared: Compared) -> Iterator[RenderableType]:
    for title, rows in (("settings that differ", compared.settings), ("results", compared.results)):
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for name in (title, *compared.titles):
            table.add_column(name, overflow="fold")
        for key, values in rows or [("none", ())]:
            table.add_row(key, *values)
        yield from (table, "")
    if compared.why_not:
        yield f"best validation: not compared row by row, because {compared.why_not}"
        return
    yield f"best validation minus that of {compared.titles[0]}, row by row:"
    for title, difference in zip(compared.titles[1:], compared.against_first[1:], strict=True):
        yield f"  {title}: {interval(difference) if difference else 'not measured'}"


def _group(group: str, best: BestOf, compared: Compared) -> Iterator[RenderableType]:
    titles = {"best val": "right", "at": "right", "difference (95 % interval)": "right", "verdict": "left"}
    table = _table(compared.settings, titles, gap=2)
    results = dict(compared.results)
    for place, (entry, difference) in enumerate(_rows(best)):
        lowest = entry.facts.validation.best
        validation = (f"{lowest.loss:.4f}", f"{lowest.iteration:,}") if lowest else (fmt.NONE, fmt.NONE)
        verdict = results["verdict"][place]
        table.add_row(
            *_first_cells(str(entry.facts.job.id), compared.settings, place),
            *validation,
            difference,
            results["status"][place] if verdict == "none" else verdict,
            style="bold" if place == 0 and best.winner else "",
        )
    yield f"group {group}: {len(compared.titles)} jobs, the best first"
    yield table
    yield from best_lines(best)


def _rows(best: BestOf) -> Iterator[tuple[Entry, str]]:
    """Yield each job, and its difference from the best one."""
    for one in best.ranked:
        behind = one.behind
        yield one.entry, f"{behind.value:+.4f} ({behind.low:+.4f} to {behind.high:+.4f})" if behind else fmt.NONE
    yield from ((entry, fmt.NONE) for entry in best.others)


def _table(settings: Settings, titles: dict[str, str], *, gap: int) -> Table:
    """Return a table with columns for the id, the settings, and each title with its alignment."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    for key in short_keys([key for key, _ in settings]):
        table.add_column(key, justify="right", overflow="fold")
    for title, side in titles.items():
        table.add_column(title, justify="left" if side == "left" else "right", no_wrap=gap == 1)
    return table


def _first_cells(job_id: str, settings: Settings, place: int) -> list[str | Text]:
    return [job_id, *(Text(values[place]) for _, values in settings)]


NOBODY = " yet; no job has ended with a validation and an adapter"


def best_lines(best: BestOf) -> list[str]:
    """Return which job of a group is best, and by how much."""
    winner, second = best.winner, best.runner_up
    if winner is None:
        return [f"best: none{f', because {best.why_not}' if best.why_not else NOBODY}"]
    lowest = winner.entry.facts.validation.best
    at = f" at iteration {lowest.iteration:,}" if lowest is not None else ""
    lines = [f"best: {winner.entry.title}, validation loss {winner.loss:.4f}{at}"]
    if second is not None and second.behind is not None:
        lines.append(f"second: {second.entry.title}, difference {interval(second.behind)}, row by row")
        if titles := [one.entry.title for one in best.not_apart]:
            more = [f"{len(titles) - MOST_NAMED} more"] if len(titles) > MOST_NAMED else []
            lines.append(f"not significantly worse on these rows: {', '.join([*titles[:MOST_NAMED], *more])}")
    elif second is not None:
        lines.append(f"second: {second.entry.title}, difference {second.loss - winner.loss:+.4f}")
        lines.append(f"not compared row by row, because {best.why_not}")
    return [*lines, f"adapter: {winner.entry.adapter}"]
