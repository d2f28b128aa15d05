"""The sections of a report about its results: verdict, losses, answers, phases."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.policies.verdict import Code, Difference, interval
from orchestrator.formatting.markdown import cell, code, escaped, table
from orchestrator.formatting.text import (
    NONE,
    NOT_MEASURED,
    duration,
    figure,
    loss,
    loss_with_interval,
    percent,
    size,
    whole,
)  # fmt: skip
from orchestrator.report.facts import Facts, Gain, Measurement, Ruling, perplexity

_PHASE_RULES = (
    "Phases are found in the running median of the train loss. Initial learning: the first nine tenths of the fall. "
    "Spike: more than half and 0.15 above the lowest level so far, until its peak. Recovery: until the loss is within "
    "a tenth of that level. Convergence: the last stretch within a tenth of the final level, or within its noise."
)


def verdict(ruling: Ruling | None) -> list[str]:
    """Return the verdict, its reason, what it cost and the advice, as a quote."""
    if ruling is None:
        return ["> **No verdict:** nothing was trained, or the run has not ended."]
    paragraphs = [f"**Verdict: {ruling.verdict.code}.** {escaped(ruling.verdict.because)}"]
    if ruling.verdict.otherwise is not None:
        because = escaped(ruling.verdict.otherwise_because or "")
        paragraphs.append(f"Without that, the verdict would be {ruling.verdict.otherwise}: {because}")
    if spent := "; ".join(_spent(ruling)):
        paragraphs.append(f"{spent[0].upper()}{spent[1:]}.")
    paragraphs.append(f"**Next run:** {ruling.advice}")
    return "\n>\n".join(f"> {paragraph}" for paragraph in paragraphs).splitlines()


def _spent(ruling: Ruling) -> Iterator[str]:
    """Yield what was trained after the best validation, and after the first one that was as good."""
    found = ruling.verdict
    if found.best is None or found.share_after_best is None:
        return
    if found.share_after_best > 0:
        yield f"{percent(found.share_after_best)} of the iterations came after the best validation, at {found.best:,}"
    if found.good_from is not None and found.good_from != found.best:
        seconds = ruling.seconds_after_good
        time = "" if seconds is None else f", about {duration(seconds)} of training"
        yield (
            f"within one standard error of it since iteration {found.good_from:,}, "
            f"{percent(found.share_after_good)} of the run before its end{time}"
        )
    if ruling.final_minus_best is not None and found.code is not Code.OVERFIT:
        yield f"the last validation minus the best: {difference(ruling.final_minus_best)}"


def difference(found: Difference | None) -> str:
    """Return a difference with its interval and how it was compared."""
    if found is None:
        return NONE
    how = f"paired over {found.rows:,} rows" if found.paired else "from standard errors, not paired"
    return f"{interval(found)}, {how}"


def base_and_tuned(facts: Facts) -> list[str]:
    """Return the section that compares the model before and after training."""
    title, gains = ["## Base model against fine-tuned", ""], facts.findings.gains
    if not gains:
        return [*title, f"Loss before training: {NOT_MEASURED}."]
    header = ("Set", "Before", "After", "After minus before", "Perplexity", "Rows")
    lines = table(header, [_gain(gain) for gain in gains], right="lrrlrr")
    return [*title, *lines, "", f"Before is {_base(facts)}. After is iteration {whole(gains[0].iteration)}."]


def _base(facts: Facts) -> str:
    settings = facts.settings
    if settings is not None and settings.resume_adapter_file:
        return f"the weights of {code(settings.resume_adapter_file)}"
    full = settings is not None and settings.fine_tune_type == "full"
    return "the base model" if full else "the base model: an untrained adapter changes nothing"


def _gain(gain: Gain) -> tuple[str, ...]:
    perplexities = f"{figure(perplexity(gain.before))} → {figure(perplexity(gain.after))}"
    return gain.name, loss(gain.before), loss(gain.after), difference(gain.difference), perplexities, whole(gain.rows)


def answers(facts: Facts) -> list[str]:
    """Return the section with the answers to `lq.prompts`; empty if there are none."""
    if not facts.answers:
        return []
    rows = [(cell(answer.prompt), cell(answer.before), cell(answer.after)) for answer in facts.answers]
    first = facts.answers[0]
    after = "training" if first.iteration is None else f"iteration {whole(first.iteration)}"
    cut = "" if first.max_tokens is None else f" Answers end after {whole(first.max_tokens)} tokens."
    note = f"Greedy decoding, before training and with the weights of {after}.{cut}"
    return ["## Answers before and after", "", *table(("Prompt", "Before", "After"), rows), "", note]


def phases(facts: Facts) -> list[str]:
    """Return the section about the phases of the run."""
    title = ["## Phases", ""]
    if not facts.findings.phases:
        return [*title, "There are too few reports to find phases."]
    rows = [
        (
            f"{phase.name}{', not back by the end' if phase.back is False else ''}",
            f"{whole(phase.first)} → {whole(phase.last)}",
            f"{loss(phase.loss_first)} → {loss(phase.loss_last)}",
            duration(phase.seconds),
        )
        for phase in facts.findings.phases
    ]
    return [*title, *table(("Phase", "Iterations", "Train loss", "Time"), rows, right="lrrr"), "", _PHASE_RULES]


def trajectory(facts: Facts) -> list[str]:
    """Return the section with a few rows from the first to the last iteration."""
    title = ["## Trajectory", ""]
    if not facts.trajectory:
        return [*title, "No report and no validation yet."]
    rows = [
        (whole(row.iteration), loss(row.train_loss), loss(row.val_loss), whole(row.tokens), size(row.peak_bytes))
        for row in facts.trajectory
    ]
    header = ("Iteration", "Train loss", "Validation loss", "Tokens", "Peak memory")
    note = "The train loss is that of the last report at or before the iteration."
    return [*title, *table(header, rows, right="rrrrr"), "", note]


def measurements(facts: Facts) -> list[str]:
    """Return the section with the measurements of the validation and the test set."""
    validation = facts.validation
    named: list[tuple[str, Measurement | None]] = [
        ("validation, before training", validation.base),
        ("validation, best", validation.best),
        ("validation, final", validation.final),
        *(("test, before training" if test.iteration == 0 else "test", test) for test in facts.tests),
    ]
    rows = [(name, *_measurement(measurement)) for name, measurement in named]
    if not facts.tests:
        rows.append(("test", *_measurement(None)))
    header = ("Set", "Iteration", "Loss (95 % interval)", "Perplexity", "Rows")
    start = facts.settings.resume_adapter_file if facts.settings else None
    before = f" Before training means with the weights of {code(start)}." if start else ""
    lines = table(header, rows, right="lrrrr")
    return ["## Validation and test", "", *lines, "", f"Validations: {whole(validation.count)}.{before}"]


def _measurement(measurement: Measurement | None) -> tuple[str, str, str, str]:
    if measurement is None:
        return (NONE,) * 4
    value = loss_with_interval(measurement.loss, measurement.low, measurement.high)
    return whole(measurement.iteration), value, figure(measurement.perplexity), whole(measurement.examples)
