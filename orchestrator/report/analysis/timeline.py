"""The timeline of a run: its incidents, and the spikes that the losses show but no incident records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from jobs.model.events import number
from jobs.model.job import Attempt, Incident, ProgressPoint
from jobs.model.run_plan import RunPlan, Stage
from orchestrator.formatting.incidents import cost_of, describe, iteration_of
from orchestrator.formatting.text import counted, duration, loss
from orchestrator.report.analysis.phases import RECOVERY, SPIKE
from orchestrator.report.analysis.settings_diff import differences
from orchestrator.report.facts import Change, GuiltyRow, Happening, Phase

SPIKE_IN_LOSSES = "spike_in_losses"
"""The code of a spike without an incident."""

ROLLED_BACK = ("spike", "drift", "not_finite", "no_gradient", "diverged")


def happenings(
    incidents: Sequence[Incident], attempts: Sequence[Attempt], points: Sequence[ProgressPoint], phases: Sequence[Phase]
) -> tuple[Happening, ...]:
    """Return the entries of the timeline, by time; `points` includes superseded progress reports."""
    entries = []
    for incident in incidents:
        text, cost = describe(incident, attempts, points), cost_of(incident, attempts, points)
        entries.append(
            Happening(
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
        )
    entries += _spikes(phases, points, incidents)
    return tuple(sorted(entries, key=lambda entry: (entry.time is None, entry.time or 0.0)))


def _spikes(
    phases: Sequence[Phase], points: Sequence[ProgressPoint], incidents: Sequence[Incident]
) -> Iterator[Happening]:
    recorded = [iteration_of(incident) for incident in incidents if incident.code in ROLLED_BACK]
    for spike, after in zip(phases, [*phases[1:], None], strict=False):
        if spike.name != SPIKE:
            continue
        recovery = after if after is not None and after.name == RECOVERY else None
        end = recovery.last if recovery is not None else spike.last
        if not any(iteration is not None and spike.first <= iteration <= end for iteration in recorded):
            yield _spike(spike, points, end, back=recovery is None or recovery.back is not False)


def _spike(spike: Phase, points: Sequence[ProgressPoint], end: int, *, back: bool) -> Happening:
    started, ended = (
        next((point.time for point in points if point.iteration >= iteration), None) for iteration in (spike.first, end)
    )
    seconds = ended - started if started is not None and ended is not None else None
    iterations = end - spike.first
    peak = f"{loss(spike.peak_loss)} at iteration {spike.peak_iteration:,}"
    until = f"back at iteration {end:,}" if back else f"not back by the last iteration, {end:,}"
    time = "" if seconds is None else f", {duration(seconds)},"
    return Happening(
        time=started,
        iteration=spike.first,
        attempt=None,
        code=SPIKE_IN_LOSSES,
        what=f"The train loss spiked (iteration {spike.first:,})",
        evidence=f"{loss(spike.loss_first)} before, {peak}; {until}",
        action="none",
        cost_iterations=iterations,
        cost_seconds=seconds,
        cost=f"{counted(iterations, 'iteration')}{time} until {'the loss was back' if back else 'the end'}",
        numbers={
            "level_before": spike.loss_first,
            "peak": spike.peak_loss,
            "peak_iteration": spike.peak_iteration,
            "back_at": end if back else None,
        },
    )


def guilty(incidents: Sequence[Incident]) -> tuple[GuiltyRow, ...]:
    """Return the rows that autopsies measured, by their highest loss; NaN counts as infinite."""
    worst: dict[str, float] = {}
    rows = [row for incident in incidents if incident.code == "autopsy" for row in incident.evidence.get("rows") or ()]
    for row in rows:
        measured = number(row.get("loss"))
        if measured is not None:
            place = ":".join(str(row[key]) for key in ("file", "line") if row.get(key) is not None)
            worst[place] = max(math.inf if math.isnan(measured) else measured, worst.get(place, -math.inf))
    ranked = sorted(worst.items(), key=lambda item: -item[1])
    return tuple(GuiltyRow(place=place, loss=highest) for place, highest in ranked)


def changes(stages: Sequence[Stage]) -> tuple[Change, ...]:
    """Return what each later stage changes of the first one, which is as requested."""
    run_plan = RunPlan(stages=tuple(stages))
    return tuple(
        Change(
            first_iteration=run_plan.iteration_of(stage.first_example),
            changes=differences(stages[0], stage),
            because=stage.because,
        )
        for stage in stages[1:]
    )
