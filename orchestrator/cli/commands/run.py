"""`lq run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli import home_access, output
from orchestrator.cli.args import overwrite_option, set_option
from orchestrator.cli.commands.submit import print_late, print_notes, print_paused_queue, print_queued
from orchestrator.cli.output import json_option


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@set_option
@overwrite_option
@json_option
def run(file: Path, sets: Sequence[str], overwrite: bool, as_json: bool) -> int:
    """Submit FILE and show its progress until the job ends.

    Exit code: 0 succeeded, 100 failed, 103 cancelled. Ctrl-C asks whether to detach from the job, pause it or cancel
    it; without a terminal it detaches. Exit code then: 0 detached, 101 paused. --json prints the events like lq logs -f
    --json, and everything else to stderr.
    """
    from jobs.model.errors import InvalidInput
    from orchestrator.cli.views.live import follow
    from orchestrator.submission.submit import check_all, enqueue

    with home_access.open_app() as app:
        checked, *others = check_all(app, [file], overwrite=overwrite, sets=sets)
        if others:
            count = len(others) + 1
            raise InvalidInput(f"{file}: lq run follows one job, but the matrix has {count}; use: lq submit {file}")
        home_access.require_wakeup(app)
        print_notes([checked])
        job = enqueue(app, checked)
        print_late(app, [job], [checked])
        worker = home_access.wake_worker(app)
        print_paused_queue(app)
        with output.text_to_stderr(as_json=as_json):
            print_queued(app, [job], [checked], worker, hint=False)
        return follow(app, job.id, as_json=as_json)
