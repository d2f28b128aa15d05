"""Where the files of a job lie (design.md, "Files"). Names only; whoever owns a file reads and writes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class JobDir:
    """The folder of one job."""

    path: Path
    cache: Path | None = None  # where tokenised data is kept for every job; None for nowhere

    @property
    def config(self) -> Path:
        """The effective configuration, frozen at submit."""
        return self.path / "config.yaml"

    @property
    def edited(self) -> Path:
        """What an edit of the job made of its file, as long as it was not taken."""
        return self.path / "edited.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, host, hashes of the data."""
        return self.path / "provenance.json"

    @property
    def run_plan(self) -> Path:
        """The stages so far."""
        return self.path / "run_plan.json"

    @property
    def events(self) -> Path:
        """What the child says."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """The child's own stdout and stderr, every attempt."""
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        """Held by the living child; holds its identity."""
        return self.path / "trainer.lock"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.path / "checkpoints"

    @property
    def tokens(self) -> Path:
        """Tokenised data that is this job's alone."""
        return self.path / "tokens"

    @property
    def adapters(self) -> Path:
        """The finished adapter in MLX-LM's layout."""
        return self.path / "adapters"

    @property
    def report(self) -> Path:
        """The report and its pictures."""
        return self.path / "report"
