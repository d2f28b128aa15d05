"""Everything about a job's model that is known before it is loaded: files, architecture, adapter, hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.model.spec import JobSpec
from orchestrator.model_files import damage, files, trainable
from orchestrator.model_files.architecture import architecture_fault
from orchestrator.model_files.hub_cache import folder_of, is_offline, snapshot_of
from orchestrator.model_files.trainable import Finding

DEPENDS_ON = {
    *("model", "fine_tune_type", "num_layers", "lora_parameters", "optimizer", "optimizer_config"),
    *("trust_remote_code", "report_to"),
}
"""The keys of a job file that `examine` looks at."""


def examine(spec: JobSpec) -> list[Finding]:
    """Return what is wrong with the model of a job, and what the user must know about it."""
    return [*_reporters(spec), *_model(spec)]


def _reporters(spec: JobSpec) -> Iterator[Finding]:
    for name in (name.strip().lower() for name in (spec.report_to or "").split(",")):
        if name and importlib.util.find_spec(name) is None:
            yield Finding("report_to", f"report_to: the package {name} is not installed; run: pip install {name}")


def _model(spec: JobSpec) -> Iterator[Finding]:
    folder, snapshot = folder_of(spec.model), snapshot_of(spec.model)
    if folder is None:
        yield from _download(spec.model, list(_folder_faults(spec, snapshot)) if snapshot is not None else [])
        return
    where = f"{folder}: " if folder == snapshot else ""
    faults = [Finding("model", f"model: {where}{fault}") for fault in _folder_faults(spec, folder)]
    yield from faults
    read = files.read(spec.model) if not faults else None
    if read is not None:
        yield from trainable.findings(spec, read)


def _folder_faults(spec: JobSpec, folder: Path) -> Iterator[str]:
    config: Mapping[str, Any] | str = damage.config_of(folder)
    if isinstance(config, str):
        yield config
    elif (fault := architecture_fault(config, trust_remote_code=spec.trust_remote_code)) is not None:
        yield fault
    yield from damage.weight_faults(folder)
    if (fault := damage.tokenizer_fault(folder)) is not None:
        yield fault


def _download(model: str, faults: list[str]) -> Iterator[Finding]:
    """Yield a finding if an absent or partly cached model cannot be downloaded."""
    state = f"not wholly in the hub's cache ({faults[0]})" if faults else "not in the hub's cache"
    if is_offline():
        text = f"model: {model} is {state}, and HF_HUB_OFFLINE forbids a download; unset it, or name a folder"
        yield Finding("model", text)
        return
    from orchestrator.model_files.hub import HubAnswer, ask  # urllib is slow to import

    answer, reason = ask(model)
    match answer:
        case HubAnswer.ABSENT:
            text = f"the hub does not have {model}, or it is private ({reason}); check the name, or: hf auth login"
        case HubAnswer.GATED:
            text = f"{model} is gated ({reason}); accept its terms on the hub, then: hf auth login"
        case HubAnswer.NO_MODEL:
            text = f"{model} has no config.json on the hub ({reason}); MLX-LM cannot load it"
        case HubAnswer.UNREACHABLE:
            text = f"{model} is {state}, and the hub cannot be reached ({reason}); the run waits until it can"
        case HubAnswer.THERE:
            return
    yield Finding("model", f"model: {text}", refused=answer is not HubAnswer.UNREACHABLE)
