"""`lq compare`: jobs side by side; of a group the jobs in the order of their best validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.policies.verdict import interval
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from orchestrator.report.analysis.comparison import BestOf, Compared, Entry, Ranked

MOST_NAMED = 4
"""Jobs named in one line; further ones are counted."""


def render(compared: Compared, picture: Path) -> Group:
    """Return the view of two or more jobs; `picture` is the file with their curves."""
    from rich.console import Group
    from rich.table import Table

    parts: list[RenderableType] = []
    for title, rows in (("settings that differ", compared.settings), ("results", compared.results)):
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for name in (title, *compared.titles):
            table.add_column(name, overflow="fold")
        for key, values in rows or [("none", ())]:
            table.add_row(key, *values)
        parts += [table, ""]
    if compared.why_not:
        parts.append(f"best validation: not compared row by row, because {compared.why_not}")
    else:
        parts.append(f"best validation minus that of {compared.titles[0]}, row by row:")
        for title, difference in zip(compared.titles[1:], compared.against_first[1:], strict=True):
            parts.append(f"  {title}: {interval(difference) if difference else 'not measured'}")
    return Group(*parts, f"picture: {picture}")


def render_group(group: str, best: BestOf, compared: Compared, picture: Path) -> Group:
    """Return the view of a group: its jobs, the best first, and the best job.

    `compared` has the jobs in the order of `best`. `picture` is the file with their curves.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from configs.labels import short_keys

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    for key in short_keys([key for key, _ in compared.settings]):
        table.add_column(key, justify="right", overflow="fold")
    for title in ("best val", "at", "difference (95 % interval)", "verdict"):
        table.add_column(title, justify="left" if title == "verdict" else "right")
    results = dict(compared.results)
    for place, (job_id, loss, iteration, difference) in enumerate(_rows(best)):
        settings = [Text(values[place]) for _, values in compared.settings]
        verdict = results["verdict"][place]
        state = results["status"][place] if verdict == "none" else verdict
        style = "bold" if place == 0 and best.winner else ""
        table.add_row(job_id, *settings, loss, iteration, difference, state, style=style)
    title = f"group {group}: {len(compared.titles)} jobs, the best first"
    return Group(title, table, *best_lines(best), f"picture: {picture}")


def _rows(best: BestOf) -> Iterator[tuple[str, str, str, str]]:
    """Yield id, best validation, its iteration and the difference from the best job, for each job."""
    for one in best.ranked:
        difference = fmt.NONE
        if one.behind is not None:
            difference = f"{one.behind.value:+.4f} ({one.behind.low:+.4f} to {one.behind.high:+.4f})"
        yield (*_best_validation(one.entry), difference)
    for entry in best.others:
        yield (*_best_validation(entry), fmt.NONE)


def _best_validation(entry: Entry) -> tuple[str, str, str]:
    best = entry.facts.validation.best
    loss, iteration = (f"{best.loss:.4f}", f"{best.iteration:,}") if best else (fmt.NONE, fmt.NONE)
    return str(entry.facts.job.id), loss, iteration


def best_lines(best: BestOf) -> list[str]:
    """Return which job of a group is best, and by how much."""
    winner, second = best.winner, best.runner_up
    if winner is None:
        return ["best: none yet; no job has ended with a validation and an adapter"]
    lines = [f"best: {winner.entry.title}, validation loss {winner.loss:.4f}{_at(winner)}"]
    if second is not None and second.behind is not None:
        lines += [f"second: {second.entry.title}, difference {interval(second.behind)}, row by row", *_ties(best)]
    elif second is not None:
        lines.append(f"second: {second.entry.title}, difference {second.loss - winner.loss:+.4f}")
        lines.append(f"not compared row by row, because {best.why_not}")
    return [*lines, f"adapter: {winner.entry.adapter}"]


def _at(ranked: Ranked) -> str:
    best = ranked.entry.facts.validation.best
    return f" at iteration {best.iteration:,}" if best is not None else ""


def _ties(best: BestOf) -> Iterator[str]:
    titles = [one.entry.title for one in best.not_apart]
    if titles:
        more = [f"{len(titles) - MOST_NAMED} more"] if len(titles) > MOST_NAMED else []
        yield f"not significantly worse on these rows: {', '.join([*titles[:MOST_NAMED], *more])}"
