"""`lq report` and `lq compare`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.model.errors import HomeUnusable
from jobs.model.job import Job
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import GROUP, JobSelection, takes_job, takes_jobs
from orchestrator.cli.output import json_option
from orchestrator.core.app import App
from orchestrator.core.paths import Home

if TYPE_CHECKING:
    from orchestrator.report.analysis.comparison import BestOf, Compared, Entry
    from orchestrator.results.artifacts import CompareResult, GroupBest

FORMATS = {"md": "report.md", "html": "report.html", "json": "report.json"}
MAX_CURVES = 8
"""Curves in the picture; of a larger group, those of the best jobs."""


@click.command()
@takes_job
@click.option("--format", "report_format", type=click.Choice(list(FORMATS)), help="Format of the printed path (md).")
@click.option("--open", "opened", is_flag=True, help="Open the report, as HTML unless --format is given.")
@json_option
def report(app: App, job: Job, report_format: str | None, opened: bool, as_json: bool) -> None:
    """Write the report of a job and print its path, or with --json its content."""
    from orchestrator.report.make import make

    home = app.home.path  # named in the commands of the report unless it is the default home
    made = make(app.store, job.id, now=time.time(), home=None if home == Home.of({}).path else str(home))
    path = made.with_name(FORMATS[report_format or ("html" if opened else "md")])
    click.echo(made.with_name("report.json").read_text() if as_json else str(path), nl=not as_json)
    if opened and click.launch(str(path)) != 0:
        output.note(f"no program opens {path}")


@click.command()
@takes_jobs(GROUP, group="Compare the jobs of a group, the best first.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="File of the picture.")
@json_option
def compare(selection: JobSelection, plot: Path | None, as_json: bool) -> None:
    """Compare two or more jobs: settings that differ, results with intervals, and a picture of the loss curves."""
    group = selection.group
    with home_access.open_app() as app:
        jobs = args.select_jobs(app, selection, none="no job{of}")
        if len(jobs) < 2 and group is None:
            raise click.UsageError("name two jobs or more, or --group NAME")
        from orchestrator.cli.views import comparison as view
        from orchestrator.cli.views.terminal import print_view
        from orchestrator.report.analysis import comparison
        from orchestrator.submission.submit import slug

        entries = [_entry(app, job.id) for job in jobs]
        best = comparison.best_of(entries)
        if group is not None:  # the first job is the one that the others are compared with
            entries = [*(one.entry for one in best.ranked), *best.others]
        compared = comparison.compare(entries)
        name = slug(group) if group is not None else "-".join(str(job.id) for job in jobs)
        picture = _draw(entries[:MAX_CURVES], plot or app.home.path / "compare" / f"{name}.png")
        if as_json:
            output.print_json(_result(compared, entries, picture, group, best))
        else:
            print_view(view.render(compared, picture, group, best))


def _entry(app: App, job_id: int) -> Entry:
    from orchestrator.report.analysis.comparison import Entry
    from orchestrator.report.collect import collect_all

    facts, series = collect_all(app.store, job_id, now=time.time())
    spec = json.loads(app.store.jobs.spec_json(job_id))
    return Entry(facts=facts, series=series, spec=spec, reported=app.store.metrics.facts(job_id))


def _draw(entries: Sequence[Entry], path: Path) -> Path:
    from orchestrator.report import plots
    from orchestrator.report.plots.series import Curves
    from workers.files.atomic import write_atomically

    runs = [
        (f"job {entry.facts.job.id}: {entry.facts.job.name}", Curves.of(entry.series.points, entry.series.validations))
        for entry in entries
    ]
    unit = " or ".join(sorted({entry.facts.loss_unit for entry in entries}))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, plots.png(plots.overlay(runs, unit=unit)))
    except OSError as error:
        raise HomeUnusable(f"{path}: the picture cannot be written ({error.strerror})") from error
    return path


def _result(
    compared: Compared, entries: Sequence[Entry], picture: Path, group: str | None, best: BestOf
) -> CompareResult:
    from orchestrator.results.artifacts import ComparedJob, CompareResult
    from orchestrator.results.build import from_attributes

    jobs = [
        from_attributes(
            ComparedJob,
            entry.facts.job,
            settings={key: values[place] for key, values in compared.settings},
            results={key: values[place] for key, values in compared.results},
            validation=entry.facts.validation,
            best_minus_first=compared.against_first[place],
        )
        for place, entry in enumerate(entries)
    ]
    best_of = group_best(best) if group is not None else None
    return CompareResult(
        group=group, best_of=best_of, jobs=jobs, not_compared_because=compared.why_not, picture=picture
    )


def group_best(best: BestOf) -> GroupBest | None:
    """Build the result for the best job of a group; None if no job can be ranked."""
    from orchestrator.cli.views.comparison import best_lines
    from orchestrator.results.artifacts import GroupBest

    winner, second = best.winner, best.runner_up
    if winner is None:
        return None
    return GroupBest(
        id=winner.entry.facts.job.id,
        name=winner.entry.facts.job.name,
        loss=winner.loss,
        adapter=winner.entry.adapter,
        runner_up=second.entry.facts.job.id if second is not None else None,
        runner_up_minus_best=second.behind if second is not None else None,
        not_told_apart=[one.entry.facts.job.id for one in best.not_apart],
        jobs=len(best.ranked),
        text=best_lines(best),
    )
