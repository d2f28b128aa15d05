"""`lq chat`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jobs.model.job import Job
from orchestrator.artifacts import mlx_cli
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.model_options import base_option, device, device_options, mlx_options, tuned_model
from orchestrator.cli.param_types import SECONDS, JobRef
from orchestrator.formatting import text as fmt
from orchestrator.scheduling import eligibility

if TYPE_CHECKING:
    from orchestrator.core.app import App

IDLE_S = 1800.0
_IDLE_CHECK_S = 10.0


@click.command()
@home_access.job_id_argument
@base_option
@click.option(
    "--idle",
    "idle_s",
    metavar="S",
    type=SECONDS,
    default=IDLE_S,
    help="End after this many seconds without input if a job waits (1800).",
)
@device_options
@mlx_options
def chat(job_id: JobRef, base: bool, idle_s: float, anyway: bool, queue: bool, options: Sequence[str]) -> None:
    """Chat with the model of a job and its best adapter in mlx_lm.chat.

    No job starts meanwhile. Options after -- are passed to mlx_lm.chat:

    lq chat 3 -- --temp 0.7 --max-tokens 500
    """
    with home_access.open_app() as app:
        job = home_access.find_job(app, job_id)
        tuned = tuned_model(app, job, base=base)
        with device(app, "chat", job, anyway=anyway, queue=queue):
            output.note(f"job {job.id} ({job.name}), {tuned.words}")
            with mlx_cli.started(mlx_cli.MLX_LM, tuned.arguments("chat", *options)) as popen:
                waiting = _until_idle(app, popen, idle_s)
        if waiting is None:
            mlx_cli.require_done(popen, name="mlx_lm.chat", errors=None)
            return
        click.echo()
        output.note(f"chat ended after {fmt.duration(idle_s)} without input: job {waiting.id} ({waiting.name}) waits")


def _until_idle(app: App, popen: subprocess.Popen[bytes], idle_s: float) -> Job | None:
    """Wait until the chat has ended, or end it if it is idle while a job waits; then return that job."""
    started = time.time()
    while True:
        try:
            popen.wait(min(_IDLE_CHECK_S, max(idle_s / 4, 0.1)))
        except subprocess.TimeoutExpired:
            idle = time.time() - max(started, _last_input())
            if idle >= idle_s and (waiting := eligibility.kept_by_device(app)) is not None:
                mlx_cli.end(popen)
                return waiting
        else:
            return None


def _last_input() -> float:
    """Return when the terminal was last read, in unix seconds, as `w` does; 0.0 if unknown."""
    try:
        return os.fstat(sys.stdin.fileno()).st_atime
    except (OSError, ValueError):
        return 0.0
