"""Facts -> report.md: GitHub Markdown that reads well raw, too. Pure; says what was measured and no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from jobs.course import Leg
from jobs.states import Status
from orchestrator.report.facts import (
    AdapterFile,
    CheckpointFacts,
    Facts,
    LossAt,
    Measurement,
    Settings,
)
from orchestrator.report.incidents import differences
from orchestrator.report.next_steps import lq, may_retry, next_steps
from orchestrator.report.story import incident_table, what_happened
from orchestrator.report.wording import (
    NOT_MEASURED,
    code,
    duration,
    escaped,
    figure,
    loss,
    loss_with_error,
    moment,
    or_unknown,
    size,
    table,
    times,
    whole,
)

MOST_CHECKPOINTS = 20
"""Rows of the checkpoint table; report.json has them all."""


def render(facts: Facts, *, picture: str | None = "loss_curve.png", zone: tzinfo | None = None) -> str:
    """Return the report as Markdown.

    Args:
        facts: what was measured.
        picture: the loss curve, relative to the report; None where it could not be drawn.
        zone: in which times are given; None is the machine's own.
    """
    sections = (
        _head(facts, picture),
        _key_metrics(facts, zone),
        what_happened(facts, zone),
        _trajectory(facts),
        _measurements(facts),
        incident_table(facts.incidents, zone),
        _adapter(facts),
        _checkpoints(facts),
        _settings(facts),
        _data(facts),
        _origin(facts),
        next_steps(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _head(facts: Facts, picture: str | None) -> list[str]:
    job = facts.job
    reason = f" ({job.reason})" if job.reason else ""
    drawn = f"![Loss by iteration]({picture})" if picture else "Loss curve: not drawn."
    return [
        f"# {escaped(job.name)} (job {job.id}): {job.status}{reason}",
        "",
        f"- {_summary_of_run(facts)}",
        f"- {_summary_of_loss(facts)}",
        f"- {_summary_of_use(facts)}",
        "",
        drawn,
    ]


def _summary_of_run(facts: Facts) -> str:
    progress, trained = facts.progress, facts.times.trained_seconds
    line = (
        f"{whole(progress.iterations_done)} of {whole(progress.iterations_asked)} iterations, "
        f"{'not started' if trained is None else f'{duration(trained)} in training'}, {_cost(facts)}."
    )
    unfinished = facts.job.status is not Status.SUCCEEDED and facts.job.detail
    return f"{line} {escaped(facts.job.detail or '').rstrip('.')}." if unfinished else line


def _cost(facts: Facts) -> str:
    if not facts.restarts:
        return "no restart"
    return f"{times(len(facts.restarts), 'restart')}, {times(facts.repeated_iterations, 'iteration')} trained twice"


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
    return f"Validation loss {', '.join(parts)}; {times(validation.final.examples, 'row')}."


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
        ("Trained", _what_is_trained(facts.settings)),
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
        ("Test loss, last", _measured_at(facts.tests[-1] if facts.tests else None)),
        ("Speed, median", f"{figure(progress.it_s, 'it/s')}, {figure(progress.tok_s, 'tokens/s')}"),
        ("Peak memory", size(progress.peak_bytes)),
        ("Restarts", f"{len(facts.restarts)}"),
        ("Submitted", moment(clock.submitted_at, zone)),
        ("Started", moment(clock.started_at, zone)),
        ("Ended", moment(clock.ended_at, zone) if clock.ended_at else "not yet"),
        ("Time from start to end", duration(clock.wall_seconds)),
        ("Time in training processes", duration(clock.trained_seconds)),
    ]
    return ["## Key metrics", "", *table(("Metric", "Value"), rows), "", _key()]


def _key() -> str:
    return (
        "Losses are in nats per token; ± is one standard error over the rows; a train loss is the mean of one report."
    )


def _reports_not_finite(facts: Facts) -> list[tuple[str, str]]:
    count = facts.train_loss.not_finite
    return [("Reports whose loss is not finite", f"{whole(count)} of {whole(facts.train_loss.reports)}")] * bool(count)


def _what_is_trained(settings: Settings | None) -> str:
    if settings is None:
        return NOT_MEASURED
    if settings.rank is None:
        return settings.fine_tune_type
    return f"{settings.fine_tune_type}, rank {settings.rank}, scale {settings.scale}, dropout {settings.dropout}"


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
        *(("test", test) for test in facts.tests),
    ]
    if not facts.tests:
        named.append(("test", None))
    rows = [(what, *_measurement_cells(found)) for what, found in named]
    header = ("Set", "Iteration", "Loss", "Perplexity", "Rows")
    title = ["## Validation and test", "", *table(header, rows, right="lrrrr"), ""]
    start = facts.settings.resume_adapter_file if facts.settings else None
    before = f" Before training means with the weights of {code(start)}." if start else ""
    return [*title, f"Validations: {whole(validation.count)}.{before}"]


def _measurement_cells(found: Measurement | None) -> tuple[str, str, str, str]:
    if found is None:
        return (NOT_MEASURED,) * 4
    return whole(found.iteration), _loss_of(found), figure(found.perplexity), whole(found.examples)


def _adapter(facts: Facts) -> list[str]:
    title = ["## Adapter", ""]
    files = [
        (code(file.name), what, or_unknown(file.iteration), size(file.size_bytes), code(file.sha256))
        for file, what in ((facts.adapter.best, "what MLX-LM loads"), (facts.adapter.final, "the last weights"))
        if file is not None
    ]
    if not files:
        return [*title, "None was published."]
    header = ("File", "What", "Iteration", "Size", "SHA-256")
    return [*title, code(facts.adapter.path), "", *table(header, files, right="llrr")]


def _checkpoints(facts: Facts) -> list[str]:
    title = ["## Checkpoints", ""]
    if not facts.checkpoints:
        return [*title, "None was written."]
    kept = [record for record in facts.checkpoints if record.on_disk]
    rows = [
        (
            code(record.path),
            whole(record.iteration),
            loss(record.val_loss),
            size(record.size_bytes),
            "yes" if record.on_disk else "no",
        )
        for record in _spread(facts.checkpoints, MOST_CHECKPOINTS)
    ]
    more = f" {len(rows)} of them are shown; report.json has all." if len(rows) < len(facts.checkpoints) else ""
    held = size(sum(record.size_bytes for record in kept))
    return [
        *title,
        f"{times(len(facts.checkpoints), 'checkpoint')} written, {whole(len(kept))} on disk ({held}).{more}",
        "",
        *table(("Checkpoint", "Iteration", "Validation loss", "Size", "On disk"), rows, right="lrrrl"),
    ]


def _spread(items: Sequence[CheckpointFacts], most: int) -> list[CheckpointFacts]:
    """Return at most `most` of the items (2 or more), evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _settings(facts: Facts) -> list[str]:
    settings = facts.settings
    if settings is None:
        return ["## Settings", "", "config.yaml could not be read."]
    rate = f"{settings.learning_rate:g}"
    schedule = f", {escaped(settings.lr_schedule)}" if settings.lr_schedule else ""
    rows = [
        ("Model", code(settings.model)),
        ("Fine-tune type", _what_is_trained(settings)),
        ("Layers", "all" if settings.num_layers == -1 else whole(settings.num_layers)),
        ("Optimizer", settings.optimizer),
        ("Learning rate", f"{rate}{schedule}"),
        ("Batch size", f"{times(settings.batch_size, 'row')} per iteration"),
        ("Gradient accumulation", f"{times(settings.grad_accumulation_steps, 'iteration')} per update"),
        ("Effective batch", f"{times(settings.effective_batch, 'row')} per update"),
        ("Longest sequence", f"{whole(settings.max_seq_length)} tokens"),
        ("Gradient checkpointing", _on(settings.grad_checkpoint)),
        ("Loss on the answer only", _on(settings.mask_prompt)),
        ("Batching", settings.batching),
        ("Seed", f"{settings.seed}"),
        ("Report, validation, checkpoint every", _cadence(settings)),
        ("Code that comes with the model", "was allowed to run" if settings.trust_remote_code else "not allowed"),
        ("Course", _course(facts)),
    ]
    return ["## Settings", "", *table(("Setting", "Value"), rows)]


def _on(value: bool) -> str:
    return "on" if value else "off"


def _cadence(settings: Settings) -> str:
    every = (settings.steps_per_report, settings.steps_per_eval, settings.save_every)
    return f"{', '.join(whole(count) for count in every)} iterations"


def _course(facts: Facts) -> str:
    if not facts.legs:
        return "could not be read"
    requested, *later = facts.legs
    first = f"requested: batch {requested.batch_size} × {requested.grad_accumulation_steps}"
    return "; then ".join(
        [first, *(f"from row {whole(leg.first_example)}: {_requested_and_run(requested, leg)}" for leg in later)]
    )


def _requested_and_run(requested: Leg, leg: Leg) -> str:
    return escaped(f"{differences(requested, leg)} ({leg.because})".replace("->", "→"))


def _data(facts: Facts) -> list[str]:
    title = ["## Data", ""]
    if facts.settings is not None:
        title += [code(facts.settings.data), ""]
    if not facts.data:
        return [*title, f"Rows per file: {NOT_MEASURED}."]
    rows = [
        (code(file.name), whole(file.rows), size(file.size_bytes), code(file.sha256) if file.sha256 else NOT_MEASURED)
        for file in facts.data
    ]
    return [*title, *table(("File", "Rows", "Size", "SHA-256"), rows, right="lrr")]


def _origin(facts: Facts) -> list[str]:
    known = [(escaped(name), escaped(value)) for name, value in (*facts.versions.items(), *facts.host.items())]
    lines = ["## Versions and machine", "", *(table(("What", "Value"), known) if known else [f"{NOT_MEASURED}"])]
    if facts.unread:
        lines += ["", "This report could not read:", "", *(f"- {escaped(line)}" for line in facts.unread)]
    return lines
