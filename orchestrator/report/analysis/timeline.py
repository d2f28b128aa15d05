"""The timeline of a run: incidents as they were recorded, and spikes nobody answered, as the losses show them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jobs.model.events import number
from jobs.model.job import Attempt, Incident, ProgressPoint
from jobs.model.run_plan import RunPlan, Stage
from orchestrator.formatting.incidents import cost_of, describe, iteration_of
from orchestrator.formatting.text import counted, duration
from orchestrator.report.analysis import phases as rules
from orchestrator.report.analysis.settings_diff import differences
from orchestrator.report.facts import Change, GuiltyRow, Happening, Phase

SEEN_SPIKE = "spike_in_losses"
"""The code of a spike that the losses show and no incident tells of."""

ROLLED_BACK = ("spike", "drift", "not_finite", "diverged")


def happenings(
    incidents: Sequence[Incident],
    attempts: Sequence[Attempt],
    points: Sequence[ProgressPoint],
    found: Sequence[Phase],
) -> tuple[Happening, ...]:
    """Return what happened, by time.

    Args:
        incidents: of the job.
        attempts: of the job, by number.
        points: every progress report, superseded ones included.
        found: the phases of the run.
    """
    entries = [_recorded(one, attempts, points) for one in incidents]
    entries += _spikes(found, points, incidents)
    return tuple(sorted(entries, key=lambda one: (one.time is None, one.time or 0.0)))


def _recorded(incident: Incident, attempts: Sequence[Attempt], points: Sequence[ProgressPoint]) -> Happening:
    text, cost = describe(incident, attempts, points), cost_of(incident, attempts, points)
    return Happening(
        time=incident.time,
        iteration=iteration_of(incident),
        attempt=incident.attempt,
        code=incident.code,
        what=text.what,
        evidence=text.evidence,
        action=text.action,
        cost_iterations=cost.iterations,
        cost_seconds=cost.seconds,
        cost=text.cost,
        numbers=incident.evidence,
    )


def _spikes(found: Sequence[Phase], points: Sequence[ProgressPoint], incidents: Sequence[Incident]) -> list[Happening]:
    answered = [iteration_of(one) for one in incidents if one.code in ROLLED_BACK]
    entries = []
    for place, spike in enumerate(found):
        after = found[place + 1] if place + 1 < len(found) else None
        recovery = after if after is not None and after.name == rules.RECOVERY else None
        end = recovery.last if recovery is not None else spike.last
        if spike.name != rules.SPIKE or any(one is not None and spike.first <= one <= end for one in answered):
            continue
        entries.append(_spike(spike, recovery, points))
    return entries


def _spike(spike: Phase, recovery: Phase | None, points: Sequence[ProgressPoint]) -> Happening:
    end = recovery.last if recovery is not None else spike.last
    begun = next((point.time for point in points if point.iteration >= spike.first), None)
    over = next((point.time for point in points if point.iteration >= end), None)
    seconds = over - begun if begun is not None and over is not None else None
    lost = end - spike.first
    back = recovery is None or recovery.back is not False
    top = f"{spike.peak_loss:.4f} at iteration {spike.peak_iteration:,}"
    until = f"back at iteration {end:,}" if back else f"not back by the last iteration, {end:,}"
    spent = "" if seconds is None else f", {duration(seconds)},"
    return Happening(
        time=begun,
        iteration=spike.first,
        attempt=None,
        code=SEEN_SPIKE,
        what=f"The train loss spiked from iteration {spike.first:,} on.",
        evidence=f"{spike.loss_first:.4f} before, {top}; {until}.",
        action="none was taken.",
        cost_iterations=lost,
        cost_seconds=seconds,
        cost=f"{counted(lost, 'iteration')}{spent} until the loss was {'where it had been' if back else 'at its end'}.",
        numbers={
            "level_before": spike.loss_first,
            "peak": spike.peak_loss,
            "peak_iteration": spike.peak_iteration,
            "back_at": end if back else None,
        },
    )


def guilty(incidents: Sequence[Incident]) -> tuple[GuiltyRow, ...]:
    """Return the rows that autopsies ranked, worst first; each once, at its highest loss."""
    worst: dict[str, float] = {}
    for incident in incidents:
        if incident.code != "autopsy":
            continue
        for row in incident.evidence.get("rows") or ():
            loss = number(row.get("loss"))
            if loss is not None:
                place = ":".join(str(row[key]) for key in ("file", "line") if row.get(key) is not None)
                worst[place] = max(loss, worst.get(place, -math.inf)) if not math.isnan(loss) else math.inf
    ranked = sorted(worst.items(), key=lambda one: -one[1])
    return tuple(GuiltyRow(place=place, loss=loss) for place, loss in ranked)


def changes(stages: Sequence[Stage]) -> tuple[Change, ...]:
    """Return where the run departed from what was requested, which is the first stage."""
    run_plan = RunPlan(stages=tuple(stages))
    return tuple(
        Change(
            first_iteration=run_plan.iteration_of(stage.first_example),
            changes=differences(stages[0], stage),
            because=stage.because,
        )
        for stage in stages[1:]
    )
