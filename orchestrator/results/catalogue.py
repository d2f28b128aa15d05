"""Every schema by its name: what it is of, and from which type it is made."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from typing import Any

from jobs.model.errors import InvalidInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """What has a schema."""

    of: str  # what one types, or the name of the file
    form: str  # module and name of its type, in this house
    headed: bool = False  # a number `schema` is put before the fields of its type


_ANSWERS, _FILES = "orchestrator.results.answers", "orchestrator.results.files"
JOB = "job"

CATALOGUE: dict[str, Entry] = {
    "submit": Entry(of="lq submit --json", form=f"{_ANSWERS}:SubmitAnswer"),
    "check": Entry(of="lq check --json", form=f"{_ANSWERS}:CheckAnswer"),
    "plan": Entry(of="lq plan --json", form=f"{_ANSWERS}:PlanAnswer"),
    "status": Entry(of="lq status --json", form=f"{_ANSWERS}:StatusAnswer"),
    "show": Entry(of="lq show ID --json", form=f"{_ANSWERS}:ShowAnswer"),
    "logs": Entry(of="a line of lq logs ID --json", form=f"{_FILES}:EventLine"),
    "run": Entry(of="a line of lq run FILE --json", form=f"{_FILES}:EventLine"),
    "pause": Entry(of="lq pause --json", form=f"{_ANSWERS}:TurnsAnswer"),
    "resume": Entry(of="lq resume --json", form=f"{_ANSWERS}:TurnsAnswer"),
    "hold": Entry(of="lq hold --json", form=f"{_ANSWERS}:ChangedAnswer"),
    "release": Entry(of="lq release --json", form=f"{_ANSWERS}:ChangedAnswer"),
    "move": Entry(of="lq move --json", form=f"{_ANSWERS}:ChangedAnswer"),
    "edit": Entry(of="lq edit --json", form=f"{_ANSWERS}:ChangedAnswer"),
    "cancel": Entry(of="lq cancel --json", form=f"{_ANSWERS}:ChangedAnswer"),
    "retry": Entry(of="lq retry --json", form=f"{_ANSWERS}:ChangedAnswer"),
    "wait": Entry(of="lq wait --json", form=f"{_ANSWERS}:WaitAnswer"),
    "report": Entry(
        of="lq report ID --json, and report/report.json", form="orchestrator.report.facts:Facts", headed=True
    ),
    "compare": Entry(of="lq compare --json", form=f"{_ANSWERS}:CompareAnswer"),
    "verify": Entry(of="lq verify --json", form=f"{_ANSWERS}:VerifyAnswer"),
    "prune": Entry(of="lq prune --json", form=f"{_ANSWERS}:PruneAnswer"),
    "clean": Entry(of="lq clean --json", form=f"{_ANSWERS}:CleanAnswer"),
    "generate": Entry(of="lq generate ID --json", form=f"{_ANSWERS}:GenerateAnswer"),
    "test": Entry(of="lq test ID --json", form=f"{_ANSWERS}:TestAnswer"),
    "fuse": Entry(of="lq fuse ID --json", form=f"{_ANSWERS}:FuseAnswer"),
    "worker": Entry(of="lq worker --detach --json", form=f"{_ANSWERS}:WorkerStartAnswer"),
    "worker-stop": Entry(of="lq worker stop --json", form=f"{_ANSWERS}:WorkerStopAnswer"),
    "worker-status": Entry(of="lq worker status --json", form=f"{_ANSWERS}:WorkerAnswer"),
    "service-install": Entry(of="lq service install --json", form=f"{_ANSWERS}:ServiceAnswer"),
    "service-uninstall": Entry(of="lq service uninstall --json", form=f"{_ANSWERS}:ServiceAnswer"),
    "service-status": Entry(of="lq service status --json", form=f"{_ANSWERS}:ServiceAnswer"),
    "service-print": Entry(of="lq service print --json", form=f"{_ANSWERS}:ServicePrintAnswer"),
    "notify-list": Entry(of="lq notify list --json", form=f"{_ANSWERS}:NotifyListAnswer"),
    "notify-test": Entry(of="lq notify test --json", form=f"{_ANSWERS}:NotifyTestAnswer"),
    "doctor": Entry(of="lq doctor --json", form=f"{_ANSWERS}:DoctorAnswer"),
    "config-presets": Entry(of="lq config presets --json", form=f"{_ANSWERS}:PresetsAnswer"),
    "config-init": Entry(of="lq config init --json", form=f"{_ANSWERS}:InitAnswer"),
    "events": Entry(of="a line of events.jsonl", form=f"{_FILES}:EventLine"),
    "run_plan": Entry(of="run_plan.json", form=f"{_FILES}:RunPlanFile"),
    "state": Entry(of="state.json of a checkpoint", form=f"{_FILES}:CheckpointState"),
    "manifest": Entry(of="manifest.json of a checkpoint", form=f"{_FILES}:CheckpointManifest"),
    "provenance": Entry(of="provenance.json", form=f"{_FILES}:Provenance"),
}
"""By what one types after `lq config schema --of`; a verb below another one is written with a dash."""

NAMES = {JOB: "a job file", **{name: entry.of for name, entry in CATALOGUE.items()}}
"""Everything that has a schema, and what it is of."""


def schema(name: str) -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12).

    Args:
        name: what of; the words of a verb may have a space between them.

    Raises:
        InvalidInput: nothing has this name; names the nearest.
    """
    word = "-".join(name.removeprefix("lq ").split())
    if word == JOB:
        from configs.schema import job_schema

        return job_schema()
    if word not in CATALOGUE:
        near = difflib.get_close_matches(word, NAMES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see: lq config schema --list"
        raise InvalidInput(f"no schema '{name}'; {hint}")
    from orchestrator.results.forming import schema_of

    entry = CATALOGUE[word]
    module, _, form = entry.form.partition(":")
    return schema_of(getattr(importlib.import_module(module), form), title=entry.of, headed=entry.headed)
