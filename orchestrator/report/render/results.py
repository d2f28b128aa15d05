"""The sections of a report about its results: verdict, key metrics, losses, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo

from jobs.policies.verdict import Difference, interval
from orchestrator.formatting.markdown import cell, code, escaped, table, values
from orchestrator.formatting.text import (
    NONE,
    duration,
    figure,
    listed,
    loss,
    loss_with_interval,
    percent,
    size,
    timestamp,
    whole,
)  # fmt: skip
from orchestrator.report.facts import Evaluation, Facts, LossAt, Measurement, Ruling, perplexity


def verdict(ruling: Ruling) -> list[str]:
    """Return the paragraphs of the verdict: its reason, what it cost and the advice."""
    paragraphs = [f"**Verdict: {ruling.verdict.code}.** {escaped(ruling.verdict.because)}"]
    if ruling.verdict.otherwise is not None:
        because = escaped(ruling.verdict.otherwise_because or "")
        paragraphs.append(f"Without that, the verdict would be {ruling.verdict.otherwise}: {because}")
    if spent := "; ".join(_spent(ruling)):
        paragraphs.append(f"{spent[0].upper()}{spent[1:]}.")
    return [*paragraphs, f"**Next run:** {ruling.advice}"]


def _spent(ruling: Ruling) -> Iterator[str]:
    """Yield what was trained after the best validation, and after the first one that was as good."""
    found = ruling.verdict
    if found.best is None or found.share_after_best is None:
        return
    if found.share_after_best > 0:
        yield f"{percent(found.share_after_best)} of the iterations came after the best validation"
    if found.good_from is not None and found.good_from != found.best:
        seconds = ruling.seconds_after_good
        time = "" if seconds is None else f", about {duration(seconds)} of training"
        yield (
            f"within one standard error of the best since iteration {found.good_from:,}, "
            f"{percent(found.share_after_good)} of the run before its end{time}"
        )


def difference(found: Difference | None) -> str:
    """Return a difference with its interval and how it was compared."""
    if found is None:
        return NONE
    how = f"paired over {found.rows:,} rows" if found.paired else "from standard errors, not paired"
    return f"{interval(found)}, {how}"


def key_metrics(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the section with train losses, speed, memory and times."""
    progress, train, times = facts.progress, facts.train_loss, facts.times
    epochs = f" ({figure(progress.epochs)} epochs)" if progress.epochs else ""
    speeds = f"{figure(progress.it_s, 'it/s')}, {figure(progress.tok_s, 'tokens/s')}"
    not_finite = f"{whole(train.not_finite)} of {whole(train.reports)}" if train.not_finite else None
    rows = [
        ("Rows seen", f"{whole(progress.rows_seen)}{epochs}" if progress.rows_seen else None),
        ("Tokens trained", whole(progress.tokens)),
        ("Train loss, first report", _loss_at(train.first)),
        ("Train loss, last report", _loss_at(train.last)),
        ("Train loss, lowest report", _loss_at(train.lowest) if train.lowest != train.last else None),
        ("Reports whose loss is not finite", not_finite),
        ("Iterations whose update was not applied", whole(train.not_applied or None)),
        ("Speed, median", speeds if progress.it_s is not None else None),
        ("Peak memory", size(progress.peak_bytes)),
        ("Submitted", timestamp(times.submitted_at, zone)),
        ("Started", timestamp(times.started_at, zone)),
        ("Ended", timestamp(times.ended_at, zone)),
        ("Time from start to end", duration(times.wall_seconds)),
        ("Time in training processes", duration(times.trained_seconds)),
    ]
    return values("Key metrics", rows)


def _loss_at(report: LossAt | None) -> str | None:
    return None if report is None else f"{loss(report.loss)} (iteration {whole(report.iteration)})"


def measurements(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the section with the losses of the validation and the test set, before and after training."""
    validation = facts.validation
    best, final = validation.best, validation.final
    same = best is not None and final is not None and best.iteration == final.iteration
    named: list[tuple[str, Measurement | None]] = [
        ("validation, before training", validation.base),
        ("validation, best and final" if same else "validation, best", best),
        ("validation, final", None if same else final),
        *(("test, before training" if test.iteration == 0 else "test", test) for test in facts.tests),
    ]
    rows = [(name, *_measurement(measurement)) for name, measurement in named if measurement is not None]
    kept = facts.latest_evaluations
    rows += [(f"lq test {number}", *_evaluation(facts, one)) for number, one in enumerate(kept, start=1)]
    if not rows:
        return []
    header = ("Set", "Iteration", "Loss (95 % interval)", "Perplexity", "Rows")
    note = f"Losses are in {facts.loss_unit}; {whole(validation.count)} validations."
    lines = table(header, rows, right="lrrrr")
    return ["## Results", "", *lines, "", note, *_gains(facts), *_tested(kept, zone), *_rewards(named)]


_REWARDS = (
    "A reward is what the objective implies: how much more probable an answer became, in units of the objective. "
    "The margin is the mean reward of chosen answers minus that of rejected ones. A row is accurate if its rewards "
    "agree with the preference. Intervals are 95 %, by row."
)


def _rewards(named: Sequence[tuple[str, Measurement | None]]) -> list[str]:
    """Return the table of rewards; empty without a preference objective."""
    rows = [
        (
            name,
            whole(one.iteration),
            _with_margin(found.accuracy, found.accuracy_error, percent),
            _with_margin(found.margin, found.margin_error, figure),
            figure(found.chosen),
            figure(found.rejected),
        )
        for name, one in named
        if one is not None and (found := one.rewards) is not None
    ]
    header = ("Set", "Iteration", "Accuracy", "Margin", "Chosen reward", "Rejected reward")
    return ["", "## Preferences", "", *table(header, rows, right="lrrrrr"), "", _REWARDS] if rows else []


def _with_margin(value: float, error: float | None, word: Callable[[float], str]) -> str:
    """Return a mean with half of its 95 % interval."""
    return word(value) if error is None else f"{word(value)} ± {word(1.96 * error)}"


def _evaluation(facts: Facts, one: Evaluation) -> tuple[str, str, str, str]:
    value = loss_with_interval(one.loss, one.low, one.high)
    per_token = facts.loss_unit == "nats per token"
    return whole(one.iteration), value, figure(perplexity(one.loss) if per_token else None), whole(one.rows)


def _tested(kept: Sequence[Evaluation], zone: tzinfo | None) -> list[str]:
    """Return the date, the data and the weights of each measurement of `lq test`."""
    lines = [
        f"- lq test {number}: {timestamp(one.time, zone)}, {escaped(one.weights)} weights, "
        f"{code(one.data or 'the test set of the hub')}{f', SHA-256 {code(one.sha256[:12])}' if one.sha256 else ''}"
        for number, one in enumerate(kept, start=1)
    ]
    return ["", *lines] if lines else []


def _gains(facts: Facts) -> list[str]:
    gains = facts.findings.gains
    if not gains:
        return []
    lines = [f"- {gain.name}, after minus before: {difference(gain.difference)}" for gain in gains]
    return ["", *lines, "", f"Before is {_base(facts)}. After is iteration {whole(gains[0].iteration)}."]


def _measurement(measurement: Measurement) -> tuple[str, str, str, str]:
    value = loss_with_interval(measurement.loss, measurement.low, measurement.high)
    return whole(measurement.iteration), value, figure(measurement.perplexity), whole(measurement.examples)


def _base(facts: Facts) -> str:
    settings = facts.settings
    if settings is not None and settings.resume_adapter_file:
        return f"the weights of {code(settings.resume_adapter_file)}"
    full = settings is not None and settings.fine_tune_type == "full"
    return "the base model" if full else "the base model: an untrained adapter changes nothing"


def answers(facts: Facts) -> list[str]:
    """Return the section with the answers to prompts; empty if there are none."""
    if not facts.answers:
        return []
    from_rows = [f"{answer.row:,}" for answer in facts.answers if answer.row is not None]
    header = ("Prompt", "Before", "After", *(["Reference"] if from_rows else []))
    rows = [
        tuple(map(cell, (answer.prompt, answer.before, answer.after, answer.reference)))[: len(header)]
        for answer in facts.answers
    ]
    first = facts.answers[0]
    after = "training" if first.iteration is None else f"iteration {whole(first.iteration)}"
    most = max((answer.max_tokens or 0 for answer in facts.answers), default=0)
    cut = f" Answers end after {'at most ' if from_rows else ''}{most:,} tokens." if most else ""
    source = f" The prompts are of rows {listed(from_rows)} of `valid.jsonl`." if from_rows else ""
    note = f"Greedy decoding, before training and with the weights of {after}.{cut}{source}"
    return ["## Answers before and after", "", *table(header, rows), "", note]
