"""`lq logs`."""

from __future__ import annotations

import functools
import re

import click

from jobs.model.job import Job
from orchestrator.cli import output
from orchestrator.cli.args import PATTERN, SINCE, TIME_FORMATS, takes_job
from orchestrator.cli.output import json_option
from orchestrator.cli.views.job_log import LogFilter, json_lines, print_log, read_batches, text_lines
from orchestrator.core.app import App
from workers.files.atomic import older_log


@click.command()
@functools.partial(takes_job, required=False)
@click.option("-f", "--follow", is_flag=True, help="Continue until the job has ended, across attempts.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Start with the last N lines.")
@click.option("--grep", type=PATTERN, metavar="PATTERN", help="Show lines that match a regular expression.")
@click.option("--since", type=SINCE, metavar="TIME", help=f"Start at TIME: {TIME_FORMATS}.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Show attempt N only.")
@click.option("--raw", is_flag=True, help="Print the lines of events.jsonl unchanged.")
@click.option("--output", "trainer_output", is_flag=True, help="Print stdout and stderr of the trainer instead.")
@json_option
def logs(
    app: App,
    job: Job,
    follow: bool,
    tail: int | None,
    grep: re.Pattern[str] | None,
    since: float | None,
    attempt: int | None,
    raw: bool,
    trainer_output: bool,
    as_json: bool,
) -> None:
    """Show the log of a job, over all attempts; --json prints its events.

    Without ID it is the job that runs, or else the one that ran last. --grep ignores case.
    """
    log_filter = LogFilter(since=since, attempt=attempt, pattern=grep)
    if trainer_output and (follow or raw or as_json or since is not None or attempt is not None):
        raise click.UsageError("--output can be combined with --tail and --grep only")
    if job.cleaned_at is not None:
        output.note(f"the log of job {job.id} was deleted by lq clean; see: lq show {job.id}")
    if trainer_output:
        paths = [path for path in (older_log(job.dir.log), job.dir.log) if path.exists()]
        lines = [line for path in paths for line in path.read_text(errors="replace").splitlines(keepends=True)]
        shown = [line for line in lines if log_filter.shows(line)]
        click.echo("".join(shown[len(shown) - tail :] if tail is not None and tail < len(shown) else shown), nl=False)
        return
    as_text = not raw and not as_json
    formatter = text_lines(app, job.id, log_filter) if as_text else json_lines(log_filter, raw=raw)
    print_log(read_batches(app, job.id, follow=follow), formatter, tail)
