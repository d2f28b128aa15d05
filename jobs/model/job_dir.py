"""The paths of the files of a job (docs/reference/file-formats.md#the-home-directory)."""

from __future__ import annotations

import dataclasses
from pathlib import Path


class _Inside:
    """A file or a folder in the folder of a job."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, job_dir: JobDir, _: type[JobDir]) -> Path:
        return job_dir.path / self._name


@dataclasses.dataclass(frozen=True)
class JobDir:
    """The folder of one job."""

    path: Path
    cache: Path | None = None  # folder of the shared token cache; None for none

    config = _Inside("config.yaml")  # the effective configuration, frozen at submit
    edited = _Inside("edited.yaml")  # the file of an edit that is not yet applied
    provenance = _Inside("provenance.json")  # versions, host, and hashes of the data
    run_plan = _Inside("run_plan.json")  # the stages so far
    events = _Inside("events.jsonl")  # the events of the trainer
    log = _Inside("train.log")  # the output of the trainer, of all attempts
    lock = _Inside("trainer.lock")  # held by the running trainer; it contains its identity
    checkpoints = _Inside("checkpoints")  # one folder per checkpoint
    reference = _Inside("reference.json")  # reference log-probabilities of a preference objective
    tokens = _Inside("tokens")  # tokenized data of this job alone
    adapters = _Inside("adapters")  # the finished adapter in MLX-LM's layout
    report = _Inside("report")  # the report and its plots
