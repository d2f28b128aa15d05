"""logs."""

from __future__ import annotations

import click

from jobs.model.job_dir import JobDir
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import TIME_FORMATS, JobRef, Since
from orchestrator.cli.views.job_log import LogFilter, json_lines, print_log, read_batches, text_lines
from workers.files.atomic import older_log


@click.command()
@home_access.job_id_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; across attempts.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines, and what follows.")
@click.option("--since", type=Since(), metavar="TIME", help=f"Only what was told since then: {TIME_FORMATS}.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only what attempt N said.")
@click.option("--raw", is_flag=True, help="The lines as they stand in events.jsonl.")
@click.option("--output", "own_output", is_flag=True, help="The trainer's own stdout and stderr instead.")
@json_option
def logs(
    job_id: JobRef,
    follow: bool,
    tail: int | None,
    since: float | None,
    attempt: int | None,
    raw: bool,
    own_output: bool,
    as_json: bool,
) -> None:
    """Show what the trainer of job ID says, attempt after attempt; --json prints the events as they are."""
    log_filter = LogFilter(since=since, attempt=attempt)
    if own_output and (follow or raw or as_json or not log_filter.shows_all):
        raise click.UsageError("--output is text of the trainer's, without times; of the others it takes only --tail")
    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        if job.cleaned_at is not None:
            output.note(f"job {job.id} was cleaned, and its log is gone; see: lq show {job.id}")
        if own_output:
            _echo_output(job.dir, tail)
            return
        as_text = not raw and not as_json
        formatter = text_lines(app, job.id, log_filter) if as_text else json_lines(log_filter, raw=raw)
        print_log(read_batches(app, job.id, follow=follow), formatter, tail)


def _echo_output(job_dir: JobDir, tail: int | None) -> None:
    paths = [path for path in (older_log(job_dir.log), job_dir.log) if path.exists()]
    text = "".join(path.read_text(errors="replace") for path in paths)
    if tail is not None:
        text = "".join(text.splitlines(keepends=True)[-tail:] if tail else [])
    click.echo(text, nl=False)
