"""`lq check`: the result of each dry run, and when all jobs are done."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from jobs.model.states import Status
from orchestrator.cli.views.terminal import MARKS, labelled
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobs.estimates.cautions import Caution
    from jobs.estimates.estimate import TimeEstimate
    from orchestrator.planning.dry_run import DryRunRequest, DryRunResult, Timetable
    from orchestrator.results.planning import CheckedRow

_LABEL_WIDTH = 8


def announce(request: DryRunRequest) -> None:
    """Print on a terminal which job is checked now."""
    if sys.stderr.isatty():
        click.echo(f"checking {request.name} …", err=True)


def render(result: DryRunResult, times: Timetable, *, disk_free: int, now: float) -> RenderableType:
    """Return the view of one dry run; `disk_free` is in bytes, `now` in unix seconds."""
    job = result.request.job
    held = ", held" if job is not None and job.status is Status.HELD else ""
    verdict = ("would run", "good") if result.ok else ("WOULD FAIL", "bad")
    title = Text.assemble(f"{_name(result.request)}: ", verdict, held)
    rows = []
    for label, text, style in _rows(result, times, disk_free, now):
        row = labelled(label, text, style, width=_LABEL_WIDTH, label_style="dim")
        rows.append(Padding.indent(row, 2))
    return Group(title, *rows, "")


def _name(request: DryRunRequest) -> str:
    return f"job {request.job.id} {request.name}" if request.job is not None else request.name


def _rows(result: DryRunResult, times: Timetable, disk_free: int, now: float) -> Iterator[tuple[str, str, str]]:
    for failure in result.failures:
        yield "FAILS", failure.text, "bad"
    if result.peak_bytes is not None:
        yield "memory", _memory(result, result.peak_bytes), ""
    if result.measured is not None and result.time is not None:
        measured = result.measured
        speed = f"{fmt.figure(measured.it_s)} it/s, from {fmt.counted(measured.updates - 1, 'update')}"
        first = f"the first one, which includes compiling, took {fmt.duration(measured.first_update_s)}"
        yield "speed", f"{speed}; {first}", ""
        yield "time", _time(result.time), ""
        yield "done", _done(result, times, now), ""
    need = f"at most {fmt.size(result.request.need.total)} of {fmt.size(disk_free)} free"
    written = result.measured.checkpoint_bytes if result.measured is not None else None
    done = f"; a checkpoint of {fmt.size(written)} was written and verified" if written is not None else ""
    yield "disk", f"{need}{done}", ""
    if result.data is not None:
        yield "data", _data(result), ""
    for note in result.request.notes:
        if note != "no validation set":  # it is a warning, too
            yield "note", note, ""
    for caution in cautions_of(result, times):
        yield "warning", caution.text, "careful"


def _memory(result: DryRunResult, peak_bytes: int) -> str:
    if not result.limit_bytes:
        return f"peak {fmt.size(peak_bytes)}"
    limit = result.request.spec.lq.memory.limit
    setting = f"lq.memory.limit {limit}" if isinstance(limit, str) else "lq.memory.limit"
    share = peak_bytes / result.limit_bytes
    return f"peak {fmt.size(peak_bytes)}, {share:.0%} of {fmt.size(result.limit_bytes)} ({setting})"


def _time(estimate: TimeEstimate) -> str:
    costs = {
        fmt.counted(estimate.iterations, "iteration"): estimate.train_s,
        fmt.counted(estimate.validations, "validation"): estimate.validation_s,
        fmt.counted(estimate.checkpoints, "checkpoint"): estimate.checkpoint_s,
        fmt.counted(estimate.starts, "start"): estimate.start_s,
    } | ({"tests": estimate.test_s} if estimate.test_s else {})
    parts = ", ".join(f"{part} {fmt.duration(seconds)}" for part, seconds in costs.items())
    return f"{fmt.duration(estimate.expected_s)}: {parts}"


def _done(result: DryRunResult, times: Timetable, now: float) -> str:
    if times.ends_at is None or times.begins_at is None:
        return "not within a year"
    begins = "now" if times.begins_at - now < 60 else fmt.short_time(times.begins_at, now)
    window = result.request.spec.lq.window
    window_text = f", within its window {window}" if window else ""
    due = f"; deadline {fmt.short_time(times.due_at, now)}" if times.due_at is not None else ""
    return f"{fmt.short_time(times.ends_at, now)} if it starts {begins}{window_text}{due}"


def _data(result: DryRunResult) -> str:
    assert result.data is not None
    data = result.data
    padding = f", padding {data.padding_share:.0%}" if data.padding_share is not None else ""
    truncated = f"{data.truncated:,} truncated" if data.truncated else "none truncated"
    epochs = f"{data.epochs(result.request.spec):.3g} epochs"
    return f"{data.rows:,} rows, {truncated}{padding}; {data.valid_rows:,} validation rows; {epochs}"


_WHY = {
    "ends_in_prompt": "nothing: it does not end with an answer, and mask_prompt is on",
    "no_start": "nothing: the chat template does not show where the answer starts, and mask_prompt is on",
    "cut_off": "nothing: no token is left to learn within max_seq_length",
}


def _lines(text: str) -> str:
    return "\n".join(map(fmt.printable, text.split("\n")))


def row(shown: CheckedRow) -> RenderableType:
    """Return the view of a row, with the learned part between marks."""
    counts = "learned"
    if shown.tokens is not None:
        counts = f"{fmt.counted(shown.tokens, 'token')}, {shown.learned_tokens:,} of them learned"
    text, place = Text(), 0
    for part in shown.learned:
        text.append(_lines(shown.text[place : part.start]), "dim")
        text.append(f"{MARKS[0]}{_lines(part.text)}{MARKS[1]}", "good")
        place = part.end
    end = len(shown.text) if shown.cut_at is None else shown.cut_at
    text.append(_lines(shown.text[place:end]), "dim")
    notes = [Text(f"learned: {_WHY[shown.why]}", "careful")] if shown.why is not None else []
    if shown.cut_at is not None:
        notes.append(Text(f"cut: {len(shown.text) - shown.cut_at:,} more characters, beyond max_seq_length", "careful"))
    if shown.note is not None:
        notes.append(Text(f"note: {shown.note}"))
    return Group(Text(f"{shown.file}:{shown.row}: {counts}, between {MARKS[0]} and {MARKS[1]}"), text, *notes)


def print_if_moved(result: DryRunResult, before: Timetable, after: Timetable) -> None:
    """Print a later end, if a job that was checked later would start first."""
    if before.ends_at is not None and after.ends_at is not None and after.ends_at > before.ends_at:
        moment = fmt.short_time(after.ends_at)
        click.echo(f"{_name(result.request)}: done {moment}, later than shown above: another job may start first")


def total(results: Sequence[DryRunResult], times: Sequence[Timetable], *, slots: int, now: float) -> str:
    """Return when all jobs that would run are done."""
    ends = [
        one.ends_at for result, one in zip(results, times, strict=True) if result.counts and one.ends_at is not None
    ]
    if not ends:
        return "none of them would run"
    seconds = sum(result.time.expected_s for result in results if result.counts and result.time is not None)
    left_out = len(results) - len(ends)
    order = "" if len(ends) == 1 else ", one after the other" if slots == 1 else f", up to {slots} at a time"
    without = f"; without {fmt.counted(left_out, 'job')} that would fail or that is held" if left_out else ""
    jobs = f"{fmt.counted(len(ends), 'job')}{order}"
    return f"{jobs}: {fmt.duration(seconds)}, all done {fmt.short_time(max(ends), now)}{without}"


def cautions_of(result: DryRunResult, times: Timetable) -> list[Caution]:
    """Return the warnings about one job."""
    from jobs.estimates import cautions

    if times.ends_at is None:
        return list(result.cautions)
    ends, due = fmt.short_time(times.ends_at), fmt.short_time(times.due_at)
    return [*result.cautions, *cautions.of_time(times.ends_at, times.due_at, ends=ends, due=due)]
