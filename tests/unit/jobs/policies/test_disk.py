"""The disk-full rule."""

from __future__ import annotations

import pytest

from jobs.model.outcomes import Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies import disk
from jobs.policies.disk import LEAST_FREE_BYTES, RETRY_EVERY_S, DiskSpace

GB = 1 << 30


@pytest.mark.parametrize(
    ("checkpoint", "floor", "required"),
    [(0, 0, LEAST_FREE_BYTES), (GB, 0, 3 * GB), (GB, 5 * GB, 5 * GB), (2 * GB, 5 * GB, 6 * GB)],
)
def test_required_space(checkpoint: int, floor: int, required: int) -> None:
    assert disk.required_free(checkpoint=checkpoint, floor=floor) == required
    assert DiskSpace(free=required, checkpoint=checkpoint, floor=floor).enough
    assert not DiskSpace(free=required - 1, checkpoint=checkpoint, floor=floor).enough


def test_resume_needs_one_checkpoint_more() -> None:
    assert not DiskSpace(free=3 * GB, checkpoint=GB, floor=0).enough_to_resume
    assert DiskSpace(free=4 * GB, checkpoint=GB, floor=0).enough_to_resume


def test_least_keep_has_newest_and_best() -> None:
    spec = JobSpec(lq={"keep": {"last": 5, "best": 3, "milestones": "20%"}})
    least = disk.keep_least(spec)
    assert (least.lq.keep.last, least.lq.keep.best, least.lq.keep.milestones) == (1, 1, "20%")
    assert least.model_copy(update={"lq": spec.lq}) == spec


def test_wait_for_space_has_evidence() -> None:
    space = DiskSpace(free=1, checkpoint=0, floor=GB)
    decision = disk.wait_for_space("full", space.evidence, now=100.0)
    assert (decision.status, decision.reason) == (Status.WAITING, Reason.DISK_FULL)
    assert decision.not_before == 100.0 + RETRY_EVERY_S
    assert decision.evidence == {"free_disk_bytes": 1, "required_disk_bytes": GB}
