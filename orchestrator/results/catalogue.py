"""The name of each JSON Schema, what it describes, and its type."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.model.errors import InvalidInput

JOB = "job"


@dataclass(frozen=True, kw_only=True)
class SchemaEntry:
    """A type that has a schema."""

    of: str  # the command, or the name of the file
    model: str  # module and name of the type
    version: Mapping[str, int] = field(default_factory=dict)  # version field, unless the type has it
    under: str | None = None  # the only other field, which holds a value of the type
    many: bool = False  # that field holds a list of them


def _result(command: str, module: str, model: str, *, under: str | None = None, many: bool = False) -> SchemaEntry:
    path = f"orchestrator.{module}:{model}" if "." in module else f"orchestrator.results.{module}:{model}"
    return SchemaEntry(of=f"lq {command} --json", model=path, version={"schema": 1}, under=under, many=many)


def _file(of: str, model: str) -> SchemaEntry:
    return SchemaEntry(of=of, model=f"orchestrator.results.files:{model}")


CATALOGUE: dict[str, SchemaEntry] = {
    "submit": _result("submit", "jobs", "SubmitResult"),
    "check": _result("check", "planning", "CheckResult"),
    "check-row": _result("check --show-row N FILE", "planning", "CheckedRows"),
    "plan": _result("plan", "planning", "PlanResult"),
    "status": _result("status", "jobs", "StatusResult"),
    "show": _result("show ID", "jobs", "ShowResult"),
    "logs": _file("a line of lq logs ID --json", "EventLine"),
    "run": _file("a line of lq run FILE --json", "EventLine"),
    "pause": _result("pause", "jobs", "PauseResult"),
    "resume": _result("resume", "jobs", "PauseResult"),
    "move": _result("move", "jobs", "ChangeResult"),
    "edit": _result("edit", "jobs", "ChangeResult"),
    "cancel": _result("cancel", "jobs", "ChangeResult"),
    "dismiss": _result("dismiss", "jobs", "ChangeResult"),
    "retry": _result("retry", "jobs", "ChangeResult"),
    "extend": _result("extend", "jobs", "ChangeResult"),
    "wait": _result("wait", "jobs", "WaitResult"),
    "report": SchemaEntry(
        of="lq report ID --json, and report/report.json",
        model="orchestrator.report.facts:Facts",
        version={"schema": 1},
    ),
    "compare": _result("compare", "artifacts", "CompareResult"),
    "verify": _result("verify", "maintenance.verify", "VerifiedJob", under="jobs", many=True),
    "prune": _result("prune", "machine", "PruneResult"),
    "clean": _result("clean", "machine", "CleanResult"),
    "generate": _result("generate ID", "artifacts", "GenerateResult"),
    "test": _result("test ID", "artifacts", "EvaluationResult"),
    "fuse": _result("fuse ID", "artifacts", "FuseResult"),
    "worker": _result("worker --detach", "machine", "StartedWorker", under="worker"),
    "worker-start": _result("worker start", "machine", "StartedWorker", under="worker"),
    "worker-restart": _result("worker restart", "machine", "StartedWorker", under="worker"),
    "worker-stop": _result("worker stop", "machine", "StoppedWorker", under="stopped"),
    "worker-status": _result("worker status", "jobs", "WorkerState", under="worker"),
    "service-install": _result("service install", "service.install", "ServiceState", under="service"),
    "service-uninstall": _result("service uninstall", "service.install", "ServiceState", under="service"),
    "service-status": _result("service status", "service.install", "ServiceState", under="service"),
    "service-print": _result("service print", "machine", "ServiceUnit", under="service"),
    "notify-list": _result("notify list", "machine", "NotifyListResult"),
    "notify-add": _result("notify add URL", "machine", "TestMessage", under="service"),
    "notify-test": _result("notify test", "machine", "NotifyTestResult"),
    "doctor": _result("doctor", "doctor.check", "Check", under="checks", many=True),
    "config-presets": _result("config presets", "machine", "PresetSummary", under="presets", many=True),
    "config-init": _result("config init", "machine", "WrittenPreset", under="written"),
    "events": _file("a line of events.jsonl", "EventLine"),
    "run_plan": _file("run_plan.json", "RunPlanFile"),
    "state": SchemaEntry(
        of="state.json of a checkpoint", model="workers.checkpoints.state:CheckpointState", version={"version": 2}
    ),
    "manifest": _file("manifest.json of a checkpoint", "CheckpointManifest"),
    "provenance": _file("provenance.json", "Provenance"),
}
"""By the name for `lq config schema --of`. The name of a verb below another verb has a dash."""

NAMES = {JOB: "a job file", **{name: entry.of for name, entry in CATALOGUE.items()}}
"""What each schema describes, by name."""


def schema(name: str) -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12); the words of a verb may be separated by spaces."""
    word = "-".join(name.removeprefix("lq ").split())
    if word == JOB:
        from configs.schema import job_schema

        return job_schema()
    if word not in CATALOGUE:
        near = difflib.get_close_matches(word, NAMES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see: lq config schema --list"
        raise InvalidInput(f"no schema '{name}'; {hint}")
    from orchestrator.results.json_schema import schema_of

    entry = CATALOGUE[word]
    module, _, name = entry.model.partition(":")
    model: Any = getattr(importlib.import_module(module), name)
    return schema_of(Sequence[model] if entry.many else model, title=entry.of, version=entry.version, under=entry.under)
