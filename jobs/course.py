"""The course of a run: legs under unchanged settings, appended by Decisions and never edited.

The child trains by (spec, course, checkpoint) and nothing else. This version runs courses of one leg;
the ladder after an out-of-memory and the rollback after a spike append further ones.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from jobs.errors import ConfigInvalid
from jobs.spec import JobSpec

VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leg:
    """A stretch of the run under unchanged settings."""

    first_example: int  # examples seen when it begins; 0 for the first leg
    batch_size: int  # rows per iteration
    grad_accumulation_steps: int  # iterations per update
    grad_checkpoint: bool
    max_seq_length: int  # tokens
    learning_rate_factor: float = 1.0
    salt: int = 0  # changes the data order
    because: str = "requested"  # the decision that appended it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """The legs so far, in order."""

    legs: tuple[Leg, ...]

    @classmethod
    def requested(cls, spec: JobSpec) -> Course:
        """Return the course the user asked for: one leg with the settings of the job file."""
        leg = Leg(
            first_example=0,
            batch_size=spec.batch_size,
            grad_accumulation_steps=spec.grad_accumulation_steps,
            grad_checkpoint=spec.grad_checkpoint,
            max_seq_length=spec.max_seq_length,
        )
        return cls(legs=(leg,))


def to_json(course: Course) -> dict[str, Any]:
    """Return the content of course.json."""
    return {"version": VERSION, "legs": [dataclasses.asdict(leg) for leg in course.legs]}


def from_json(text: str) -> Course:
    """Read the content of course.json.

    Raises:
        ConfigInvalid: another version, or not a course.
    """
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            raise ConfigInvalid(f"course.json has version {content['version']}; this lq reads version {VERSION}")
        legs = tuple(Leg(**leg) for leg in content["legs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigInvalid(f"course.json cannot be read: {error}") from error
    if not legs:
        raise ConfigInvalid("course.json has no leg")
    return Course(legs=legs)
