"""Everything about a job's model that is known before it is loaded: files, architecture, adapter, hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.model.spec import JobSpec
from orchestrator.model_files import damage, files, hub, trainable
from orchestrator.model_files.architecture import architecture_fault
from orchestrator.model_files.hub import HubAnswer
from orchestrator.model_files.hub_cache import folder_of, is_offline, repository
from orchestrator.model_files.trainable import Finding

DEPENDS_ON = {
    *("model", "fine_tune_type", "num_layers", "lora_parameters", "optimizer", "optimizer_config"),
    *("trust_remote_code", "report_to"),
}
"""The keys of a job file that `examine` looks at."""

_CHATS = ("chat", "completions")


def examine(spec: JobSpec) -> list[Finding]:
    """Return what is wrong with the model of a job, and what the user must know about it."""
    return [*_reporters(spec), *_model(spec)]


def template_findings(spec: JobSpec, formats: Iterable[str | None]) -> Iterator[Finding]:
    """Yield a finding if the rows need a chat template and the model has none."""
    folder = folder_of(spec.model)
    if folder is None or damage.tokenizer_fault(folder) is not None:
        return
    if set(_CHATS) & set(formats) and not damage.has_chat_template(folder):
        text = "model: its tokenizer has no chat template, which rows of messages or prompts need; use the instruct"
        yield Finding("model", f"{text} version of the model, copy its chat_template.jinja, or write rows of text")


def _reporters(spec: JobSpec) -> Iterator[Finding]:
    for name in (name.strip().lower() for name in (spec.report_to or "").split(",")):
        if name and importlib.util.find_spec(name) is None:
            yield Finding("report_to", f"report_to: the package {name} is not installed; run: pip install {name}")


def _model(spec: JobSpec) -> Iterator[Finding]:
    folder = folder_of(spec.model)
    named = Path(spec.model).is_dir()
    faults = list(_folder_faults(spec, folder)) if folder is not None else []
    if not named and (folder is None or _incomplete(spec.model, folder)):
        yield from _download(spec.model, faults)
        return
    where = "" if named else f"{folder}: "
    yield from (Finding("model", f"model: {where}{fault}") for fault in faults)
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


def _incomplete(model: str, folder: Path) -> bool:
    """Return whether the hub's cache lacks files of a model, which the next download adds."""
    if any(path.is_symlink() and not path.exists() for path in folder.iterdir()):
        return True
    if any((repository(model) / "blobs").glob("*.incomplete")):
        return True
    present = [path.name for path in folder.glob("model*.safetensors")]
    return not (folder / "config.json").exists() or not present or bool(damage.absent(folder, present))


def _download(model: str, faults: list[str]) -> Iterator[Finding]:
    """Yield whether a model, of which the cache has nothing or a part, can be downloaded."""
    state = f"not wholly in the hub's cache ({faults[0]})" if faults else "not in the hub's cache"
    if is_offline():
        text = f"model: {model} is {state}, and HF_HUB_OFFLINE forbids a download; unset it, or name a folder"
        yield Finding("model", text)
        return
    answer, reason = hub.ask(model)
    match answer:
        case HubAnswer.ABSENT:
            text = (
                f"there is no model {model} on the hub, or it is private ({reason}); check the name, or: hf auth login"
            )
        case HubAnswer.GATED:
            text = f"{model} is gated ({reason}); accept its terms on the hub, then: hf auth login"
        case HubAnswer.NO_MODEL:
            text = f"{model} has no config.json on the hub ({reason}); MLX-LM cannot load it"
        case HubAnswer.UNREACHABLE:
            text = f"{model} is {state}, and the hub cannot be reached ({reason}); the run waits until it can"
        case HubAnswer.THERE:
            return
    yield Finding("model", f"model: {text}", refused=answer is not HubAnswer.UNREACHABLE)
