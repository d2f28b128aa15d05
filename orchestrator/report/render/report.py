"""Facts to report.md."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path

from jobs.model.states import Status
from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import (
    NOT_MEASURED,
    counted,
    duration,
    figure,
    loss,
    loss_with_error,
    loss_with_interval,
    size,
    timestamp,
    whole,
)
from orchestrator.report.facts import AdapterFile, Facts, LossAt, Measurement
from orchestrator.report.render.history import planned_of, requested_and_run, timeline, what_happened
from orchestrator.report.render.results import compared, phase_table, question_table, verdict_lines
from orchestrator.report.render.setup import (
    adapter_section,
    checkpoint_section,
    data_section,
    hardware_section,
    origin_section,
    settings_section,
    what_is_trained,
)

LOSS, ANALYSIS = "loss_curve.png", "training_analysis.png"
"""The pictures beside a report."""


def render(facts: Facts, *, pictures: Sequence[str] = (LOSS, ANALYSIS), zone: tzinfo | None = None) -> str:
    """Return the report as Markdown.

    Args:
        facts: what was measured.
        pictures: which of the pictures could be drawn.
        zone: in which times are given; None is the machine's own.
    """
    sections = (
        _head(facts, LOSS in pictures),
        _key_metrics(facts, zone),
        compared(facts),
        question_table(facts.answers),
        phase_table(facts.findings.phases),
        timeline(facts, zone),
        what_happened(facts, zone),
        requested_and_run(facts),
        _trajectory(facts),
        _analysis(ANALYSIS in pictures),
        _measurements(facts),
        data_section(facts),
        adapter_section(facts),
        checkpoint_section(facts),
        hardware_section(facts),
        settings_section(facts),
        origin_section(facts),
        next_steps(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _analysis(drawn: bool) -> list[str]:
    return ["## Analysis", "", f"![Loss, speed, memory, learning rate]({ANALYSIS})"] if drawn else []


def _head(facts: Facts, drawn: bool) -> list[str]:
    job = facts.job
    reason = f" ({job.reason})" if job.reason else ""
    picture = f"![Loss by iteration]({LOSS})" if drawn else "Loss curve: not drawn."
    return [
        f"# {escaped(job.name)} (job {job.id}): {job.status}{reason}",
        "",
        *verdict_lines(facts.findings.ruling),
        "",
        f"- {_summary_of_run(facts)}",
        f"- {_summary_of_loss(facts)}",
        f"- {_summary_of_use(facts)}",
        "",
        picture,
    ]


def _summary_of_run(facts: Facts) -> str:
    progress, trained = facts.progress, facts.times.trained_seconds
    line = (
        f"{whole(progress.iterations_done)} of {whole(progress.iterations_asked)} iterations, "
        f"{'not started' if trained is None else f'{duration(trained)} in training'}, {_cost(facts)}."
    )
    detail, ruling = (facts.job.detail or "").rstrip("."), facts.findings.ruling
    said = ruling is not None and detail in ruling.verdict.because
    return line if facts.job.status is Status.SUCCEEDED or not detail or said else f"{line} {escaped(detail)}."


def _cost(facts: Facts) -> str:
    count = len(facts.restarts)
    if not count:
        return "no restart"
    given_up = f", {whole(facts.given_up_iterations)} given up" if facts.given_up_iterations else ""
    repeated = f"{counted(facts.repeated_iterations, 'iteration')} trained twice"
    return f"{counted(count, 'restart')}{planned_of(count, facts.planned_restarts)}, {repeated}{given_up}"


def _summary_of_loss(facts: Facts) -> str:
    validation, last = facts.validation, facts.train_loss.last
    if validation.final is None:
        return f"Validation loss {NOT_MEASURED}. Last train loss {_loss_at(last)}."
    parts = [
        f"{_loss_of(found)} {when}"
        for found, when in (
            (validation.base, "before training"),
            (validation.best, f"at best (iteration {whole(validation.best.iteration)})" if validation.best else ""),
            (validation.final, f"at the end (iteration {whole(validation.final.iteration)})"),
        )
        if found is not None
    ]
    return f"Validation loss {', '.join(parts)}; {counted(validation.final.examples, 'row')}."


def _summary_of_use(facts: Facts) -> str:
    if facts.adapter.best is not None:
        return f"The adapter of {_iteration_of(facts.adapter.best)} is in {code(facts.adapter.path)}."
    kept = facts.last_checkpoint
    if kept is None:
        return "No adapter was published, and no checkpoint is on disk."
    line = f"No adapter was published. The last checkpoint on disk is that of iteration {whole(kept.iteration)}"
    return f"{line}; {code(lq(facts, 'retry'))} goes on from there." if may_retry(facts) else f"{line}."


def _iteration_of(file: AdapterFile) -> str:
    return "an iteration that was not recorded" if file.iteration is None else f"iteration {whole(file.iteration)}"


def _key_metrics(facts: Facts, zone: tzinfo | None) -> list[str]:
    progress, train, clock = facts.progress, facts.train_loss, facts.times
    epochs = "" if progress.epochs is None else f" ({figure(progress.epochs)} epochs)"
    rows = [
        ("Model", code(facts.settings.model) if facts.settings else NOT_MEASURED),
        ("Trained", what_is_trained(facts.settings)),
        ("Iterations", f"{whole(progress.iterations_done)} of {whole(progress.iterations_asked)}"),
        ("Rows seen", f"{whole(progress.rows_seen)}{epochs}"),
        ("Tokens trained", whole(progress.tokens)),
        ("Train loss, first report", _loss_at(train.first)),
        ("Train loss, last report", _loss_at(train.last)),
        ("Train loss, lowest report", _loss_at(train.lowest)),
        *_reports_not_finite(facts),
        ("Validation loss before training", _measured_at(facts.validation.base)),
        ("Validation loss, best", _measured_at(facts.validation.best)),
        ("Validation loss, final", _measured_at(facts.validation.final)),
        ("Test loss", _measured_at(facts.test)),
        ("Speed, median", f"{figure(progress.it_s, 'it/s')}, {figure(progress.tok_s, 'tokens/s')}"),
        ("Peak memory", size(progress.peak_bytes)),
        ("Restarts", f"{len(facts.restarts)}{planned_of(len(facts.restarts), facts.planned_restarts)}"),
        ("Submitted", timestamp(clock.submitted_at, zone)),
        ("Started", timestamp(clock.started_at, zone)),
        ("Ended", timestamp(clock.ended_at, zone) if clock.ended_at else "not yet"),
        ("Time from start to end", duration(clock.wall_seconds)),
        ("Time in training processes", duration(clock.trained_seconds)),
    ]
    return ["## Key metrics", "", *table(("Metric", "Value"), rows), "", _key()]


def _key() -> str:
    return (
        "Losses are in nats per token; ± is one standard error over the rows; a train loss is the mean of one report."
    )


def _reports_not_finite(facts: Facts) -> list[tuple[str, str]]:
    train = facts.train_loss
    rows = []
    if train.not_finite:
        rows.append(("Reports whose loss is not finite", f"{whole(train.not_finite)} of {whole(train.reports)}"))
    if train.not_applied:
        rows.append(("Iterations whose update was not applied", whole(train.not_applied)))
    return rows


def _loss_at(found: LossAt | None) -> str:
    return NOT_MEASURED if found is None else f"{loss(found.loss)} (iteration {whole(found.iteration)})"


def _loss_of(found: Measurement) -> str:
    return loss_with_error(found.loss, found.standard_error)


def _measured_at(found: Measurement | None) -> str:
    return NOT_MEASURED if found is None else f"{_loss_of(found)} (iteration {whole(found.iteration)})"


def _trajectory(facts: Facts) -> list[str]:
    title = ["## Trajectory", ""]
    if not facts.trajectory:
        return [*title, "No report and no validation yet."]
    rows = [
        (whole(row.iteration), loss(row.train_loss), loss(row.val_loss), whole(row.tokens), size(row.peak_bytes))
        for row in facts.trajectory
    ]
    header = ("Iteration", "Train loss", "Validation loss", "Tokens", "Peak memory")
    return [*title, *table(header, rows, right="rrrrr"), "", "Train loss: the last report at or before the iteration."]


def _measurements(facts: Facts) -> list[str]:
    validation = facts.validation
    named: list[tuple[str, Measurement | None]] = [
        ("validation, before training", validation.base),
        ("validation, best", validation.best),
        ("validation, final", validation.final),
        *(("test, before training" if test.iteration == 0 else "test", test) for test in facts.tests),
    ]
    if not facts.tests:
        named.append(("test", None))
    rows = [(what, *_measurement_cells(found)) for what, found in named]
    header = ("Set", "Iteration", "Loss (95 % interval)", "Perplexity", "Rows")
    title = ["## Validation and test", "", *table(header, rows, right="lrrrr"), ""]
    start = facts.settings.resume_adapter_file if facts.settings else None
    before = f" Before training means with the weights of {code(start)}." if start else ""
    return [*title, f"Validations: {whole(validation.count)}.{before}"]


def _measurement_cells(found: Measurement | None) -> tuple[str, str, str, str]:
    if found is None:
        return (NOT_MEASURED,) * 4
    measured = loss_with_interval(found.loss, found.low, found.high)
    return whole(found.iteration), measured, figure(found.perplexity), whole(found.examples)


def next_steps(facts: Facts) -> list[str]:
    """Return the lines of the section: only commands that apply to this job."""
    steps = [(title, command) for title, applies, command in _STEPS if applies(facts)]
    lines = ["## Next steps"]
    for title, command in steps:
        lines += ["", f"{title}:", "", "```sh", command(facts), "```"]
    return lines


def lq(facts: Facts, verb: str) -> str:
    """Return `lq VERB ID`, with the home where it is not the default one."""
    home = f"LQ_HOME={shlex.quote(facts.job.home)} " if facts.job.home else ""
    return f"{home}lq {verb} {facts.job.id}"


def _mlx(facts: Facts, verb: str, *options: str, adapter: str | None = None) -> str:
    assert facts.settings is not None
    path = adapter or facts.adapter.path
    command = (f"mlx_lm.{verb}", "--model", facts.settings.model, "--adapter-path", path, *options)
    trust = ("--trust-remote-code",) if facts.settings.trust_remote_code else ()
    return shlex.join((*command, *trust))


def _generate(facts: Facts, adapter: str | None = None) -> str:
    prompt = facts.answers[0].prompt if facts.answers else "Write your question here"
    return _mlx(facts, "generate", "--prompt", prompt, adapter=adapter)


def _compare_checkpoints(facts: Facts) -> str:
    """Lay the last weights out as MLX-LM loads them, and ask them what the best ones were asked."""
    last = Path(facts.job.job_dir) / "last"
    adapters = Path(facts.adapter.path)
    steps = (
        ("mkdir", "-p", str(last)),
        ("cp", str(adapters / "adapter_config.json"), str(last)),
        ("cp", str(adapters / "final_adapters.safetensors"), str(last / "adapters.safetensors")),
    )
    laid_out = " && ".join(shlex.join(step) for step in steps)
    return f"{laid_out} && {_generate(facts, str(last))}"


def _test(facts: Facts) -> str:
    assert facts.settings is not None
    settings = facts.settings
    longest = ("--max-seq-length", str(settings.max_seq_length))
    return _mlx(facts, "lora", "--data", settings.data, "--test", "--test-batches", "-1", "--batch-size", "1", *longest)


def _fuse(facts: Facts) -> str:
    return _mlx(facts, "fuse", "--save-path", str(Path(facts.job.job_dir) / "fused"))


def _loads(facts: Facts) -> bool:
    return facts.adapter.best is not None and facts.settings is not None


def _has_another_last(facts: Facts) -> bool:
    best, final = facts.adapter.best, facts.adapter.final
    return _loads(facts) and best is not None and final is not None and best.sha256 != final.sha256


def _has_test_rows(facts: Facts) -> bool:
    return _loads(facts) and any(file.name == "test.jsonl" and file.rows for file in facts.data)


def may_retry(facts: Facts) -> bool:
    """Say whether `lq retry` takes this job."""
    return facts.job.status in (Status.FAILED, Status.CANCELLED)


_STEPS: tuple[tuple[str, Callable[[Facts], bool], Callable[[Facts], str]], ...] = (
    ("Ask the fine-tuned model", _loads, _generate),
    ("Ask the last weights the same", _has_another_last, _compare_checkpoints),
    ("Measure the test set", _has_test_rows, _test),
    ("Write one model folder that needs no adapter", _loads, _fuse),
    ("Try the job again", may_retry, lambda facts: lq(facts, "retry")),
    ("Read this report in the browser", lambda facts: True, lambda facts: f"{lq(facts, 'report')} --open"),
    ("See the job", lambda facts: True, lambda facts: lq(facts, "show")),
)
