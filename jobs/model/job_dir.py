"""The paths of the files of a job (docs/reference/file-formats.md#the-home-directory)."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class JobDir:
    """The folder of one job."""

    path: Path
    cache: Path | None = None  # folder of the shared token cache; None for none

    @property
    def config(self) -> Path:
        """The effective configuration, frozen at submit."""
        return self.path / "config.yaml"

    @property
    def edited(self) -> Path:
        """The file of an edit that is not yet applied."""
        return self.path / "edited.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, host, and hashes of the data."""
        return self.path / "provenance.json"

    @property
    def run_plan(self) -> Path:
        """The stages so far."""
        return self.path / "run_plan.json"

    @property
    def events(self) -> Path:
        """The events of the trainer."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """The output of the trainer, of all attempts."""
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        """The lock that the running trainer holds; it contains its identity."""
        return self.path / "trainer.lock"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    @property
    def tokens(self) -> Path:
        """Tokenized data of this job alone."""
        return self.path / "tokens"

    @property
    def adapters(self) -> Path:
        """The finished adapter in MLX-LM's layout."""
        return self.path / "adapters"

    @property
    def report(self) -> Path:
        """The report and its plots."""
        return self.path / "report"
