"""`lq logs`."""

from __future__ import annotations

import click

from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from orchestrator.cli import output
from orchestrator.cli.args import SINCE, TIME_FORMATS, takes_job
from orchestrator.cli.output import json_option
from orchestrator.cli.views.job_log import LogFilter, json_lines, print_log, read_batches, text_lines
from orchestrator.core.app import App
from workers.files.atomic import older_log


@click.command()
@takes_job
@click.option("-f", "--follow", is_flag=True, help="Continue until the job has ended, across attempts.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Start with the last N lines.")
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
    since: float | None,
    attempt: int | None,
    raw: bool,
    trainer_output: bool,
    as_json: bool,
) -> None:
    """Show the log of a job, over all attempts; --json prints its events."""
    log_filter = LogFilter(since=since, attempt=attempt)
    if trainer_output and (follow or raw or as_json or not log_filter.shows_all):
        raise click.UsageError("--output can be combined with --tail only")
    if job.cleaned_at is not None:
        output.note(f"the log of job {job.id} was deleted by lq clean; see: lq show {job.id}")
    if trainer_output:
        _print_trainer_output(job.dir, tail)
        return
    as_text = not raw and not as_json
    formatter = text_lines(app, job.id, log_filter) if as_text else json_lines(log_filter, raw=raw)
    print_log(read_batches(app, job.id, follow=follow), formatter, tail)


def _print_trainer_output(job_dir: JobDir, tail: int | None) -> None:
    paths = [path for path in (older_log(job_dir.log), job_dir.log) if path.exists()]
    text = "".join(path.read_text(errors="replace") for path in paths)
    if tail is not None:
        text = "".join(text.splitlines(keepends=True)[-tail:] if tail else [])
    click.echo(text, nl=False)
