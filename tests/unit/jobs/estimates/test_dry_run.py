"""What a dry run shows of a run: its speed and time, and whether it would fail."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimates import dry_run
from jobs.estimates.dry_run import DryRunFailure, DryRunMeasurements
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec

TRIED = DryRunMeasurements(
    iteration=0,
    updates=3,
    accumulation=1,
    first_update_s=3.0,
    update_s=0.5,
    positions=1000.0,
    mean_positions=1000.0,
    start_s=10.0,
    validation_s=20.0,
    validation_loss=1.5,
    test_s=None,
    checkpoint_s=1.0,
    checkpoint_bytes=1000,
    not_finite=(),
)
DONE = Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="")


def tried(**changes: Any) -> DryRunMeasurements:
    return dataclasses.replace(TRIED, **changes)


def spec(**keys: Any) -> JobSpec:
    return JobSpec(**({"iters": 1000, "steps_per_eval": 200, "save_every": 100} | keys))


def failures(
    ending: Ending | None = DONE,
    measured: DryRunMeasurements | None = TRIED,
    *,
    peak: int | None = 1_000,
    limit: int | None = 10_000,
    shortage: str | None = None,
    stage: Stage | None = None,
    **keys: Any,
) -> list[DryRunFailure]:
    job = spec(**keys)
    return dry_run.failures(
        job,
        stage or RunPlan.requested(job).stages[0],
        ending,
        measured,
        peak_bytes=peak,
        limit_bytes=limit,
        shortage=shortage,
    )


# --- speed ---


@pytest.mark.parametrize(
    ("changes", "it_s"),
    [
        ({}, 2.0),
        ({"accumulation": 4}, 8.0),  # an update of four iterations
        ({"mean_positions": 2000.0}, 1.0),  # the run's mean batch is twice as wide
        ({"mean_positions": 500.0}, 4.0),
        ({"first_update_s": 60.0}, 2.0),  # the speed excludes compiling
    ],
)
def test_mean_batch_speed_omits_compiling(changes: dict[str, Any], it_s: float) -> None:
    assert tried(**changes).it_s == pytest.approx(it_s)


# --- time ---


def test_time_adds_up_all_phases() -> None:
    found = dry_run.estimated_time(spec(), TRIED)
    assert found.iterations == 1000
    assert found.train_s == pytest.approx(500.0)
    assert (found.validations, found.validation_s) == (6, 120.0)  # at 0, 200, …, 1000
    assert (found.checkpoints, found.checkpoint_s) == (10, 10.0)  # each validation falls on one of save_every
    assert (found.starts, found.start_s) == (1, 12.5)  # 10 s, and 2.5 s of compiling
    assert found.expected_s == pytest.approx(642.5)


@pytest.mark.parametrize(
    ("keys", "changes", "iterations", "validations", "checkpoints"),
    [
        ({}, {"iteration": 500}, 500, 3, 5),  # 600, 800, 1000; what was done is done
        ({}, {"iteration": 1000}, 0, 0, 0),
        ({"steps_per_eval": 300}, {}, 1000, 5, 10),  # 0, 300, 600, 900, the end; all of them multiples of save_every
        ({"steps_per_eval": 250}, {}, 1000, 5, 12),  # 250 and 750 are not multiples of save_every
        ({"iters": 1050}, {}, 1050, 7, 11),
        ({"iters": 1200, "save_every": 500}, {}, 1200, 7, 7),  # 200, 400, 500, 600, 800, 1000, 1200
        ({}, {"validation_s": None}, 1000, 0, 10),
        ({"iters": 7, "save_every": 100, "steps_per_eval": 200}, {}, 7, 2, 1),
    ],
)
def test_validations_and_saves_are_counted(
    keys: dict[str, Any], changes: dict[str, Any], iterations: int, validations: int, checkpoints: int
) -> None:
    found = dry_run.estimated_time(spec(**keys), tried(**changes))
    assert (found.iterations, found.validations) == (iterations, validations)
    assert found.checkpoints == checkpoints == expected_saves(spec(**keys), tried(**changes))


def expected_saves(job: JobSpec, measured: DryRunMeasurements) -> int:
    """Count them as workers/mlx/run.py decides, iteration by iteration."""
    due = 0
    for iteration in range(measured.iteration + 1, job.iters + 1):
        last = iteration == job.iters
        validated = measured.validation_s is not None and (iteration % job.steps_per_eval == 0 or last)
        due += validated or iteration % job.save_every == 0 or last
    return due


@given(
    iters=st.integers(1, 400),
    save=st.integers(1, 120),
    every=st.integers(1, 120),
    share=st.floats(0, 1),
    validates=st.booleans(),
)
def test_counts_match_the_trainer(iters: int, save: int, every: int, share: float, validates: bool) -> None:
    job = spec(iters=iters, save_every=save, steps_per_eval=every)
    measured = tried(iteration=int(share * (iters - 1)), validation_s=1.0 if validates else None)
    found = dry_run.estimated_time(job, measured)
    assert found.checkpoints == expected_saves(job, measured)
    due = [one for one in range(measured.iteration + 1, iters + 1) if one % every == 0 or one == iters]
    assert found.validations == (len(due) + (measured.iteration == 0) if validates else 0)


def test_slow_run_saves_every_ten_minutes() -> None:
    found = dry_run.estimated_time(spec(), tried(update_s=60.0))
    assert found.checkpoints == 100


def test_each_segment_costs_a_start() -> None:
    found = dry_run.estimated_time(spec(lq={"segment": 300}), TRIED)
    assert (found.starts, found.start_s) == (4, 50.0)


# --- what fails ---


def test_sound_run_has_no_failures() -> None:
    assert failures() == []


@pytest.mark.parametrize(("peak", "limit", "ok"), [(9_200, 10_000, True), (9_201, 10_000, False), (None, 10, True)])
def test_peak_above_guard_share_fails(peak: int | None, limit: int, ok: bool) -> None:
    found = failures(peak=peak, limit=limit)
    assert [one.code for one in found] == ([] if ok else ["out_of_memory"])


def test_no_fit_names_the_next_step() -> None:
    (found,) = failures(peak=2_000_000_000, limit=1_000_000_000)
    assert re.findall(r"[\d.]+ GB|\d+%", found.text) == ["2.00 GB", "92%", "1.00 GB"]
    assert found.text.endswith("try next: gradient checkpointing on")
    (last,) = failures(peak=2, limit=1, batch_size=1, grad_checkpoint=True)
    assert "lower max_seq_length (2048)" in last.text


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Reason.OUT_OF_MEMORY, Outcome.CRASHED),
        (Reason.CRASHED, Outcome.CRASHED),
        (Reason.STALLED, Outcome.CRASHED),
        (Reason.DATA_INVALID, Outcome.REFUSED),
        (Reason.CONFIG_INVALID, Outcome.REFUSED),
        (Reason.STOPPED_BY_USER, Outcome.STOPPED),
    ],
)
def test_incomplete_dry_run_fails_by_reason(reason: Reason, outcome: Outcome) -> None:
    ending = Ending(outcome=outcome, reason=reason, detail="why")
    (found,) = failures(ending, None, peak=100, limit=1)
    assert found.code == reason
    assert found.text.startswith("why")
    assert ("lq would try next" in found.text) == (reason is Reason.OUT_OF_MEMORY)


def test_non_finite_losses_name_their_rows() -> None:
    reported = "the loss of a batch is nan; by itself not finite: train.jsonl:3"
    found = failures(measured=tried(not_finite=(reported,)))
    assert [(one.code, one.text) for one in found] == [("not_finite", reported)]
    assert [one.text for one in failures(measured=tried(validation_loss=math.inf))] == ["the validation loss is inf"]
    assert failures(measured=tried(validation_loss=None)) == []


def test_too_little_disk_space_fails() -> None:
    (found,) = failures(shortage="the run may take 3 GB")
    assert (found.code, found.text) == ("disk_full", "the run may take 3 GB")
