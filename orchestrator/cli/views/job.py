"""`lq show`: one job in full."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from jobs.model.job import Attempt, Job, Message, ProgressPoint
from jobs.model.outcomes import Outcome
from jobs.model.run_plan import RunPlan
from jobs.model.states import ENDED, Status
from orchestrator.cli.views.status import STYLE_OF, STYLE_OF_VERDICT, time_left
from orchestrator.cli.views.terminal import Sparkline, labelled, share
from orchestrator.cli.views.waiting import INTERRUPTED, forecast_of, interrupted, resumes, waiting_turns
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.formatting.incidents import IncidentText, crash_of, describe
from orchestrator.formatting.next_steps import fix_of, next_steps
from orchestrator.report.analysis.settings_diff import differences
from orchestrator.report.stored_verdict import stored_verdict

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

MOST_LINES = 60
"""Lines of the view; `--verbose` shows the rest."""

TAIL_LINES = 15
_LABEL_WIDTH = 9

_SETTLED = {
    "gave_up": "given up after a day",
    "folded": "merged into another message",
    "nobody": "no service subscribed",
}


def render(app: App, job: Job, *, now: float, verbose: bool = False, whole_output: bool = False) -> RenderableType:
    """Return the view of a job, of `MOST_LINES` lines at most unless `verbose`.

    Args:
        now: unix seconds.
        verbose: show every row, and what lq saw and did at each incident.
        whole_output: show all stored output of crashed trainers, not only its last lines.
    """
    sections = [
        _Section(title="", rows=list(_summary(app, job, now)), fixed=True),
        *_sections(app, job, verbose, whole_output),
    ]
    shown = [section for section in sections if section.rows]
    return _Shortened(shown, most=None if verbose or whole_output else MOST_LINES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Section:
    """A part of the view."""

    title: str
    rows: list[RenderableType]  # the oldest first
    fixed: bool = False  # keeps all its rows


class _Shortened:
    """Sections that lose their oldest rows, the longest section first, until they fit into a number of lines."""

    def __init__(self, sections: Sequence[_Section], *, most: int | None) -> None:
        self._sections, self._most = sections, most

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the rows that fit."""
        heights = [[len(console.render_lines(row, options, pad=False)) for row in one.rows] for one in self._sections]
        first = [0] * len(heights)  # row of each section from which it is shown
        while self._most is not None and self._lines(heights, first) > self._most:
            able = [
                place for place, one in enumerate(self._sections) if not one.fixed and first[place] + 1 < len(one.rows)
            ]
            if not able:
                break
            first[max(able, key=lambda place: sum(heights[place][first[place] :]))] += 1
        for place, section in enumerate(self._sections):
            rows, left = section.rows[first[place] :], first[place]
            if section.title:
                more = f", last {len(rows)} of {len(section.rows)}; all: --verbose" if left else ""
                yield from ("", Text(f"{section.title}{more}", "bold", no_wrap=True, overflow="ellipsis"))
            yield from rows

    def _lines(self, heights: Sequence[Sequence[int]], first: Sequence[int]) -> int:
        titles = sum(2 for section in self._sections if section.title)
        return titles + sum(sum(rows[start:]) for rows, start in zip(heights, first, strict=True))


def _sections(app: App, job: Job, verbose: bool, whole_output: bool) -> Iterator[_Section]:
    attempts = app.store.attempts.of(job.id)
    yield _Section(title="attempts", rows=list(_attempts(attempts)))
    yield _Section(title="run plan: requested -> run, from iteration", rows=list(_run_plan(app, job)))
    yield _Section(title="incidents", rows=list(_incidents(app, job, attempts, verbose)))
    yield from _output(attempts, whole=whole_output)
    yield _validations(app, job)
    messages = app.store.outbox.messages(job.id)
    sent = [_pair(one.event, f"{fmt.clock(one.created_at)}  {delivery(one)}") for one in messages]
    yield _Section(title="messages", rows=list(sent))
    yield _Section(title="next", rows=list(_next_steps(job)), fixed=True)


def _pair(label: str, text: str, style: str = "") -> RenderableType:
    return Padding.indent(labelled(label, text, style, width=_LABEL_WIDTH, label_style="dim"), 2)


def _path(label: str, path: str) -> RenderableType:
    """Return a path that is never wrapped, so that it can be copied."""
    return Text.assemble("  ", (f"{label:<{_LABEL_WIDTH}} ", "dim"), path, no_wrap=True, overflow="ignore")


# --- summary ---


def _summary(app: App, job: Job, now: float) -> Iterator[RenderableType]:
    spec = json.loads(app.store.jobs.spec_json(job.id))
    reason = f" ({job.reason})" if job.reason else ""
    yield Text.assemble(f"job {job.id}: {job.name}: ", (f"{job.status}{reason}", STYLE_OF.get(job.status, "good")))
    verdict = stored_verdict(job) if job.status in ENDED else None
    if verdict is not None:
        yield _pair("verdict", f"{verdict.code}. {verdict.because}", STYLE_OF_VERDICT.get(verdict.code, "careful"))
        if verdict.advice:
            yield _pair("advice", verdict.advice)
    yield _pair("training", f"{spec['fine_tune_type']} of {spec['model']} on {spec['data']}")
    yield from _figures(app, job, now)
    moments = {"submitted": job.submitted_at, "started": job.started_at, "ended": job.ended_at}
    times = [f"{name} {fmt.clock(moment)}" for name, moment in moments.items() if moment is not None]
    if job.started_at is not None and job.ended_at is not None:
        times.append(f"took {fmt.short_duration(job.ended_at - job.started_at)}")
    yield _pair("times", ", ".join(times))
    yield _path("folder", job.job_dir)
    report = job.dir.report / "report.md"
    if report.exists():
        yield _path("report", str(report))
    if job.cleaned_at is not None:
        yield _pair("cleaned", f"{fmt.clock(job.cleaned_at)}; its checkpoints and log are deleted, its report is kept")
    if job.dismissed_at is not None:
        yield _pair("dismissed", fmt.clock(job.dismissed_at))
    if interrupted(app, [job]):
        yield _pair("state", INTERRUPTED, "careful")
    if job.detail and (verdict is None or job.detail.rstrip(".") not in verdict.because):
        yield _pair("detail", job.detail, STYLE_OF.get(job.status, ""))
    if job.status is Status.FAILED:
        yield _pair("fix", fix_of(job.reason, job.id, job.job_dir)[0].replace("`", ""))
    turn = waiting_turns(app, [job], now=now).get(job.id)
    if turn is not None and turn.obstacle is not None and job.status is Status.QUEUED:
        yield _pair("waits for", turn.obstacle.text, "careful")
    if (when := resumes(job, app.store.queue.state(), turn, now=now)) is not None:
        yield _pair("starts" if job.status is Status.QUEUED and not job.attempts else "resumes", when)


def _figures(app: App, job: Job, now: float) -> Iterator[RenderableType]:
    points = app.store.metrics.points(job.id)
    best = app.store.status.best_validations([job.id]).get(job.id)
    progress = f"{job.iteration:,} of {job.iters:,} iterations ({share(job)})"
    left = time_left(job, forecast_of(app, [job], now=now), now) if job.status is Status.RUNNING else ""
    yield _pair("progress", f"{progress}, {left}" if left else progress)
    lowest = f", best {fmt.short_loss(best.loss)} at iteration {best.iteration:,}" if best is not None else ""
    yield _pair("loss", f"train {fmt.short_loss(job.train_loss)}, validation {fmt.short_loss(job.val_loss)}{lowest}")
    if len(points) > 1:
        yield Padding.indent(Sparkline([point.train_loss for point in points], "", whole=True), 3 + _LABEL_WIDTH)
    if job.it_s is not None:
        tokens = f", {points[-1].tok_s:,.0f} tokens/s" if points and points[-1].tok_s else ""
        yield _pair("speed", f"{fmt.figure(job.it_s)} it/s{tokens}, as last reported")
    if memory := _memory(points):
        yield _pair("memory", memory)
    if checkpoints := app.store.metrics.checkpoints(job.id):
        size, last = sum(one.size_bytes for one in checkpoints), checkpoints[-1].iteration
        yield _pair("saved", f"{fmt.counted(len(checkpoints), 'checkpoint')}, {fmt.size(size)}, last at {last:,}")


def _memory(points: Sequence[ProgressPoint]) -> str:
    peak = max((point.peak_bytes or 0 for point in points), default=0)
    footprint = max((point.footprint_bytes or 0 for point in points), default=0)
    parts = [f"at most {fmt.size(footprint)}"] * bool(footprint) + [f"MLX peak {fmt.size(peak)}"] * bool(peak)
    limit = points[-1].limit_bytes if points else None
    share = f"; limit {fmt.size(limit)} ({100 * (footprint or peak) / limit:.0f}%)" if limit else ""
    return f"{', '.join(parts)}{share}" if parts else ""


# --- sections ---


def _attempts(attempts: Sequence[Attempt]) -> Iterator[RenderableType]:
    for attempt in attempts:
        pid = f"pid {attempt.child.pid}" if attempt.child is not None else "no pid"
        end = "running" if attempt.ended_at is None else f"{attempt.outcome} ({attempt.reason}): {attempt.detail}"
        iterations, first = "did not start", attempt.first_iteration
        if first is not None:
            source = f"{attempt.resumed_from} ({attempt.quality})" if attempt.resumed_from else "the beginning"
            iterations = f"iterations {first:,} to {attempt.last_iteration or first:,} from {source}"
        yield _pair(str(attempt.number), "  ".join((fmt.clock(attempt.started_at), pid, iterations, end)))


def _run_plan(app: App, job: Job) -> Iterator[RenderableType]:
    """Yield each stage that was added, as requested -> run."""
    stages = app.store.run_plans.stages(job.id)
    if not stages:
        return
    requested = RunPlan.requested(app.store.spec(job.id))
    for stage in stages:
        iteration = requested.iteration_of(stage.first_example)
        yield _pair(f"{iteration:,}", f"{differences(requested.stages[0], stage)} ({stage.because})")


def _incidents(app: App, job: Job, attempts: Sequence[Attempt], verbose: bool) -> Iterator[RenderableType]:
    incidents = app.store.incidents.of(job.id)
    points = app.store.metrics.points(job.id, superseded=True) if incidents else []
    for incident in incidents:
        yield _incident(incident.time, describe(incident, attempts, points), verbose)
    if attempts and job.status is Status.FAILED and attempts[-1].outcome == Outcome.CRASHED:
        action = f"gave up: {job.reason}: {job.detail}"
        crash = dataclasses.replace(describe(crash_of(attempts[-1])), action=action)
        yield _incident(attempts[-1].ended_at, crash, verbose)


def _incident(moment: float | None, incident: IncidentText, verbose: bool) -> RenderableType:
    """Return an incident in one line, or with its details."""
    parts = (incident.what, "" if verbose else incident.cost)
    line = Padding.indent(labelled(fmt.clock(moment), ": ".join(filter(None, parts)), label_style="dim"), 2)
    details = (("evidence", incident.evidence), ("action", incident.action), ("cost", incident.cost))
    return Group(line, *(_pair(label, text) for label, text in details if text and verbose))


def _output(attempts: Sequence[Attempt], *, whole: bool) -> Iterator[_Section]:
    """Yield the last lines of the newest crashed trainer, or all stored output of each."""
    crashed = [attempt for attempt in attempts if (attempt.stderr_tail or "").strip()]
    for attempt in crashed if whole else crashed[-1:]:
        lines = (attempt.stderr_tail or "").splitlines()
        shown = lines if whole else lines[-TAIL_LINES:]
        more = "" if len(shown) == len(lines) else f", last {len(shown)} of {len(lines)} lines; all: --output"
        rows: list[RenderableType] = [Text(f"  {line}", no_wrap=True, overflow="ignore") for line in shown]
        yield _Section(title=f"output of attempt {attempt.number}{more}", rows=rows)


def _validations(app: App, job: Job) -> _Section:
    of_kind = {"": app.store.metrics.validations(job.id), "test": app.store.metrics.validations(job.id, kind="test")}
    best = app.store.status.best_validations([job.id]).get(job.id)
    rows: list[RenderableType] = []
    unit = "nats per token"
    for kind, one in [(kind, one) for kind, validations in of_kind.items() for one in validations]:
        error, words = f"± {one.standard_error:.3f}" if one.standard_error is not None else "", ""
        mark = "best" if not kind and best is not None and one.iteration == best.iteration else ""
        if one.rewards is not None:
            unit = "nats per row"
            words = f"accuracy {fmt.percent(one.rewards.accuracy)}, margin {fmt.figure(one.rewards.margin)}"
        figures = f"{one.iteration:>8,}  {fmt.short_loss(one.loss):>7}  {error:<7}  {mark:<4}  {words}"
        rows.append(Text(f"  {kind:<8}  {figures}".rstrip()))
    return _Section(title=f"validation ({unit})", rows=rows)


def delivery(message: Message) -> str:
    """Return what became of a message, service by service."""
    results = ", ".join(f"{one.service} {one.last_result}" for one in message.services) or "not tried"
    if message.settled is None:
        return f"open, next try {fmt.clock(message.next_try_at)}: {results}"
    return f"{_SETTLED.get(message.settled, message.settled)}: {results}"


def _next_steps(job: Job) -> Iterator[RenderableType]:
    steps = next_steps(job.status, job.id, job.job_dir, cleaned=job.cleaned_at is not None)
    width = max(len(command) for command, _ in steps)
    for command, why in steps:
        yield Text.assemble(f"  {command:<{width}}  ", (why, "dim"), no_wrap=True, overflow="ignore")
