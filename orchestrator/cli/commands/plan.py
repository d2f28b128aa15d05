"""plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import home_access, output
from orchestrator.cli.commands.submit import set_option
from orchestrator.cli.output import json_option
from orchestrator.cli.views.terminal import print_view

if TYPE_CHECKING:
    from jobs.estimates.estimate import MemoryEstimate
    from orchestrator.planning.plan import JobPlan, QueuePlan


@click.command()
@click.argument("files", metavar="[FILE...]", type=click.Path(path_type=Path), nargs=-1)
@set_option
@json_option
def plan(files: Sequence[Path], sets: Sequence[str], as_json: bool) -> None:
    """Say whether jobs fit into memory, how long they take and when they run: the queue, and FILEs behind it.

    Nothing is trained, loaded or queued. What is not known yet, lq check FILE measures.
    """
    from orchestrator.planning import plan as planning

    with home_access.opened() as app:
        found = planning.plan(app, files, sets=sets)
    if as_json:
        output.print_json(_content(found))
    else:
        from orchestrator.cli.views.plan import render

        print_view(render(found))


def _content(plan: QueuePlan) -> dict[str, Any]:
    return {
        "now": plan.now,
        "recommended_bytes": plan.recommended,
        "recommended_by": plan.recommended_by,
        "queue_paused": plan.queue_paused,
        "disk": {"free_bytes": plan.disk_free, "need_bytes": plan.disk_need, "floor_bytes": plan.disk_floor},
        "jobs": [_entry(one) for one in plan.jobs],
    }


def _entry(one: JobPlan) -> dict[str, Any]:
    times, left = one.times, one.time
    return {
        "id": one.id,
        "file": str(one.source) if one.source is not None else None,
        "name": one.name,
        "status": one.status,
        "memory": _memory(one.memory) if one.memory is not None else None,
        "limit_bytes": one.limit,
        "room_bytes": one.usable,
        "verdict": one.verdict,
        "time": None
        if left is None
        else {
            "low_s": left.low_s,
            "expected_s": left.expected_s,
            "high_s": left.high_s,
            "source": left.source,
            "because": left.because,
        },
        "start": times.start,
        "end": times.end,
        "stints": [list(stint) for stint in times.stints],
        "behind": times.behind,
        "deadline": one.deadline,
        "late_s": times.late_s,
        "remedies": [
            {
                "by": step.by,
                "change": step.text,
                "memory": _memory(step.memory),
                "verdict": step.verdict,
                "first": step.first,
            }
            for step in one.steps
        ],
        "disk_bytes": one.disk.total if one.disk is not None else None,
        "notes": list(one.notes),
    }


def _memory(found: MemoryEstimate) -> dict[str, Any]:
    parts = found.parts
    return {
        "low_bytes": found.low,
        "expected_bytes": found.expected,
        "high_bytes": found.high,
        "source": found.source,
        "because": found.because,
        "parts": {
            "weights": parts.weights,
            "trained": parts.trained,
            "activations": parts.activations,
            "logits": parts.logits,
            "gradients": parts.gradients,
        },
    }
