"""`lq fuse`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli import home_access, output
from orchestrator.cli.commands.model_options import device, device_options, mlx_options, tuned_model
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import JobRef
from orchestrator.formatting import text as fmt


@click.command()
@home_access.job_id_argument
@click.option("--save-path", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the model (JOB/fused).")
@click.option("--force", is_flag=True, help="Replace an existing model in that folder.")
@device_options
@json_option
@mlx_options
def fuse(
    job_id: JobRef,
    save_path: Path | None,
    force: bool,
    anyway: bool,
    queue: bool,
    as_json: bool,
    options: Sequence[str],
) -> None:
    """Fuse the model of a job with its best adapter into one model folder.

    Options after -- are passed to mlx_lm.fuse:

    lq fuse 3 -- --dequantize
    """
    from orchestrator.artifacts import fuse as fusing

    with home_access.open_app() as app:
        job = home_access.find_job(app, job_id)
        tuned = tuned_model(app, job, base=False)
        target = save_path.expanduser().absolute() if save_path is not None else job.dir.path / "fused"
        fusing.require_target(target, tuned, force=force, options=options)
        with device(app, "fuse", job, anyway=anyway, queue=queue):
            fused = fusing.fuse(tuned, target, force=force, options=options)
    if as_json:
        from orchestrator.results.artifacts import FuseResult
        from orchestrator.results.build import from_attributes

        fields = {"id": job.id, "name": job.name, "path": fused.path, "bytes": fused.bytes}
        output.print_json(from_attributes(FuseResult, tuned, **fields))
        return
    quoted = shlex.quote(str(fused.path))
    click.echo(f"job {job.id} {job.name}: fused with {tuned.words}, {fmt.size(fused.bytes)}, in")
    click.echo(f"  {fused.path}")
    click.echo("generate:")
    click.echo(f"  mlx_lm.generate --model {quoted} --prompt 'Write your question here'")
    click.echo("serve:")
    click.echo(f"  mlx_lm.server --model {quoted}")
    if save_path is None:
        click.echo(f"lq clean {job.id} deletes this folder; move it to keep it")
