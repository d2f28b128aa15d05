"""What the rules concluded, in words: verdict and advice, phases, before against after. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.policies.verdict import Code, Difference, interval
from orchestrator.formatting.markdown import cell, code, escaped, table
from orchestrator.formatting.text import NOT_MEASURED, duration, figure, loss, percent, whole
from orchestrator.report.facts import Answer, Facts, Gain, Phase, Ruling, perplexity

RULES = (
    "By the running median of the train loss. Initial learning: nine tenths of the first fall. Spike: more than half "
    "and 0.15 above the lowest level before, to its peak. Recovery: until within a tenth of that level. Convergence: "
    "the last stretch within a tenth of the end, or within its noise."
)


def verdict_lines(ruling: Ruling | None) -> list[str]:
    """Return the verdict, why, what it cost, and the advice that follows."""
    if ruling is None:
        return ["**No verdict:** nothing was trained, or the run has not ended."]
    verdict = ruling.verdict
    lines = [f"**Verdict: {verdict.code}.** {escaped(verdict.because)}"]
    if verdict.otherwise is not None:
        why = escaped(verdict.otherwise_because or "")
        lines += ["", f"Were it not for that, the rules would say {verdict.otherwise}: {why}"]
    spent = _spent(ruling)
    return [*lines, *(["", spent] if spent else []), "", f"**Next run:** {ruling.advice}"]


def _spent(ruling: Ruling) -> str:
    verdict = ruling.verdict
    if verdict.best is None or verdict.share_after_best is None:
        return ""
    parts = []
    if verdict.share_after_best > 0:
        parts.append(
            f"{percent(verdict.share_after_best)} of the iterations came after the best, that of {verdict.best:,}"
        )
    if verdict.good_from != verdict.best and verdict.good_from is not None:
        after = (
            "" if ruling.seconds_after_good is None else f", about {duration(ruling.seconds_after_good)} of training"
        )
        within = f"within one standard error of it since iteration {verdict.good_from:,}"
        parts.append(f"{within}, {percent(verdict.share_after_good)} of the run before its end{after}")
    if ruling.final_minus_best is not None and verdict.code is not Code.OVERFIT:
        parts.append(f"the last validation minus the best: {difference(ruling.final_minus_best)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def difference(found: Difference | None) -> str:
    """Return a difference with its interval and how it was compared."""
    if found is None:
        return NOT_MEASURED
    how = f"paired over {found.rows:,} rows" if found.paired else "from standard errors, not paired"
    return f"{interval(found)}, {how}"


def compared(facts: Facts) -> list[str]:
    """Return the section about the model before training against the one to be used."""
    title = ["## Base model against fine-tuned", ""]
    gains = facts.findings.gains
    if not gains:
        return [*title, f"The model before training: {NOT_MEASURED}."]
    start = facts.settings.resume_adapter_file if facts.settings else None
    base = f"the weights of {code(start)}" if start else "the base model: an untrained adapter changes nothing"
    full = facts.settings is not None and facts.settings.fine_tune_type == "full"
    if full and not start:
        base = "the base model"
    header = ("Set", "Before", "After", "After minus before", "Perplexity", "Rows")
    return [
        *title,
        *table(header, [_gain(one) for one in gains], right="lrrlrr"),
        "",
        f"Before is {base}. After is iteration {whole(gains[0].iteration)}.",
    ]


def _gain(one: Gain) -> tuple[str, ...]:
    perplexities = f"{figure(perplexity(one.before))} → {figure(perplexity(one.after))}"
    return one.name, loss(one.before), loss(one.after), difference(one.difference), perplexities, whole(one.rows)


def question_table(answers: Sequence[Answer]) -> list[str]:
    """Return the answers to `lq.prompts`, before and after beside each other."""
    if not answers:
        return []
    rows = [(cell(one.prompt), cell(one.before), cell(one.after)) for one in answers]
    first = answers[0]
    after = "after training" if first.iteration is None else f"with the weights of iteration {whole(first.iteration)}"
    cut = "" if first.max_tokens is None else f" Cut after {whole(first.max_tokens)} tokens."
    return [
        "## Answers before and after",
        "",
        *table(("Prompt", "Before", "After"), rows),
        "",
        f"The likeliest token each time, without chance; after: {after}.{cut}",
    ]


def phase_table(phases: Sequence[Phase]) -> list[str]:
    """Return the section about the phases of the run."""
    title = ["## Phases", ""]
    if not phases:
        return [*title, "Too few reports to tell phases."]
    rows = [
        (
            f"{one.name}{', not back by the end' if one.back is False else ''}",
            f"{whole(one.first)} → {whole(one.last)}",
            f"{loss(one.loss_first)} → {loss(one.loss_last)}",
            duration(one.seconds),
        )
        for one in phases
    ]
    return [
        *title,
        *table(("Phase", "Iterations", "Train loss", "Time"), rows, right="lrrr"),
        "",
        RULES,
    ]
