"""The disk-full rule (docs/explanation/policies.md, section 6): how much must stay free, and what lq does below it.

While a job trains, lq checks the free space every `CHECK_EVERY_S`. Below `required`, lq first deletes all checkpoints
except the newest and the best one. If that is not enough, the trainer writes a checkpoint and stops, and the job waits.
lq checks every `RETRY_EVERY_S` and resumes the job with space for one more checkpoint, so that it does not stop again
soon. A submit needs `required_free` in addition to the files of the job.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from jobs.policies.decision import Decision

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

CHECK_EVERY_S = 2.0
RETRY_EVERY_S = 60.0
CHECKPOINTS_AHEAD = 3
LEAST_FREE_BYTES = 64 << 20
"""Reserve for events, logs and the store if checkpoints are small or not written yet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """The free space of a job's disk, and what decides how much must stay free."""

    free: int  # bytes
    checkpoint: int  # bytes of the last checkpoint; 0 before the first one
    floor: int  # bytes that must stay free by the settings

    @property
    def required(self) -> int:
        """Bytes that must stay free while the job trains."""
        return required_free(checkpoint=self.checkpoint, floor=self.floor)

    @property
    def enough(self) -> bool:
        """Whether a job may continue to train."""
        return self.free >= self.required

    @property
    def enough_to_resume(self) -> bool:
        """Whether a job that waits for space may start again."""
        return self.free >= self.required + self.checkpoint

    @property
    def evidence(self) -> dict[str, int]:
        """The numbers that the rule compared, in bytes."""
        return {"free_disk_bytes": self.free, "required_disk_bytes": self.required}


def required_free(*, checkpoint: int, floor: int) -> int:
    """Return the bytes that must stay free for a job whose checkpoints have this size."""
    return max(CHECKPOINTS_AHEAD * checkpoint, LEAST_FREE_BYTES, floor)


def keep_least(spec: JobSpec) -> JobSpec:
    """Return a spec that keeps only the newest and the best checkpoint; milestones stay as adapters."""
    keep = spec.lq.keep.model_copy(update={"last": 1, "best": 1})
    return spec.model_copy(update={"lq": spec.lq.model_copy(update={"keep": keep})})


def wait_for_space(detail: str, evidence: Mapping[str, object], *, now: float) -> Decision:
    """Return the decision that a job waits for free space; `now` is in unix seconds."""
    return Decision(
        status=Status.WAITING,
        reason=Reason.DISK_FULL,
        detail=detail,
        not_before=now + RETRY_EVERY_S,
        answer="waits for free disk space",
        evidence=evidence,
    )
