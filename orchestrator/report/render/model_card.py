"""The model card: README.md beside the adapter, with the metadata block that model hubs read. Nothing is uploaded.

The card may be published, so it names no folder and no machine of the user's.
"""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any

import yaml

from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import NOT_MEASURED, figure, loss, loss_with_interval, whole
from orchestrator.report.facts import Facts, Measurement, Settings
from orchestrator.report.render.results import difference

MARK = "<!-- written by lq; remove this line to keep your changes -->"
"""A README.md without it is not lq's, and is left alone."""


def ours(text: str) -> bool:
    """Say whether a card was written by lq and nobody has taken it over."""
    return MARK in text


def render_card(facts: Facts) -> str:
    """Return the card.

    Args:
        facts: of a job with a published adapter and known settings.
    """
    settings = facts.settings
    assert settings is not None
    head = yaml.safe_dump(_metadata(facts, settings), sort_keys=False, allow_unicode=True, width=1000)
    sections = (
        [f"# {escaped(facts.job.name)}", "", MARK],
        _about(facts, settings),
        _results(facts),
        _training(facts, settings),
        _use(facts, settings),
    )
    body = "\n\n".join("\n".join(section) for section in sections)
    return f"---\n{head}---\n\n{body}\n"


def _base(settings: Settings) -> str:
    """Return the base model's name on the hub; of a folder its last part alone."""
    return PurePath(settings.model).name if PurePath(settings.model).is_absolute() else settings.model


def _is_local(path: str) -> bool:
    return PurePath(path).is_absolute()


def _metadata(facts: Facts, settings: Settings) -> dict[str, Any]:
    adapter = [] if settings.fine_tune_type == "full" else ["adapter"]
    return {
        "base_model": _base(settings),
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["mlx", "mlx-lm", settings.fine_tune_type, *adapter, "lq"],
        "datasets": [] if _is_local(settings.data) else [settings.data],
        "metrics": ["loss", "perplexity"],
        "model-index": [{"name": facts.job.name, "results": _index(facts, settings)}],
    }


def _index(facts: Facts, settings: Settings) -> list[dict[str, Any]]:
    results = []
    for name, found in _measured(facts):
        results.append(
            {
                "task": {"type": "text-generation"},
                "dataset": {"name": PurePath(settings.data).name, "type": "jsonl", "split": name},
                "metrics": [
                    _metric("loss", f"{name} loss, nats per token", found.loss, found.low, found.high, found.examples),
                    {"type": "perplexity", "name": f"{name} perplexity", "value": _rounded(found.perplexity)},
                ],
            }
        )
    return results


def _metric(kind: str, name: str, value: float, low: float | None, high: float | None, rows: int) -> dict[str, Any]:
    args: dict[str, Any] = {"n": rows}
    if low is not None and high is not None:
        args["interval_95"] = [_rounded(low), _rounded(high)]
        name = f"{name} (n={rows}, 95 % interval {low:.4f} to {high:.4f})"
    return {"type": kind, "name": name, "value": _rounded(value), "args": args}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _measured(facts: Facts) -> list[tuple[str, Measurement]]:
    """Return what was measured with the weights that are published."""
    best = facts.validation.best
    iteration = facts.adapter.best.iteration if facts.adapter.best else None
    found = [] if best is None else [("validation", best)]
    return found + [("test", test) for test in facts.tests if test.iteration and test.iteration == iteration]


def _about(facts: Facts, settings: Settings) -> list[str]:
    best = facts.adapter.best
    where = "an iteration that was not recorded" if best is None else f"iteration {whole(best.iteration)}"
    kind = "weights" if settings.fine_tune_type == "full" else "adapter"
    lines = [f"A {settings.fine_tune_type} {kind} for {code(_base(settings))}, of {where}: the best by validation."]
    ruling = facts.findings.ruling
    if ruling is not None:
        lines += ["", f"Verdict of the run: {ruling.verdict.code}. {escaped(ruling.verdict.because)}"]
    return lines


def _results(facts: Facts) -> list[str]:
    rows = [
        (name, loss_with_interval(one.loss, one.low, one.high), figure(one.perplexity), whole(one.examples))
        for name, one in _measured(facts)
    ]
    title = ["## Results", ""]
    if not rows:
        return [*title, f"Validation and test loss: {NOT_MEASURED}."]
    lines = [*title, *table(("Set", "Loss, nats per token (95 % interval)", "Perplexity", "Rows"), rows, right="lrrr")]
    gains = facts.findings.gains
    if gains:
        gained = [(one.name, loss(one.before), loss(one.after), difference(one.difference)) for one in gains]
        lines += ["", *table(("Set", "Before training", "After", "After minus before"), gained, right="lrrl")]
    return [*lines, "", "Nothing else was measured; these losses say nothing of other texts."]


def _training(facts: Facts, settings: Settings) -> list[str]:
    data = facts.dataset.files if facts.dataset else ()
    train = next((one for one in data if one.name == "train"), None)
    source = "local files, not published" if _is_local(settings.data) else escaped(settings.data)
    parameters = facts.parameters
    rows = [
        ("Data", source),
        ("Training rows", whole(train.rows if train else None)),
        ("Training tokens", whole(train.tokens if train else None)),
        ("Epochs", figure(facts.progress.epochs)),
        ("Iterations", f"{whole(facts.progress.iterations_done)} of {whole(facts.progress.iterations_asked)}"),
        ("Effective batch", f"{whole(settings.effective_batch)} rows"),
        ("Learning rate", f"{settings.learning_rate:g}, {escaped(settings.lr_schedule or 'constant')}"),
        ("Optimizer", settings.optimizer),
        ("Rank, scale, dropout", _lora(settings)),
        ("Trained parameters", whole(parameters.trained if parameters else None)),
        ("Longest sequence", f"{whole(settings.max_seq_length)} tokens"),
        ("Seed", str(settings.seed)),
        *((name, escaped(facts.versions[name])) for name in ("mlx", "mlx-lm", "lq") if name in facts.versions),
    ]
    return ["## Training", "", *table(("What", "Value"), rows)]


def _lora(settings: Settings) -> str:
    return "–" if settings.rank is None else f"{settings.rank}, {settings.scale:g}, {settings.dropout:g}"


def _use(facts: Facts, settings: Settings) -> list[str]:
    prompt = "Write your question here"
    where = ("--model", _base(settings), "--adapter-path", ".")
    command = shlex.join(("mlx_lm.generate", *where, "--prompt", prompt))
    return ["## Use", "", "```sh", "pip install mlx-lm", command, "```"]
