"""show: everything about one job on a page."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from typing import Any

import click

from jobs.course import Course
from jobs.job import Attempt, Job
from jobs.outcomes import Outcome
from jobs.states import Status
from orchestrator.app import App
from orchestrator.cli import output, reach
from orchestrator.cli.job_words import JobWord
from orchestrator.cli.notify import fate
from orchestrator.cli.output import json_option
from orchestrator.cli.status import entry
from orchestrator.cli.waiting import goes_on, waiting_turns
from orchestrator.report.incidents import Told, differences, end, told

COLUMNS = 80
TAIL_LINES = 15
_INDENT = 12


@click.command()
@reach.job_id_argument
@click.option("--output", "whole_output", is_flag=True, help="All that is kept of what dead trainers wrote last.")
@json_option
def show(job_id: JobWord, whole_output: bool, as_json: bool) -> None:
    """Show everything about job ID: attempts, losses, checkpoints, incidents, messages."""
    with reach.opened() as app:
        job = reach.one_job(app, job_id)
        if as_json:
            output.print_json(_facts(app, job))
            return
        _tell(app, job, whole_output=whole_output)


def _facts(app: App, job: Job) -> dict[str, Any]:
    store = app.store
    more = {"detail": job.detail, "submitted_at": job.submitted_at, "ended_at": job.ended_at}
    return {
        "job": entry(job, waiting_turns(app, [job]).get(job.id)) | more | {"cleaned_at": job.cleaned_at},
        "spec": json.loads(store.spec_json(job.id)),
        "attempts": [dataclasses.asdict(attempt) for attempt in store.attempts(job.id)],
        "validations": [dataclasses.asdict(one) for one in store.validations(job.id)],
        "tests": [dataclasses.asdict(one) for one in store.validations(job.id, kind="test")],
        "checkpoints": [dataclasses.asdict(one) for one in store.checkpoints(job.id)],
        "incidents": [dataclasses.asdict(one) for one in store.incidents(job.id)],
        "messages": [dataclasses.asdict(one) for one in store.messages(job.id)],
    }


def _turn(app: App, job: Job) -> None:
    """Say what a job that does not run waits for."""
    turn = waiting_turns(app, [job]).get(job.id)
    if turn is not None and turn.obstacle is not None and job.status is Status.QUEUED:
        _pair("waits", turn.obstacle.text)
    if (when := goes_on(job, app.store.queue_state(), turn)) is not None:
        _pair("starts" if job.status is Status.QUEUED and not job.attempts else "goes on", when)


def _tell(app: App, job: Job, *, whole_output: bool) -> None:
    spec = json.loads(app.store.spec_json(job.id))
    click.echo(f"job {job.id}: {job.name}: {job.status}" + (f" ({job.reason})" if job.reason else ""))
    _pair("what", f"{spec['fine_tune_type']} of {spec['model']} on {spec['data']}")
    share = f"{100 * job.iteration // job.iters}%"
    _pair("progress", f"{job.iteration:,} of {job.iters:,} iterations ({share}), ETA {output.span(job.eta_seconds)}")
    _pair("loss", f"train {output.loss(job.train_loss)}, validation {output.loss(job.val_loss)}")
    _pair("times", f"submitted {output.clock(job.submitted_at)}, ended {output.clock(job.ended_at)}")
    _pair("folder", job.job_dir)
    if job.cleaned_at is not None:
        _pair("cleaned", f"{output.clock(job.cleaned_at)}; its checkpoints and log are gone, its report stays")
    if job.detail:
        _pair("detail", job.detail)
    _turn(app, job)
    _attempts(app, job)
    _course(app, job)
    _incidents(app, job)
    _output(app, job, whole=whole_output)
    _validations(app, job)
    _checkpoints(app, job)
    _messages(app, job)


def _pair(name: str, text: str) -> None:
    lines = textwrap.wrap(text, COLUMNS - _INDENT, break_long_words=False, break_on_hyphens=False) or [""]
    if len(name) > _INDENT - 3:
        click.echo(f"  {name}")
    else:
        click.echo(f"  {name:<{_INDENT - 3}} {lines.pop(0)}".rstrip())
    for line in lines:
        click.echo(" " * _INDENT + line)


def _head(text: str) -> None:
    click.echo(f"\n{text}")


def _attempts(app: App, job: Job) -> None:
    attempts = app.store.attempts(job.id)
    if attempts:
        _head("attempts")
    for attempt in attempts:
        pid = f"pid {attempt.child.pid}" if attempt.child is not None else "no pid"
        _pair(f"{attempt.number}", f"{output.clock(attempt.started_at)}  {pid}  {_reach(attempt)}  {_end(attempt)}")


def _reach(attempt: Attempt) -> str:
    if attempt.first_iteration is None:
        return "did not start"
    source = f" from {attempt.resumed_from} ({attempt.quality})" if attempt.resumed_from else " from the beginning"
    return f"iterations {attempt.first_iteration:,} to {attempt.last_iteration or attempt.first_iteration:,}{source}"


def _end(attempt: Attempt) -> str:
    if attempt.ended_at is None:
        return "lives"
    return f"{attempt.outcome} ({attempt.reason}): {attempt.detail}"


def _validations(app: App, job: Job) -> None:
    store = app.store
    rows = [("validation", one) for one in store.validations(job.id)]
    rows += [("test", one) for one in store.validations(job.id, kind="test")]
    if rows:
        _head("validation (nats per token)")
    for name, one in rows[-12:]:
        spread = f" ± {one.standard_error:.3f}" if one.standard_error is not None else ""
        _pair(name if name == "test" else "", f"{one.iteration:>8,}  {output.loss(one.loss)}{spread}")


def _checkpoints(app: App, job: Job) -> None:
    checkpoints = app.store.checkpoints(job.id)
    if checkpoints:
        size = sum(one.size_bytes for one in checkpoints) / 1e6
        last = checkpoints[-1]
        _head(f"checkpoints: {len(checkpoints)} written, {size:.1f} MB, the last at iteration {last.iteration:,}")


def _course(app: App, job: Job) -> None:
    """Tell every leg that was appended, as what was requested -> what is run."""
    legs = app.store.legs(job.id)
    if not legs:
        return
    from jobs.spec import JobSpec

    spec = JobSpec.model_validate_json(app.store.spec_json(job.id))
    requested = Course.requested(spec).legs[0]
    _head("course: requested -> run, from iteration")
    for leg in legs:
        _pair(f"{leg.first_example // spec.batch_size:,}", f"{differences(requested, leg)} ({leg.because})")


def _incidents(app: App, job: Job) -> None:
    incidents, attempts = app.store.incidents(job.id), app.store.attempts(job.id)
    gave_up = attempts and job.status is Status.FAILED and attempts[-1].outcome == Outcome.DIED
    if incidents or gave_up:
        _head("incidents")
    points = app.store.points(job.id, superseded=True) if incidents else []
    for incident in incidents:
        _paragraph(incident.time, told(incident, attempts, points))
    if gave_up:
        answer = f"gave up: {job.reason}: {job.detail}"
        _paragraph(attempts[-1].ended_at, dataclasses.replace(end(attempts[-1]), answer=answer))


def _paragraph(moment: float | None, found: Told) -> None:
    _pair(output.clock(moment), found.happened)
    for question, text in (
        ("How lq knows", found.known_by),
        ("What it did", found.answer),
        ("What it cost", found.cost),
    ):
        if text:
            _pair("", f"{question}: {text}")


def _output(app: App, job: Job, *, whole: bool) -> None:
    """Print what dead trainers wrote last: the newest one's last lines, or all that is kept of each."""
    dead = [attempt for attempt in app.store.attempts(job.id) if (attempt.stderr_tail or "").strip()]
    for attempt in dead if whole else dead[-1:]:
        lines = (attempt.stderr_tail or "").splitlines()
        shown = lines if whole else lines[-TAIL_LINES:]
        more = "" if len(shown) == len(lines) else f", the last {len(shown)} of {len(lines)} lines; all with --output"
        _head(f"output of attempt {attempt.number}{more}")
        _raw(shown)


def _raw(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo("  " + "".join(char if char.isprintable() else " " for char in line))


def _messages(app: App, job: Job) -> None:
    messages = app.store.messages(job.id)
    if messages:
        _head("messages")
    for message in messages:
        _pair(message.event, f"{output.clock(message.created_at)}  {fate(message)}")
