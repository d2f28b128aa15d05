"""Everything about one job on a page."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence

import click

from jobs.model.job import Attempt, Job, ProgressPoint
from jobs.model.outcomes import Outcome
from jobs.model.run_plan import RunPlan
from jobs.model.states import ENDED, Status
from orchestrator.cli.views.messages import fate
from orchestrator.cli.views.status import STYLE_OF, STYLE_OF_VERDICT
from orchestrator.cli.views.terminal import Paper, Piece, whole_curve
from orchestrator.cli.views.waiting import forecast_of, goes_on, waiting_turns
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.formatting.incidents import IncidentText, crash_of, describe
from orchestrator.report.analysis.settings_diff import differences
from orchestrator.report.stored_verdict import ruling_of

COLUMNS = 80
TAIL_LINES = 15
MOST_VALIDATIONS = 12
_INDENT = 12


def _turn(app: App, job: Job) -> None:
    """Say what a job that does not run waits for."""
    turn = waiting_turns(app, [job]).get(job.id)
    if turn is not None and turn.obstacle is not None and job.status is Status.QUEUED:
        _pair("waits", turn.obstacle.text, "careful")
    if (when := goes_on(job, app.store.queue.state(), turn)) is not None:
        _pair("starts" if job.status is Status.QUEUED and not job.attempts else "resumes", when)


def print_job(app: App, job: Job, *, whole_output: bool) -> None:
    """Print everything about one job."""
    spec = json.loads(app.store.jobs.spec_json(job.id))
    reason = f" ({job.reason})" if job.reason else ""
    _echo(f"job {job.id}: {job.name}: ", (f"{job.status}{reason}", STYLE_OF.get(job.status, "good")))
    _verdict(job)
    _pair("what", f"{spec['fine_tune_type']} of {spec['model']} on {spec['data']}")
    _figures(app, job)
    _times(job)
    _pair("folder", job.job_dir)
    report = job.dir.report / "report.md"
    if report.exists():
        _pair("report", str(report))
    if job.cleaned_at is not None:
        _pair("cleaned", f"{fmt.clock(job.cleaned_at)}; its checkpoints and log are gone, its report stays")
    if job.detail:
        _pair("detail", job.detail, STYLE_OF.get(job.status, ""))
    _turn(app, job)
    _attempts(app, job)
    _run_plan(app, job)
    _incidents(app, job)
    _output(app, job, whole=whole_output)
    _validations(app, job)
    _checkpoints(app, job)
    _messages(app, job)
    _next(job)


def _verdict(job: Job) -> None:
    """Tell the verdict of the report, why, and what it advises."""
    ruling = ruling_of(job) if job.status in ENDED else None
    if ruling is not None:
        verdict, because, advice = ruling
        _pair("verdict", f"{verdict}. {because}", STYLE_OF_VERDICT.get(verdict, "careful"))
        if advice:
            _pair("advice", advice)


def _figures(app: App, job: Job) -> None:
    """Tell how far it is, its losses from beginning to end, its speed and its memory."""
    share = f"{100 * job.iteration // job.iters}%"
    forecast = forecast_of(app, [job]) if job.status is Status.RUNNING else None
    time_left = forecast.time_left.get(job.id) if forecast is not None else None
    times = forecast.times.get(job.id) if forecast is not None else None
    left = f", {fmt.short_duration(time_left.expected_s)} left" if time_left is not None else ""
    done = f", done {fmt.upcoming(_minute(times.end))}" if times is not None and times.end is not None else ""
    _pair("progress", f"{job.iteration:,} of {job.iters:,} iterations ({share}){left}{done}")
    points = app.store.metrics.points(job.id)
    best = app.store.status.best_validations([job.id]).get(job.id)
    lowest = f", best {fmt.short_loss(best.loss)} at iteration {best.iteration:,}" if best is not None else ""
    _pair("loss", f"train {fmt.short_loss(job.train_loss)}, validation {fmt.short_loss(job.val_loss)}{lowest}")
    if len(points) > 1:
        _pair("", whole_curve([point.train_loss for point in points], COLUMNS - _INDENT))
    if job.it_s is not None:
        last = points[-1] if points else None
        tokens = f", {last.tok_s:,.0f} tokens/s" if last is not None and last.tok_s else ""
        _pair("speed", f"{fmt.figure(job.it_s)} it/s{tokens}, as last reported")
    _memory(points)


def _minute(moment: float) -> float:
    return round(moment / 60) * 60


def _memory(points: Sequence[ProgressPoint]) -> None:
    peak = max((point.peak_bytes or 0 for point in points), default=0)
    most = max((point.footprint_bytes or 0 for point in points), default=0)
    if not points or not (peak or most):
        return
    limit = points[-1].limit_bytes
    said = [f"{fmt.size(most)} at most"] * bool(most) + [f"MLX peaked at {fmt.size(peak)}"] * bool(peak)
    allowed = f"; limit {fmt.size(limit)} ({100 * (most or peak) / limit:.0f}%)" if limit else ""
    _pair("memory", f"{', '.join(said)}{allowed}")


def _times(job: Job) -> None:
    said = [f"submitted {fmt.clock(job.submitted_at)}"]
    said += [f"started {fmt.clock(job.started_at)}"] * (job.started_at is not None)
    if job.ended_at is not None:
        said.append(f"ended {fmt.clock(job.ended_at)}")
        if job.started_at is not None:
            said.append(f"took {fmt.short_duration(job.ended_at - job.started_at)}")
    _pair("times", ", ".join(said))


def _next(job: Job) -> None:
    """Say what one would do with such a job."""
    steps = [(command.format(id=job.id, dir=job.job_dir), why) for command, why in _STEPS[job.status]]
    if job.cleaned_at is not None and job.status is not Status.SUCCEEDED:
        steps = [(f"lq submit {shlex.quote(f'{job.job_dir}/config.yaml')}", "begin it anew")]
    _head("next")
    width = max(len(command) for command, _ in steps)
    for command, why in steps:
        _echo(f"  {command:<{width}}  ", (why, "dim"))


_STEPS: Mapping[Status, Sequence[tuple[str, str]]] = {
    Status.QUEUED: (("lq move {id} --first", "its turn comes next"), ("lq pause {id}", "keep it from running")),
    Status.RUNNING: (
        ("lq watch", "see it go on"),
        ("lq logs {id} -f", "what its trainer says"),
        ("lq pause {id}", "stop it for now, with a checkpoint"),
    ),
    Status.WAITING: (("lq resume {id}", "go on now"), ("lq logs {id} --output", "what its trainers wrote")),
    Status.PAUSED: (("lq resume {id}", "go on from its checkpoint"),),
    Status.HELD: (("lq resume {id}", "give it its turn again"),),
    Status.SUCCEEDED: (
        ("lq report {id} --open", "read its report"),
        ("lq chat {id}", "talk to it, with its best adapter"),
        ("lq test {id}", "its loss on the test set, with intervals"),
        ("lq fuse {id}", "model and adapter in one folder"),
    ),
    Status.FAILED: (
        ("lq logs {id} --output", "what its trainers wrote"),
        ("lq retry {id}", "go on from its last checkpoint, once the cause is mended"),
    ),
    Status.CANCELLED: (("lq retry {id}", "go on from its last checkpoint"),),
    Status.SKIPPED: (("lq submit {dir}/config.yaml", "queue it anew, once what it waited for has succeeded"),),
}


def _echo(*pieces: Piece) -> None:
    """Print a line; paths are not cut, so that they can be copied."""
    click.echo(dataclasses.replace(Paper.of(sys.stdout), endless=True).line(*pieces), color=True)


def _pair(name: str, text: str, style: str = "") -> None:
    lines = textwrap.wrap(text, COLUMNS - _INDENT, break_long_words=False, break_on_hyphens=False) or [""]
    if len(name) > _INDENT - 3:
        _echo(f"  {name}")
    else:
        _echo(("  " + f"{name:<{_INDENT - 3}} ", "dim"), (lines.pop(0), style))
    for line in lines:
        _echo(" " * _INDENT, (line, style))


def _head(text: str) -> None:
    click.echo()
    _echo((text, "bold"))


def _attempts(app: App, job: Job) -> None:
    attempts = app.store.attempts.of(job.id)
    if attempts:
        _head("attempts")
    for attempt in attempts:
        pid = f"pid {attempt.child.pid}" if attempt.child is not None else "no pid"
        _pair(f"{attempt.number}", f"{fmt.clock(attempt.started_at)}  {pid}  {_reach(attempt)}  {_end(attempt)}")


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
    rows = [("validation", one) for one in store.metrics.validations(job.id)]
    rows += [("test", one) for one in store.metrics.validations(job.id, kind="test")]
    best = store.status.best_validations([job.id]).get(job.id)
    if rows:
        more = f", the last {MOST_VALIDATIONS} of {len(rows)}" if len(rows) > MOST_VALIDATIONS else ""
        _head(f"validation (nats per token){more}")
    for name, one in rows[-MOST_VALIDATIONS:]:
        spread = f" ± {one.standard_error:.3f}" if one.standard_error is not None else ""
        mark = "  best" if best is not None and name != "test" and one.iteration == best.iteration else ""
        _pair(name if name == "test" else "", f"{one.iteration:>8,}  {fmt.short_loss(one.loss):>7}{spread}{mark}")


def _checkpoints(app: App, job: Job) -> None:
    checkpoints = app.store.metrics.checkpoints(job.id)
    if checkpoints:
        size = sum(one.size_bytes for one in checkpoints) / 1e6
        last = checkpoints[-1]
        _head(f"checkpoints: {len(checkpoints)} written, {size:.1f} MB, the last at iteration {last.iteration:,}")


def _run_plan(app: App, job: Job) -> None:
    """Tell every stage that was appended, as what was requested -> what is run."""
    stages = app.store.run_plans.stages(job.id)
    if not stages:
        return

    spec = app.store.spec(job.id)
    run_plan = RunPlan.requested(spec)
    _head("run plan: requested -> run, from iteration")
    for stage in stages:
        _pair(
            f"{run_plan.iteration_of(stage.first_example):,}",
            f"{differences(run_plan.stages[0], stage)} ({stage.because})",
        )


def _incidents(app: App, job: Job) -> None:
    incidents, attempts = app.store.incidents.of(job.id), app.store.attempts.of(job.id)
    gave_up = attempts and job.status is Status.FAILED and attempts[-1].outcome == Outcome.CRASHED
    if incidents or gave_up:
        _head("incidents")
    points = app.store.metrics.points(job.id, superseded=True) if incidents else []
    for incident in incidents:
        _paragraph(incident.time, describe(incident, attempts, points))
    if gave_up:
        action = f"gave up: {job.reason}: {job.detail}"
        _paragraph(attempts[-1].ended_at, dataclasses.replace(describe(crash_of(attempts[-1])), action=action))


def _paragraph(moment: float | None, incident: IncidentText) -> None:
    _pair(fmt.clock(moment), incident.what)
    for question, text in (("Evidence", incident.evidence), ("Action", incident.action), ("Cost", incident.cost)):
        if text:
            _pair("", f"{question}: {text}")


def _output(app: App, job: Job, *, whole: bool) -> None:
    """Print what dead trainers wrote last: the newest one's last lines, or all that is kept of each."""
    dead = [attempt for attempt in app.store.attempts.of(job.id) if (attempt.stderr_tail or "").strip()]
    for attempt in dead if whole else dead[-1:]:
        lines = (attempt.stderr_tail or "").splitlines()
        shown = lines if whole else lines[-TAIL_LINES:]
        more = "" if len(shown) == len(lines) else f", the last {len(shown)} of {len(lines)} lines; all with --output"
        _head(f"output of attempt {attempt.number}{more}")
        _raw(shown)


def _raw(lines: Sequence[str]) -> None:
    for line in lines:
        _echo(f"  {line}")


def _messages(app: App, job: Job) -> None:
    messages = app.store.outbox.messages(job.id)
    if messages:
        _head("messages")
    for message in messages:
        _pair(message.event, f"{fmt.clock(message.created_at)}  {fate(message)}")
