"""verify."""

from __future__ import annotations

from collections.abc import Sequence

import click

from jobs.model.errors import CheckFailed
from jobs.model.job import Job
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import ALL, FAILED, GROUP, Choice, takes_jobs
from orchestrator.cli.output import json_option
from orchestrator.maintenance.verify import Finding, verified


@click.command()
@takes_jobs(GROUP, ALL, FAILED, all="Every job.")
@click.option("--set-aside", is_flag=True, help="Rename bad checkpoints to step-N.bad, so that none is used.")
@json_option
def verify(choice: Choice, set_aside: bool, as_json: bool) -> None:
    """Check every file of jobs: checkpoints and adapters by SHA-256, the others by whether they can be read.

    Exit code: 6 where something is wrong. What is wrong is told, and changed by --set-aside only.
    """
    found = []
    with home_access.opened() as app:
        for job in args.jobs_to_look_at(app, choice):
            findings = verified(app, job, set_aside=set_aside)
            found.append((job, findings))
            if not as_json:
                _tell(job, findings, brief=not choice.words)
    if as_json:
        output.print_json({"jobs": [_facts(job, findings) for job, findings in found]})
    _require_good(found, set_aside=set_aside)


def _facts(job: Job, findings: Sequence[Finding]) -> dict[str, object]:
    files = [{"path": str(one.path), "ok": one.ok, "because": one.because} for one in findings]
    return {"id": job.id, "name": job.name, "ok": all(one.ok for one in findings), "files": files}


def _tell(job: Job, findings: Sequence[Finding], *, brief: bool) -> None:
    """Print what was found; of many jobs the files only where one is wrong."""
    wrong = [one for one in findings if not one.ok]
    verdict = f"{len(wrong)} of {len(findings)} wrong" if wrong else f"{len(findings)} as they should be"
    click.echo(f"job {job.id} {job.name}: {verdict}")
    shown = wrong if brief else findings
    names = [_name(job, one) for one in shown]
    width = min(max(map(len, names), default=0), 60)
    for name, one in zip(names, shown, strict=True):
        click.echo(f"  {'good' if one.ok else 'WRONG':<5}  {name:<{width}}  {_words(job, one)}")


def _name(job: Job, one: Finding) -> str:
    folder = job.dir.path
    return str(one.path.relative_to(folder)) if one.path.is_relative_to(folder) else str(one.path)


def _words(job: Job, one: Finding) -> str:
    """Return why, without the path that stands beside it already."""
    return one.because.replace(f"{one.path}/", "").replace(f"{job.job_dir}/", "")


def _require_good(found: Sequence[tuple[Job, Sequence[Finding]]], *, set_aside: bool) -> None:
    """Raise CheckFailed with the first of what is wrong, and what to do about it."""
    wrong = [(job, one) for job, findings in found for one in findings if not one.ok]
    if not wrong:
        return
    job, first = wrong[0]
    bad = next((job.id for job, one in wrong if one.checkpoint), None)
    remedy = f"; take bad checkpoints out of the row: lq verify {bad} --set-aside" if bad and not set_aside else ""
    raise CheckFailed(
        f"{len(wrong)} of {sum(len(findings) for _, findings in found)} files are not what they should be, "
        f"the first: {_name(job, first)} of job {job.id}{remedy}"
    )
