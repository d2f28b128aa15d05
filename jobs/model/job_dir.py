"""The paths of a job's files (docs/reference/file-formats.md). Each file is read and written by its owner."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class JobDir:
    """The folder of one job."""

    path: Path
    cache: Path | None = None  # folder for tokenized data of all jobs; None without one

    @property
    def config(self) -> Path:
        """The effective configuration, fixed at submit."""
        return self.path / "config.yaml"

    @property
    def edited(self) -> Path:
        """The file of `lq edit`, until its changes are applied."""
        return self.path / "edited.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, host and hashes of the data."""
        return self.path / "provenance.json"

    @property
    def run_plan(self) -> Path:
        """The stages of the run plan."""
        return self.path / "run_plan.json"

    @property
    def events(self) -> Path:
        """The event log that the trainer writes."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """The stdout and stderr of the trainer, of all attempts."""
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        """The lock of the running trainer, with its identity."""
        return self.path / "trainer.lock"

    @property
    def checkpoints(self) -> Path:
        """One folder for each checkpoint."""
        return self.path / "checkpoints"

    @property
    def tokens(self) -> Path:
        """Tokenized data of this job only."""
        return self.path / "tokens"

    @property
    def adapters(self) -> Path:
        """The finished adapter in MLX-LM's layout."""
        return self.path / "adapters"

    @property
    def report(self) -> Path:
        """The report and its figures."""
        return self.path / "report"
