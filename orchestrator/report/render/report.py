"""Facts to report.md: GitHub Markdown that is also readable as plain text."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path

from jobs.model.states import Status
from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import (
    NONE,
    NOT_MEASURED,
    counted,
    duration,
    figure,
    loss,
    loss_with_error,
    size,
    timestamp,
    whole,
)  # fmt: skip
from orchestrator.report.facts import AdapterFile, Facts, LossAt, Measurement
from orchestrator.report.render import history, results, setup

LOSS, ANALYSIS = "loss_curve.png", "training_analysis.png"
"""The pictures next to report.md."""


def render(facts: Facts, *, pictures: Sequence[str] = (LOSS, ANALYSIS), zone: tzinfo | None = None) -> str:
    """Return the report as Markdown.

    Args:
        facts: what was measured and concluded.
        pictures: the pictures that could be drawn.
        zone: of the times; None for the zone of the machine.
    """
    sections = (
        _head(facts, LOSS in pictures),
        _key_metrics(facts, zone),
        results.base_and_tuned(facts),
        results.answers(facts),
        results.phases(facts),
        history.timeline(facts, zone),
        history.attempts(facts, zone),
        history.requested_and_run(facts),
        results.trajectory(facts),
        ["## Analysis", "", f"![Loss, speed, memory, learning rate]({ANALYSIS})"] if ANALYSIS in pictures else [],
        results.measurements(facts),
        setup.data(facts),
        setup.adapter(facts),
        setup.checkpoints(facts),
        setup.hardware(facts),
        setup.settings(facts),
        setup.versions(facts),
        _next_steps(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


# --- head ---


def _head(facts: Facts, drawn: bool) -> list[str]:
    job = facts.job
    reason = f" ({job.reason})" if job.reason else ""
    return [
        f"# {escaped(job.name)} (job {job.id}): {job.status}{reason}",
        "",
        *results.verdict(facts.findings.ruling),
        "",
        f"- {_run_summary(facts)}",
        f"- {_loss_summary(facts)}",
        f"- {_adapter_summary(facts)}",
        "",
        f"![Loss by iteration]({LOSS})" if drawn else "Loss curve: not drawn.",
    ]


def _run_summary(facts: Facts) -> str:
    progress, trained = facts.progress, facts.times.trained_seconds
    time = "not started" if trained is None else f"{duration(trained)} in training"
    done = f"{whole(progress.iterations_done)} of {whole(progress.iterations_asked)} iterations"
    line = f"{done}, {time}, {history.restarts(facts)}."
    detail, ruling = (facts.job.detail or "").rstrip("."), facts.findings.ruling
    if facts.job.status is Status.SUCCEEDED or not detail or (ruling is not None and detail in ruling.verdict.because):
        return line
    return f"{line} {escaped(detail)}."


def _loss_summary(facts: Facts) -> str:
    validation, last = facts.validation, facts.train_loss.last
    if validation.final is None:
        train = NOT_MEASURED if last is None else _loss_at(last)
        return f"Validation loss: {NOT_MEASURED}. Last train loss: {train}."
    named = (
        (validation.base, "before training"),
        (validation.best, f"at best (iteration {whole(validation.best.iteration if validation.best else None)})"),
        (validation.final, f"at the end (iteration {whole(validation.final.iteration)})"),
    )
    parts = [f"{_loss_of(measurement)} {when}" for measurement, when in named if measurement is not None]
    return f"Validation loss {', '.join(parts)}; {counted(validation.final.examples, 'row')}."


def _adapter_summary(facts: Facts) -> str:
    if facts.adapter.best is not None:
        return f"The adapter of {_iteration_of(facts.adapter.best)} is in {code(facts.adapter.path)}."
    kept = facts.last_checkpoint
    if kept is None:
        return "No adapter was published, and no checkpoint is on disk."
    line = f"No adapter was published. The last checkpoint on disk is of iteration {whole(kept.iteration)}"
    return f"{line}; {code(_lq(facts, 'retry'))} resumes from it." if _may_retry(facts) else f"{line}."


def _iteration_of(file: AdapterFile) -> str:
    return "an unknown iteration" if file.iteration is None else f"iteration {whole(file.iteration)}"


# --- key metrics ---


def _key_metrics(facts: Facts, zone: tzinfo | None) -> list[str]:
    progress, train, times = facts.progress, facts.train_loss, facts.times
    epochs = "" if progress.epochs is None else f" ({figure(progress.epochs)} epochs)"
    rows = [
        ("Model", code(facts.settings.model) if facts.settings else NONE),
        ("Trained", setup.fine_tuning(facts.settings)),
        ("Iterations", f"{whole(progress.iterations_done)} of {whole(progress.iterations_asked)}"),
        ("Rows seen", f"{whole(progress.rows_seen)}{epochs}"),
        ("Tokens trained", whole(progress.tokens)),
        ("Train loss, first report", _loss_at(train.first)),
        ("Train loss, last report", _loss_at(train.last)),
        ("Train loss, lowest report", _loss_at(train.lowest)),
        *_not_finite(facts),
        ("Validation loss before training", _measured_at(facts.validation.base)),
        ("Validation loss, best", _measured_at(facts.validation.best)),
        ("Validation loss, final", _measured_at(facts.validation.final)),
        ("Test loss", _measured_at(facts.test)),
        ("Speed, median", f"{figure(progress.it_s, 'it/s')}, {figure(progress.tok_s, 'tokens/s')}"),
        ("Peak memory", size(progress.peak_bytes)),
        ("Restarts", f"{len(facts.restarts)}{history.planned_of(len(facts.restarts), facts.planned_restarts)}"),
        ("Submitted", timestamp(times.submitted_at, zone)),
        ("Started", timestamp(times.started_at, zone)),
        ("Ended", timestamp(times.ended_at, zone) if times.ended_at else "not yet"),
        ("Time from start to end", duration(times.wall_seconds)),
        ("Time in training processes", duration(times.trained_seconds)),
    ]
    return ["## Key metrics", "", *table(("Metric", "Value"), rows), "", _KEY]


_KEY = (
    "Losses are in nats per token. ± is one standard error over the rows. A train loss is the mean of one report. "
    f"{NONE} means not measured."
)


def _not_finite(facts: Facts) -> list[tuple[str, str]]:
    train, rows = facts.train_loss, []
    if train.not_finite:
        rows.append(("Reports whose loss is not finite", f"{whole(train.not_finite)} of {whole(train.reports)}"))
    if train.not_applied:
        rows.append(("Iterations whose update was not applied", whole(train.not_applied)))
    return rows


def _loss_at(report: LossAt | None) -> str:
    return NONE if report is None else f"{loss(report.loss)} (iteration {whole(report.iteration)})"


def _loss_of(measurement: Measurement) -> str:
    return loss_with_error(measurement.loss, measurement.standard_error)


def _measured_at(measurement: Measurement | None) -> str:
    return NONE if measurement is None else f"{_loss_of(measurement)} (iteration {whole(measurement.iteration)})"


# --- next steps: every command works when it is pasted into a shell ---


def _next_steps(facts: Facts) -> list[str]:
    lines = ["## Next steps"]
    for title, applies, command in _STEPS:
        if applies(facts):
            lines += ["", f"{title}:", "", "```sh", command(facts), "```"]
    return lines


def _lq(facts: Facts, verb: str) -> str:
    """Return `lq VERB ID`, with LQ_HOME unless the home is the default one."""
    home = f"LQ_HOME={shlex.quote(facts.job.home)} " if facts.job.home else ""
    return f"{home}lq {verb} {facts.job.id}"


def _mlx_lm(facts: Facts, verb: str, *options: str, adapter: str | None = None) -> str:
    assert facts.settings is not None
    path = adapter or facts.adapter.path
    command = (f"mlx_lm.{verb}", "--model", facts.settings.model, "--adapter-path", path, *options)
    trust = ("--trust-remote-code",) if facts.settings.trust_remote_code else ()
    return shlex.join((*command, *trust))


def _generate(facts: Facts, adapter: str | None = None) -> str:
    prompt = facts.answers[0].prompt if facts.answers else "Write your question here"
    return _mlx_lm(facts, "generate", "--prompt", prompt, adapter=adapter)


def _generate_with_last(facts: Facts) -> str:
    """Copy the last weights to a folder that MLX-LM can load, and generate with them."""
    last, adapters = Path(facts.job.job_dir) / "last", Path(facts.adapter.path)
    steps = (
        ("mkdir", "-p", str(last)),
        ("cp", str(adapters / "adapter_config.json"), str(last)),
        ("cp", str(adapters / "final_adapters.safetensors"), str(last / "adapters.safetensors")),
    )
    return " && ".join((*map(shlex.join, steps), _generate(facts, str(last))))


def _test(facts: Facts) -> str:
    assert facts.settings is not None
    options = ("--data", facts.settings.data, "--test", "--test-batches", "-1", "--batch-size", "1")
    return _mlx_lm(facts, "lora", *options, "--max-seq-length", str(facts.settings.max_seq_length))


def _fuse(facts: Facts) -> str:
    return _mlx_lm(facts, "fuse", "--save-path", str(Path(facts.job.job_dir) / "fused"))


def _has_adapter(facts: Facts) -> bool:
    return facts.adapter.best is not None and facts.settings is not None


def _last_differs(facts: Facts) -> bool:
    best, final = facts.adapter.best, facts.adapter.final
    return _has_adapter(facts) and best is not None and final is not None and best.sha256 != final.sha256


def _has_test_rows(facts: Facts) -> bool:
    return _has_adapter(facts) and any(file.name == "test.jsonl" and file.rows for file in facts.data)


def _may_retry(facts: Facts) -> bool:
    return facts.job.status in (Status.FAILED, Status.CANCELLED)


_STEPS: tuple[tuple[str, Callable[[Facts], bool], Callable[[Facts], str]], ...] = (
    ("Generate with the fine-tuned model", _has_adapter, _generate),
    ("Generate with the last weights", _last_differs, _generate_with_last),
    ("Measure the test set", _has_test_rows, _test),
    ("Fuse model and adapter into one folder", _has_adapter, _fuse),
    ("Retry the job", _may_retry, lambda facts: _lq(facts, "retry")),
    ("Open this report in the browser", lambda _: True, lambda facts: f"{_lq(facts, 'report')} --open"),
    ("Show the job", lambda _: True, lambda facts: _lq(facts, "show")),
)
