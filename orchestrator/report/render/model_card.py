"""Facts to the model card: README.md next to the adapter, with the metadata that model hubs read.

The card may be published, so it contains no folder and no name of the machine. lq uploads nothing.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import PurePath

from huggingface_hub import EvalResult, ModelCardData

from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import NONE, NOT_MEASURED, figure, loss, loss_with_interval, whole
from orchestrator.report.facts import Facts, Measurement, RunSettings
from orchestrator.report.render.results import difference

MARK = "<!-- written by lq; remove this line to keep your changes -->"
"""lq overwrites only a README.md that contains this line."""


def is_written_by_lq(text: str) -> bool:
    """Return whether lq wrote a card and you have not taken it over."""
    return MARK in text


def render_card(facts: Facts) -> str:
    """Return the card of a job that has a published adapter and known settings."""
    settings = facts.settings
    assert settings is not None
    sections = (
        [f"# {escaped(facts.job.name)}", "", MARK],
        _about(facts, settings),
        _results(facts),
        _training(facts, settings),
        _use(settings),
    )
    body = "\n\n".join("\n".join(section) for section in sections)
    return f"---\n{_metadata(facts, settings).to_yaml()}\n---\n\n{body}\n"


def _base(settings: RunSettings) -> str:
    """Return the name of the base model on the hub, or the last part of a local folder."""
    return PurePath(settings.model).name if PurePath(settings.model).is_absolute() else settings.model


def _metadata(facts: Facts, settings: RunSettings) -> ModelCardData:
    adapter = [] if settings.fine_tune_type == "full" else ["adapter"]
    return ModelCardData(
        base_model=_base(settings),
        library_name="mlx",
        pipeline_tag="text-generation",
        tags=["mlx", "mlx-lm", settings.fine_tune_type, *adapter, "lq"],
        datasets=None if PurePath(settings.data).is_absolute() else [settings.data],
        metrics=["loss", "perplexity" if settings.objective == "sft" else "accuracy"],
        model_name=facts.job.name,
        eval_results=list(_eval_results(facts, settings)),
    )


def _eval_results(facts: Facts, settings: RunSettings) -> Iterator[EvalResult]:
    for split, measurement in _published(facts):
        name = f"{split} loss, {facts.loss_unit}"
        args: dict[str, object] = {"n": measurement.examples}
        low, high = measurement.low, measurement.high
        if low is not None and high is not None:
            args["interval_95"] = [_rounded(low), _rounded(high)]
            name += f" (n={measurement.examples}, 95 % interval {low:.4f} to {high:.4f})"
        yield _result(settings, split, "loss", name, measurement.loss, args)
        if measurement.perplexity is not None:
            yield _result(settings, split, "perplexity", f"{split} perplexity", measurement.perplexity, None)
        if measurement.rewards is not None:
            yield _result(settings, split, "accuracy", f"{split} accuracy", measurement.rewards.accuracy, None)


def _result(
    settings: RunSettings, split: str, metric: str, name: str, value: float, args: dict[str, object] | None
) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type="jsonl",
        dataset_name=PurePath(settings.data).name,
        dataset_split=split,
        metric_type=metric,
        metric_name=name,
        metric_value=_rounded(value),
        metric_args=args,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") if math.isfinite(value) else value


def _published(facts: Facts) -> list[tuple[str, Measurement]]:
    """Return the measurements of the published weights, by split."""
    best = facts.validation.best
    iteration = facts.adapter.best.iteration if facts.adapter.best else None
    validation = [] if best is None else [("validation", best)]
    return validation + [("test", test) for test in facts.tests if test.iteration and test.iteration == iteration]


def _about(facts: Facts, settings: RunSettings) -> list[str]:
    best, ruling = facts.adapter.best, facts.findings.ruling
    place = "an unknown iteration" if best is None else f"iteration {whole(best.iteration)}"
    kind = "weights" if settings.fine_tune_type == "full" else "adapter"
    lines = [f"A {settings.fine_tune_type} {kind} for {code(_base(settings))}, the best by validation, of {place}."]
    if ruling is not None:
        lines += ["", f"Verdict of the run: {ruling.verdict.code}. {escaped(ruling.verdict.because)}"]
    return lines


def _results(facts: Facts) -> list[str]:
    rows = [
        (split, loss_with_interval(one.loss, one.low, one.high), figure(one.perplexity), whole(one.examples))
        for split, one in _published(facts)
    ]
    if not rows:
        return ["## Results", "", f"Validation and test loss: {NOT_MEASURED}."]
    lines = table(("Set", f"Loss, {facts.loss_unit} (95 % interval)", "Perplexity", "Rows"), rows, right="lrrr")
    gains = [
        (gain.name, loss(gain.before), loss(gain.after), difference(gain.difference)) for gain in facts.findings.gains
    ]
    if gains:
        lines += ["", *table(("Set", "Before training", "After", "After minus before"), gains, right="lrrl")]
    return ["## Results", "", *lines, "", "These losses are for this data only. Nothing else was measured."]


def _training(facts: Facts, settings: RunSettings) -> list[str]:
    files = facts.dataset.files if facts.dataset else ()
    train = next((file for file in files if file.name == "train"), None)
    local = PurePath(settings.data).is_absolute()
    lora = NONE if settings.rank is None else f"{settings.rank}, {settings.scale:g}, {settings.dropout:g}"
    rows = [
        ("Data", "local files, not published" if local else escaped(settings.data)),
        ("Training rows", whole(train.rows if train else None)),
        ("Training tokens", whole(train.tokens if train else None)),
        ("Epochs", figure(facts.progress.epochs)),
        ("Iterations", f"{whole(facts.progress.iterations_done)} of {whole(facts.progress.iterations_asked)}"),
        ("Effective batch", f"{whole(settings.effective_batch)} rows"),
        ("Learning rate", f"{settings.learning_rate:g}, {escaped(settings.lr_schedule or 'constant')}"),
        ("Optimizer", settings.optimizer),
        ("Rank, scale, dropout", lora),
        ("Trained parameters", whole(facts.parameters.trained if facts.parameters else None)),
        ("Longest sequence", f"{whole(settings.max_seq_length)} tokens"),
        ("Seed", str(settings.seed)),
        *((name, escaped(facts.versions[name])) for name in ("mlx", "mlx-lm", "lq") if name in facts.versions),
    ]
    return ["## Training", "", *table(("What", "Value"), rows)]


def _use(settings: RunSettings) -> list[str]:
    options = ("--model", _base(settings), "--adapter-path", ".", "--prompt", "Write your question here")
    return ["## Use", "", "```sh", "pip install mlx-lm", shlex.join(("mlx_lm.generate", *options)), "```"]
