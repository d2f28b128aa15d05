"""Facts to report.md: GitHub Markdown that is also readable as plain text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import tzinfo

from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, Status
from orchestrator.formatting.markdown import code, escaped
from orchestrator.formatting.next_steps import fix_of, next_steps
from orchestrator.formatting.text import duration, loss, loss_with_error, whole
from orchestrator.report.facts import Facts
from orchestrator.report.render import history, results, setup

LOSS, ANALYSIS = "loss_curve.png", "training_analysis.png"
"""The pictures next to report.md."""


def render(facts: Facts, *, pictures: Sequence[str] = (LOSS, ANALYSIS), zone: tzinfo | None = None) -> str:
    """Return the report as Markdown. A section without anything to say is left out.

    Args:
        facts: what was measured and concluded.
        pictures: the pictures that could be drawn.
        zone: of the times; None for the zone of the machine.
    """
    sections = (
        _head(facts),
        [f"![Loss by iteration]({LOSS})"] if LOSS in pictures else [],
        results.measurements(facts, zone),
        results.answers(facts),
        _next_steps(facts),
        history.incidents(facts, zone),
        results.key_metrics(facts, zone),
        history.attempts(facts, zone),
        history.requested_and_run(facts),
        history.phases(facts),
        history.trajectory(facts),
        ["## Analysis", "", f"![Speed, memory, learning rate]({ANALYSIS})"] if ANALYSIS in pictures else [],
        setup.data(facts),
        setup.adapter(facts),
        setup.checkpoints(facts),
        setup.hardware(facts),
        setup.settings(facts),
        setup.versions(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


# --- head ---


def _head(facts: Facts) -> list[str]:
    job = facts.job
    reason = f" ({job.reason})" if job.reason and job.reason != Reason.COMPLETED else ""
    quote = "\n>\n".join(f"> {paragraph}" for paragraph in _conclusion(facts)).splitlines()
    bullets = [f"- {line}" for line in (_run_summary(facts), _loss_summary(facts), _adapter_summary(facts)) if line]
    return [f"# {escaped(job.name)} (job {job.id}): {job.status}{reason}", "", *quote, "", *bullets]


def _conclusion(facts: Facts) -> list[str]:
    """Return the verdict, or cause and fix of a job that failed."""
    job, ruling = facts.job, facts.findings.ruling
    paragraphs = results.verdict(ruling) if ruling is not None else []
    if job.status not in ENDED:
        return ["**No verdict:** the run has not ended."]
    detail = (job.detail or "").rstrip(".")
    if job.status is Status.SUCCEEDED or (ruling is not None and detail and detail in ruling.verdict.because):
        return paragraphs or ["**No verdict:** nothing was trained."]
    cause = f"**Cause:** {escaped(detail or job.reason or 'unknown')}."
    if job.status not in (Status.FAILED, Status.SKIPPED):
        return [cause, *paragraphs]
    fix, command = fix_of(job.reason, job.id, job.job_dir)
    return [cause, f"**Fix:** {fix}. Then: {code(_with_home(facts, command))}", *paragraphs]


def _run_summary(facts: Facts) -> str:
    progress, trained, settings = facts.progress, facts.times.trained_seconds, facts.settings
    what = f"{setup.fine_tuning(settings)} of {code(settings.model)}" if settings else ""
    done = f"{whole(progress.iterations_done)} of {whole(progress.iterations_asked)} iterations"
    time = "not started" if trained is None else f"{duration(trained)} in training"
    return f"{', '.join(part for part in (what, done, time, history.restarts(facts)) if part)}."


def _loss_summary(facts: Facts) -> str:
    validation, last = facts.validation, facts.train_loss.last
    best, final = validation.best, validation.final
    if final is None:
        return "" if last is None else f"Last train loss {loss(last.loss)} at iteration {whole(last.iteration)}."
    named = [
        (validation.base, "before training"),
        (best, f"at best (iteration {whole(best.iteration if best else None)})"),
        (final if best is None or final.iteration != best.iteration else None, "at the end"),
    ]
    parts = [f"{loss_with_error(one.loss, one.standard_error)} {when}" for one, when in named if one is not None]
    return f"Validation loss {', '.join(parts)}."


def _adapter_summary(facts: Facts) -> str:
    best = facts.adapter.best
    if best is not None:
        place = "an unknown iteration" if best.iteration is None else f"iteration {whole(best.iteration)}"
        return f"The adapter of {place} is in {code(facts.adapter.path)}."
    kept = next((record for record in reversed(facts.checkpoints) if record.on_disk), None)
    if kept is None:
        return ""
    return f"No adapter was published. The last checkpoint on disk is of iteration {whole(kept.iteration)}."


# --- next steps: every command works when it is pasted into a shell ---


def _next_steps(facts: Facts) -> list[str]:
    steps = next_steps(facts.job.status, facts.job.id, facts.job.job_dir)
    lines = [f"- {escaped(why)}: {code(_with_home(facts, command))}" for command, why in steps]
    return ["## Next steps", "", *lines]


def _with_home(facts: Facts, command: str) -> str:
    """Return a command with LQ_HOME unless the home is the default one."""
    return f"LQ_HOME={shlex.quote(facts.job.home)} {command}" if facts.job.home else command
