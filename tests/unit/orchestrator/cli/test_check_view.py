"""The view of `lq check`: one dry run that would run, one that would fail, and the total."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.estimates.cautions import Caution, DataSummary
from jobs.estimates.disk import SpaceNeed
from jobs.estimates.dry_run import DryRunFailure, DryRunMeasurements, estimated_time
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from orchestrator.cli.views.check import render, total
from orchestrator.cli.views.terminal import UNCUT
from orchestrator.planning.dry_run import DryRunRequest, DryRunResult, Timetable
from tests.unit.orchestrator.cli_homes import NOW
from tests.unit.orchestrator.rendering import assert_view

SPEC = JobSpec(model="/models/tiny", data="/data/qa", iters=1000, lq={"name": "night"})
MEASURED = DryRunMeasurements(
    iteration=0, updates=4, accumulation=1, first_update_s=12.0, update_s=0.5, positions=2048.0, mean_positions=1024.0,
    start_s=8.0, validation_s=6.0, validation_loss=2.5, test_s=None, checkpoint_s=0.25, checkpoint_bytes=12_000_000,
    not_finite=(),
)  # fmt: skip
DATA = DataSummary(
    rows=960, truncated=3, unsupervised=0, padding_share=0.125, batches_per_epoch=240, valid_rows=60, also_trained=0,
    nearly_trained=0,
)  # fmt: skip
TIMES = Timetable(begins_at=NOW, ends_at=NOW + 3600, due_at=None)


def result(**fields: Any) -> DryRunResult:
    """Return a dry run that found no reason to fail."""
    request = DryRunRequest(
        file="night.yaml",
        job=None,
        spec=SPEC,
        run_plan=RunPlan.requested(SPEC),
        need=SpaceNeed(adapter=10**7, optimizer=2 * 10**7, checkpoints=3, adapters=1, log=10**6),
        notes=("adapter_path is not set; the adapter stays in the job folder",),
    )
    usual: dict[str, Any] = {
        "request": request,
        "ending": None,
        "measured": MEASURED,
        "peak_bytes": 7 * 10**9,
        "limit_bytes": 10**10,
        "data": DATA,
        "time": estimated_time(SPEC, MEASURED),
        "failures": (),
        "cautions": (Caution(code="learning_rate", text="learning_rate 0.1 is unusually high for lora"),),
    }
    return DryRunResult(**usual | fields)


FAILED = result(
    measured=None,
    peak_bytes=None,
    time=None,
    cautions=(),
    failures=(DryRunFailure(code="out_of_memory", text="the longest batch needs more than lq.memory.limit"),),
)


@pytest.mark.parametrize("width", [60, 80, UNCUT])
def test_check_view_matches_golden(utc: None, width: int) -> None:
    name = "pipe" if width == UNCUT else str(width)
    assert_view(render(result(), TIMES, disk_free=10**11, now=NOW), f"check_{name}", width)


def test_failed_check_matches_golden(utc: None) -> None:
    times = Timetable(begins_at=None, ends_at=None, due_at=None)
    assert_view(render(FAILED, times, disk_free=10**11, now=NOW), "check_failed", 80)


def test_total_counts_jobs_that_would_run(utc: None) -> None:
    never = Timetable(begins_at=None, ends_at=None, due_at=None)
    text = total([result(), result(), FAILED], [TIMES, TIMES, never], slots=1, now=NOW)
    assert text.startswith("2 jobs")
    assert "23:00" in text
    assert "without 1 job" in text
    assert total([FAILED], [never], slots=1, now=NOW) == "none of them would run"
