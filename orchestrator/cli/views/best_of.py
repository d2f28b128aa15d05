"""How `lq compare --group` tells of a group: its jobs in the order of their best validation, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.policies.verdict import interval
from orchestrator.cli import output
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from orchestrator.report.analysis.comparison import BestOf, Compared, Ranked

MOST_NAMED = 4
"""Jobs named in a sentence; further ones are counted."""


def words(found: BestOf) -> list[str]:
    """Return what is to be said of the best of a group, one line each."""
    winner, second = found.winner, found.runner_up
    if winner is None:
        return ["best: none yet; no job has ended with a validation and an adapter"]
    lines = [f"best: {winner.entry.title}, validation loss {winner.loss:.4f}{_at(winner)}"]
    if second is not None and second.behind is not None:
        lines.append(f"then: {second.entry.title}, {interval(second.behind)} against it, row by row")
        lines += _doubts(found)
    elif second is not None:
        lines.append(f"then: {second.entry.title}, {second.loss - winner.loss:+.4f} against it")
        lines.append(f"not compared row by row, because {found.why_not}")
    lines.append(f"adapter: {winner.entry.adapter}")
    return lines


def _at(one: Ranked) -> str:
    best = one.entry.facts.validation.best
    return f" at iteration {best.iteration:,}" if best is not None else ""


def _doubts(found: BestOf) -> list[str]:
    near = found.not_apart
    if not near:
        return []
    names = [one.entry.title for one in near[:MOST_NAMED]]
    more = [f"{len(near) - len(names)} more"] if len(near) > len(names) else []
    return [f"not to be told from it on these rows: {', '.join([*names, *more])}"]


def tell_group(group: str, best: BestOf, compared: Compared, picture: Path) -> None:
    """Print a group: a job a line, the best first, and what follows from it.

    Args:
        group: its name.
        best: its jobs, ranked.
        compared: the same jobs in the same order.
        picture: where the curves are.
    """
    from rich.table import Table
    from rich.text import Text

    from configs.labels import short_keys

    console = output.console()
    console.print(Text(f"group {group}: {len(compared.titles)} jobs, the best first"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    for word in short_keys([key for key, _ in compared.settings]):
        table.add_column(word, justify="right", overflow="fold")
    for title in ("best val", "at", "behind (95 % interval)", "verdict"):
        table.add_column(title, justify="left" if title == "verdict" else "right")
    results = dict(compared.results)
    for place, (number, loss, at, behind) in enumerate(_rows(best)):
        settings = [values[place] for _, values in compared.settings]
        verdict = results["verdict"][place]
        told = verdict if verdict != "none" else results["status"][place]
        table.add_row(
            number, *map(Text, settings), loss, at, behind, told, style="bold" if place == 0 and best.winner else ""
        )
    console.print(table)
    for line in words(best):
        click.echo(line)
    click.echo(f"picture: {picture}")


def _rows(found: BestOf) -> Sequence[tuple[str, str, str, str]]:
    """Return id, best validation, its iteration and its distance of each job."""
    rows = []
    for one in found.ranked:
        best, behind = one.entry.facts.validation.best, fmt.NONE
        if one.behind is not None:
            behind = f"{one.behind.value:+.4f} ({one.behind.low:+.4f} to {one.behind.high:+.4f})"
        rows.append((str(one.entry.facts.job.id), f"{one.loss:.4f}", f"{best.iteration:,}" if best else "", behind))
    for entry in found.others:
        best = entry.facts.validation.best
        loss, at = (f"{best.loss:.4f}", f"{best.iteration:,}") if best else (fmt.NONE, fmt.NONE)
        rows.append((str(entry.facts.job.id), loss, at, fmt.NONE))
    return rows
