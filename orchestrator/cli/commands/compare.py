"""compare: several jobs beside each other."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import GROUP, Choice, takes_jobs
from orchestrator.cli.output import json_option
from orchestrator.cli.views.comparison import best_of_facts, render, render_group
from orchestrator.cli.views.terminal import print_view

MOST_CURVES = 8
"""In one picture; of a larger group the best ones."""

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.report.analysis.comparison import Compared, Entry


@click.command()
@takes_jobs(GROUP)
@click.option("--plot", "plot", type=click.Path(dir_okay=False, path_type=Path), help="Where the picture goes.")
@json_option
def compare(choice: Choice, plot: Path | None, as_json: bool) -> None:
    """Compare two or more jobs: settings that differ, results with intervals, a picture of the curves.

    With --group its jobs in the order of their best validation, and the best of them.
    """
    group = choice.group
    with home_access.opened() as app:
        jobs = args.jobs_of(app, choice, none="no job{of} is there")
        if len(jobs) < 2 and group is None:
            raise click.UsageError("name two jobs or more, or --group NAME")
        from orchestrator.report.analysis.comparison import best_of
        from orchestrator.report.analysis.comparison import compare as compared
        from orchestrator.submission.submit import slug

        entries = [_entry(app, job.id) for job in jobs]
        best = best_of(entries)
        if group is not None:  # the best one first: what the others are compared with
            entries = [*(one.entry for one in best.ranked), *best.others]
        found = compared(entries)
        names = slug(group) if group is not None else "-".join(str(job.id) for job in jobs)
        picture = _drawn(entries[:MOST_CURVES], plot or app.home.path / "compare" / f"{names}.png")
        if as_json:
            chosen = {} if group is None else {"group": group, "best_of": best_of_facts(best)}
            output.print_json(chosen | _facts(found, entries, picture))
        elif group is not None:
            print_view(render_group(group, best, found, picture))
        else:
            print_view(render(found, picture))


def _entry(app: App, job_id: int) -> Entry:
    from orchestrator.report.analysis.comparison import Entry
    from orchestrator.report.collect import collect_all

    facts, series = collect_all(app.store, job_id, now=time.time())
    spec = json.loads(app.store.jobs.spec_json(job_id))
    return Entry(facts=facts, series=series, spec=spec, reported=app.store.metrics.facts(job_id))


def _drawn(entries: list[Entry], path: Path) -> Path:
    from jobs.model.errors import HomeUnusable
    from orchestrator.report import plots
    from orchestrator.report.plots.series import Curves
    from workers.files.atomic import write_atomically

    runs = [
        (f"job {entry.facts.job.id}: {entry.facts.job.name}", Curves.of(entry.series.points, entry.series.validations))
        for entry in entries
    ]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, plots.overlay(runs))
    except OSError as error:
        raise HomeUnusable(f"{path}: the picture cannot be written ({error.strerror})") from error
    return path


def _facts(found: Compared, entries: list[Entry], picture: Path) -> dict[str, Any]:
    import dataclasses

    gaps = [None if gap is None else dataclasses.asdict(gap) for gap in found.against_first]
    return {
        "jobs": [
            {
                "id": entry.facts.job.id,
                "name": entry.facts.job.name,
                "status": entry.facts.job.status.value,
                "settings": {key: values[place] for key, values in found.settings},
                "results": {key: values[place] for key, values in found.results},
                "validation": dataclasses.asdict(entry.facts.validation),
                "best_minus_first": gaps[place],
            }
            for place, entry in enumerate(entries)
        ],
        "not_compared_because": found.why_not,
        "picture": str(picture),
    }
