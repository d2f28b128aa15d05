"""The run plan of a run: stages under unchanged settings, appended by Decisions and never edited.

The child trains by (spec, run plan, checkpoint) and nothing else. An iteration is what the user asked for: `batch_size`
rows of the job file. A stage with a smaller batch cuts it into micro-batches of the same rows, so positions, reports
and every setting counted in iterations mean the same on every stage.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.model.errors import ConfigInvalid

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

VERSION = 2
"""2 added what a rollback decides; a run plan of version 1 has none of it and is read as it is."""

_READABLE = (1, VERSION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of the run under unchanged settings."""

    first_example: int  # examples seen when it begins; 0 for the first stage
    batch_size: int  # rows per micro-batch; divides the batch size of the job file
    grad_accumulation_steps: int  # micro-batches per update
    grad_checkpoint: bool
    max_seq_length: int  # tokens
    learning_rate_factor: float = 1.0
    salt: int = 0  # changes the data order
    segment: int | None = None  # iterations after which the child is ended and resumed
    grad_clip: float | None = None  # largest global norm of an update's gradients; None for any
    warmup_updates: int = 0  # updates over which the learning rate climbs back to its schedule; 0 for none
    first_update: int = 0  # updates made before that climb begins
    quarantined: tuple[int, ...] = ()  # rows of the training set, from 0, that are left out for good

    # what happens once, where the stage begins; a stage that only goes on under other settings has none of it
    skipped: tuple[int, int] | None = None  # the rows that iterations after the first, up to the second, of the
    # run plan before it trained or would have: left out for the rest of the epoch
    reset_moments: bool = False  # the optimizer forgets its moments
    rollback: int = 0  # 1, 2 or 3: the run went back to its first example, and how hard the answer was
    ends: bool = False  # the run ends where this stage begins
    first_flag: int | None = None  # the iteration whose loss was flagged first, where it went back
    because: str = "requested"  # the decision that appended it

    def continued(self, first_example: int, *, because: str, **changes: Any) -> Stage:
        """Return a stage that goes on from there under changed settings; what happened once is not done again.

        Args:
            first_example: examples seen when it begins.
            because: the decision that appends it.
            changes: the settings that change.
        """
        once: dict[str, Any] = {"skipped": None, "reset_moments": False, "rollback": 0, "first_flag": None}
        fields: dict[str, Any] = once | changes | {"first_example": first_example, "because": because}
        return dataclasses.replace(self, **fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The stages so far, in the order in which they were decided."""

    stages: tuple[Stage, ...]

    @classmethod
    def requested(cls, spec: JobSpec) -> RunPlan:
        """Return the run plan the user asked for: one stage with the settings of the job file."""
        stage = Stage(
            first_example=0,
            batch_size=spec.batch_size,
            grad_accumulation_steps=spec.grad_accumulation_steps,
            grad_checkpoint=spec.grad_checkpoint,
            max_seq_length=spec.max_seq_length,
            segment=spec.lq.segment,
            grad_clip=spec.lq.grad_clip,
        )
        return cls(stages=(stage,))

    @property
    def batch_size(self) -> int:
        """Rows per iteration: the batch size of the job file, which the first stage has and no stage changes."""
        return self.stages[0].batch_size

    def example_of(self, iteration: int) -> int:
        """Return the number of examples seen after an iteration."""
        return iteration * self.batch_size

    def iteration_of(self, example: int) -> int:
        """Return the number of iterations completed after so many examples."""
        return example // self.batch_size

    def stage_at(self, iteration: int) -> Stage:
        """Return the stage that trains the iteration after `iteration`."""
        return self.stages[self.index_at(iteration)]

    def index_at(self, iteration: int) -> int:
        """Return the index of the stage that trains the iteration after `iteration`."""
        return self.at(self.example_of(iteration))

    def at(self, example: int) -> int:
        """Return the index of the stage that holds after so many examples: the last decided that begins by then."""
        return max(index for index, stage in enumerate(self.stages) if stage.first_example <= example)

    @property
    def ends_at(self) -> int | None:
        """Examples seen where the run ends before its time; None where it does not."""
        return self.stages[-1].first_example if self.stages[-1].ends else None

    def holds_until(self, example: int) -> int | None:
        """Return the next position from which another stage holds; None where this one holds to the end."""
        index = self.at(example)
        later = [stage.first_example for stage in self.stages[index + 1 :] if stage.first_example > example]
        return min(later, default=None)

    def leads_to(self, example: int, stage: int) -> bool:
        """Say whether a state reached on stage number `stage` after so many examples lies on this run plan.

        A stage decided later that begins earlier has left it behind.
        """
        return stage < len(self.stages) and all(later.first_example >= example for later in self.stages[stage + 1 :])


def to_json(run_plan: RunPlan) -> dict[str, Any]:
    """Return the content of run_plan.json."""
    return {"version": VERSION, "stages": [dataclasses.asdict(stage) for stage in run_plan.stages]}


def from_json(text: str) -> RunPlan:
    """Read the content of run_plan.json.

    Raises:
        ConfigInvalid: another version, or not a run plan.
    """
    try:
        content = json.loads(text)
        if content["version"] not in _READABLE:
            raise ConfigInvalid(
                f"run_plan.json has version {content['version']}; this lq reads up to version {VERSION}"
            )
        stages = tuple(stage_from(stage) for stage in content["stages"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigInvalid(f"run_plan.json cannot be read: {error}") from error
    if not stages or stages[0].first_example != 0:
        raise ConfigInvalid("run_plan.json has no stage that begins at the beginning")
    return RunPlan(stages=stages)


def stage_from(content: Mapping[str, Any]) -> Stage:
    """Read a stage as JSON keeps it, which knows lists only.

    Raises:
        TypeError: it has a field that no stage has.
    """
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in dict(content).items()
    }
    return Stage(**fields)
