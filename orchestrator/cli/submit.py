"""submit and run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jobs.job import Job
from orchestrator.cli import output, reach
from orchestrator.cli.output import json_option

_FILE = click.Path(path_type=Path)
_overwrite = click.option(
    "--overwrite", is_flag=True, help="Let the finished adapter replace what lies in adapter_path now."
)


@click.command()
@click.argument("files", metavar="FILE...", type=_FILE, nargs=-1, required=True)
@click.option("--wait", "wait_for_it", is_flag=True, help="Wait for the jobs to end; exit as lq wait does.")
@_overwrite
@json_option
def submit(files: Sequence[Path], wait_for_it: bool, overwrite: bool, as_json: bool) -> int:
    """Check job files and queue them; nothing is queued if one of them is wrong.

    FILE is what mlx_lm.lora -c takes, with an optional section lq: (see lq config schema).
    """
    from orchestrator.submit import check_all, enqueue

    with reach.opened() as app:
        checked = check_all(app, files, overwrite=overwrite)
        reach.require_bell(app)
        jobs = [enqueue(app, one) for one in checked]
        for one in checked:
            for text in one.notes:
                output.note(text)
        said = reach.wake_worker(app)
        if as_json:
            output.print_json({"jobs": [_entry(job) for job in jobs]})
        else:
            _tell(jobs, said)
        if not wait_for_it:
            return 0
        from orchestrator.cli.wait import wait_for

        return wait_for(app, [job.id for job in jobs], any_one=False, timeout_s=None)


@click.command()
@click.argument("file", metavar="FILE", type=_FILE)
@_overwrite
def run(file: Path, overwrite: bool) -> int:
    """Submit FILE, show live progress, and exit as the job ends: 0 succeeded, 100 failed, 103 cancelled.

    Ctrl-C only stops watching; the job goes on.
    """
    from orchestrator.cli.live import follow
    from orchestrator.submit import check_all, enqueue

    with reach.opened() as app:
        (checked,) = check_all(app, [file], overwrite=overwrite)
        reach.require_bell(app)
        for text in checked.notes:
            output.note(text)
        job = enqueue(app, checked)
        _tell([job], reach.wake_worker(app), hint=False)
        return follow(app, job.id)


def _entry(job: Job) -> dict[str, Any]:
    return {"id": job.id, "name": job.name, "status": job.status.value, "job_dir": job.job_dir}


def _tell(jobs: Sequence[Job], said: str | None, *, hint: bool = True) -> None:
    for job in jobs:
        click.echo(f"job {job.id} {job.status}: {job.name}, {job.iters:,} iterations; {job.job_dir}")
    if said is not None:
        click.echo(said)
    if hint:
        click.echo(f"next: lq status · lq logs {jobs[-1].id} -f · lq show {jobs[-1].id}")
