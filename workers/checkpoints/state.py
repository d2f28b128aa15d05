"""The contents of state.json: the position of a run, and what a resume needs besides weights and moments. No mlx."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from jobs.model.errors import CheckpointInvalid, CheckpointOfAnotherVersion
from jobs.model.events import finite, number
from workers.events.reporter import PendingReport

VERSION = 2
"""2 calls a stage `stage`; version 1 called it `leg` and is refused."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedValidation:
    """The validation at the checkpoint's iteration."""

    loss: float  # nats per token
    standard_error: float | None  # of the loss, by row
    examples: int  # rows
    iteration: int
    asked: bool = False  # a request between two due validations: it does not compete for the best adapter


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTestRecord:
    """A loss that a resume measures again, on the first rows of the validation set."""

    loss: float  # nats per token
    examples: int  # rows
    batch_size: int  # rows per batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """The position of a run when the checkpoint was written."""

    iteration: int  # completed iterations
    examples_seen: int  # rows that were trained, or skipped by a rollback
    stage: int  # index in the run plan of the stage that trained the last iteration
    updates: int  # optimizer updates
    finite: bool  # every weight and moment is a finite number
    random_key: tuple[int, int]  # MLX's random key, high half first
    progress: PendingReport
    validation: SavedValidation | None  # None if this iteration was not validated
    self_test: SelfTestRecord | None  # None without a validation set
    versions: Mapping[str, str]  # by package; an exact resume needs the same ones
    machine: str  # device and processor; an exact resume needs the same ones
    data: Mapping[str, str]  # sha256 by file name; empty if the data comes from the hub

    @property
    def validation_loss(self) -> float | None:
        """The validation loss in nats per token; None without one, if it is not finite, or if it was only asked for.

        A validation that was asked for depends on when you asked, so it must not decide which adapter is the best.
        """
        validation = self.validation
        return validation.loss if validation and not validation.asked and math.isfinite(validation.loss) else None

    def to_json(self) -> dict[str, Any]:
        """Return the contents of state.json; non-finite numbers become strings."""
        fields: dict[str, Any] = finite({"version": VERSION} | dataclasses.asdict(self))
        return fields

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read state.json; CheckpointOfAnotherVersion, or CheckpointInvalid if a field is missing or wrong."""
        try:
            fields = dict(content)
            version = fields.pop("version")
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointInvalid("it has no version") from error
        if version != VERSION:
            raise CheckpointOfAnotherVersion(f"it has version {version}; this lq reads version {VERSION}")
        try:
            fields |= {name: int(fields[name]) for name in ("iteration", "examples_seen", "stage", "updates")}
            high, low = fields.pop("random_key")
            progress, validation, self_test = (fields.pop(name) for name in ("progress", "validation", "self_test"))
            return cls(
                **fields,
                random_key=(int(high), int(low)),
                progress=PendingReport.from_json(progress),
                validation=validation and SavedValidation(**_with_loss(validation)),
                self_test=self_test and SelfTestRecord(**_with_loss(self_test)),
            )
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointInvalid(f"a field is missing or wrong: {error}") from error


def _with_loss(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read the numbers of a measurement that JSON stores as strings if they are not finite."""
    return dict(fields) | {name: number(fields[name]) for name in ("loss", "standard_error") if name in fields}
