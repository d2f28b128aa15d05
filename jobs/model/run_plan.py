"""The run plan: the stages of a run. A Decision appends a stage; no stage is ever edited.

The trainer's result depends only on the job file, the run plan and the checkpoint. An iteration is always `batch_size`
rows of the job file. A stage with a smaller batch divides an iteration into micro-batches of the same rows, so that
positions and all settings in iterations mean the same on every stage.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.model.errors import ConfigInvalid

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

VERSION = 3
"""Version of run_plan.json. Only this version can be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of the run with unchanged settings."""

    first_example: int  # examples seen when it begins; 0 for the first stage
    batch_size: int  # rows per micro-batch; divides the batch size of the job file
    grad_accumulation_steps: int  # micro-batches per update
    grad_checkpoint: bool
    max_seq_length: int  # tokens
    learning_rate_factor: float = 1.0  # factor on the learning rate of the job file
    salt: int = 0  # changes the data order
    segment: int | None = None  # iterations after which the trainer is ended and resumed
    grad_clip: float | None = None  # largest global norm of an update's gradients; None for no limit
    warmup_updates: int = 0  # updates over which the learning rate returns to its schedule; 0 for none
    first_update: int = 0  # updates made before that warm-up begins
    quarantined: tuple[int, ...] = ()  # rows of the training set, from 0, left out for the rest of the run

    # the fields below apply once, when the stage begins; `continued` clears them
    skipped: tuple[int, int] | None = None  # (after, up to): iterations of the previous run plan whose rows are left
    # out for the rest of the epoch
    reset_moments: bool = False  # reset the optimizer's moments
    rollback: int = 0  # 1, 2 or 3: escalation step of the rollback that appended the stage; 0 if none did
    ends: bool = False  # the run ends at the beginning of this stage
    first_flag: int | None = None  # iteration of the first flagged report, if a rollback appended the stage
    because: str = "requested"  # the decision that appended it

    def continued(self, first_example: int, *, because: str, **changes: Any) -> Stage:
        """Return a stage that continues from `first_example` with `changes`, without the fields that apply once."""
        once: dict[str, Any] = {"skipped": None, "reset_moments": False, "rollback": 0, "first_flag": None}
        fields: dict[str, Any] = once | changes | {"first_example": first_example, "because": because}
        return dataclasses.replace(self, **fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The stages so far, in the order of the decisions."""

    stages: tuple[Stage, ...]

    @classmethod
    def requested(cls, spec: JobSpec) -> RunPlan:
        """Return the run plan of a new job: one stage with the settings of the job file."""
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
        """Rows per iteration: the batch size of the job file, which is that of the first stage."""
        return self.stages[0].batch_size

    def example_of(self, iteration: int) -> int:
        """Return the number of examples seen after an iteration."""
        return iteration * self.batch_size

    def iteration_of(self, example: int) -> int:
        """Return the number of iterations completed after `example` examples."""
        return example // self.batch_size

    def stage_at(self, iteration: int) -> Stage:
        """Return the stage that trains the iteration after `iteration`."""
        return self.stages[self.index_at(iteration)]

    def index_at(self, iteration: int) -> int:
        """Return the index of the stage that trains the iteration after `iteration`."""
        return self.at(self.example_of(iteration))

    def at(self, example: int) -> int:
        """Return the index of the stage in force after `example` examples: the latest decision that begins by then."""
        return max(index for index, stage in enumerate(self.stages) if stage.first_example <= example)

    @property
    def ends_at(self) -> int | None:
        """Examples seen at an early end of the run; None if it runs to its last iteration."""
        return self.stages[-1].first_example if self.stages[-1].ends else None

    def holds_until(self, example: int) -> int | None:
        """Return the next position at which another stage takes over; None if this one continues to the end."""
        index = self.at(example)
        later = [stage.first_example for stage in self.stages[index + 1 :] if stage.first_example > example]
        return min(later, default=None)

    def leads_to(self, example: int, stage: int) -> bool:
        """Return whether a state belongs to this run plan: no later decision begins before its example."""
        return stage < len(self.stages) and all(later.first_example >= example for later in self.stages[stage + 1 :])


def to_json(run_plan: RunPlan) -> dict[str, Any]:
    """Return the content of run_plan.json."""
    return {"version": VERSION, "stages": [dataclasses.asdict(stage) for stage in run_plan.stages]}


def from_json(text: str) -> RunPlan:
    """Read the content of run_plan.json; ConfigInvalid if it has another version or is not a run plan."""
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            raise ConfigInvalid(
                f"run_plan.json has version {content['version']}; this lq reads only version {VERSION}: "
                "use the lq that started the job, or submit the job again"
            )
        stages = tuple(stage_from(stage) for stage in content["stages"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigInvalid(f"run_plan.json cannot be read: {error}") from error
    if not stages or stages[0].first_example != 0:
        raise ConfigInvalid("run_plan.json has no stage with first_example 0")
    return RunPlan(stages=stages)


def stage_from(content: Mapping[str, Any]) -> Stage:
    """Read a stage from JSON, where tuples are lists; TypeError for an unknown field."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in dict(content).items()
    }
    return Stage(**fields)
