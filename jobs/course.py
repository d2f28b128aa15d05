"""The course of a run: legs under unchanged settings, appended by Decisions and never edited.

The child trains by (spec, course, checkpoint) and nothing else. An iteration is what the user asked for: `batch_size`
rows of the job file. A leg with a smaller batch cuts it into micro-batches of the same rows, so positions, reports
and every setting counted in iterations mean the same on every leg.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from jobs.errors import ConfigInvalid

if TYPE_CHECKING:
    from jobs.spec import JobSpec  # it takes pydantic, and `lq status` reads legs

VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leg:
    """A stretch of the run under unchanged settings."""

    first_example: int  # examples seen when it begins; 0 for the first leg
    batch_size: int  # rows per micro-batch; divides the batch size of the job file
    grad_accumulation_steps: int  # micro-batches per update
    grad_checkpoint: bool
    max_seq_length: int  # tokens
    learning_rate_factor: float = 1.0
    salt: int = 0  # changes the data order
    segment: int | None = None  # iterations after which the child is ended and resumed
    because: str = "requested"  # the decision that appended it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """The legs so far, in the order in which they were decided."""

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
            segment=spec.lq.segment,
        )
        return cls(legs=(leg,))

    def with_leg(self, leg: Leg) -> Course:
        """Return this course with one more leg."""
        return Course(legs=(*self.legs, leg))

    def at(self, example: int) -> int:
        """Return the index of the leg that holds after so many examples: the last decided that begins by then."""
        return max(index for index, leg in enumerate(self.legs) if leg.first_example <= example)

    def holds_until(self, example: int) -> int | None:
        """Return the next position from which another leg holds; None where this one holds to the end."""
        index = self.at(example)
        later = [leg.first_example for leg in self.legs[index + 1 :] if leg.first_example > example]
        return min(later, default=None)

    def leads_to(self, example: int, leg: int) -> bool:
        """Say whether a state reached on leg number `leg` after so many examples lies on this course.

        A leg decided later that begins earlier has left it behind.
        """
        return leg < len(self.legs) and all(later.first_example >= example for later in self.legs[leg + 1 :])


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
    if not legs or legs[0].first_example != 0:
        raise ConfigInvalid("course.json has no leg that begins at the beginning")
    return Course(legs=legs)
