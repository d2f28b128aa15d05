"""What a rehearsal says of a run: how long it takes, and whether it would fail."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimates import dry_run
from jobs.estimates.dry_run import Failure, Tried
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec

TRIED = Tried(
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


def tried(**changes: Any) -> Tried:
    return dataclasses.replace(TRIED, **changes)


def spec(**keys: Any) -> JobSpec:
    return JobSpec(**({"iters": 1000, "steps_per_eval": 200, "save_every": 100} | keys))


def failures(
    ending: Ending | None = DONE,
    seen: Tried | None = TRIED,
    *,
    peak: int | None = 1_000,
    limit: int | None = 10_000,
    shortage: str | None = None,
    stage: Stage | None = None,
    **keys: Any,
) -> list[Failure]:
    job = spec(**keys)
    return dry_run.failures(
        job,
        stage or RunPlan.requested(job).stages[0],
        ending,
        seen,
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
        ({"first_update_s": 60.0}, 2.0),  # compiling is no part of the speed
    ],
)
def test_the_speed_is_that_of_the_mean_batch_without_compiling(changes: dict[str, Any], it_s: float) -> None:
    assert tried(**changes).it_s == pytest.approx(it_s)


# --- time ---


def test_a_whole_run_is_start_training_validations_and_checkpoints() -> None:
    found = dry_run.forecast(spec(), TRIED)
    assert found.iterations == 1000
    assert found.train_s == pytest.approx(500.0)
    assert (found.validations, found.validation_s) == (6, 120.0)  # at 0, 200, …, 1000
    assert (found.checkpoints, found.checkpoint_s) == (10, 10.0)  # each validation falls on one of save_every
    assert (found.starts, found.start_s) == (1, 12.5)  # 10 s, and 2.5 s of compiling
    assert found.total_s == pytest.approx(642.5)


@pytest.mark.parametrize(
    ("keys", "changes", "iterations", "validations", "checkpoints"),
    [
        ({}, {"iteration": 500}, 500, 3, 5),  # 600, 800, 1000; what was done is done
        ({}, {"iteration": 1000}, 0, 0, 0),
        ({"steps_per_eval": 300}, {}, 1000, 5, 10),  # 0, 300, 600, 900, the end; all of them multiples of save_every
        ({"steps_per_eval": 250}, {}, 1000, 5, 12),  # 250 and 750 are no multiples of save_every
        ({"iters": 1050}, {}, 1050, 7, 11),
        ({"iters": 1200, "save_every": 500}, {}, 1200, 7, 7),  # 200, 400, 500, 600, 800, 1000, 1200
        ({}, {"validation_s": None}, 1000, 0, 10),
        ({"iters": 7, "save_every": 100, "steps_per_eval": 200}, {}, 7, 2, 1),
    ],
)
def test_what_is_due_is_counted(
    keys: dict[str, Any], changes: dict[str, Any], iterations: int, validations: int, checkpoints: int
) -> None:
    found = dry_run.forecast(spec(**keys), tried(**changes))
    assert (found.iterations, found.validations) == (iterations, validations)
    assert found.checkpoints == checkpoints == expected_saves(spec(**keys), tried(**changes))


def expected_saves(job: JobSpec, seen: Tried) -> int:
    """Count them as workers/mlx/run.py decides, iteration by iteration."""
    due = 0
    for iteration in range(seen.iteration + 1, job.iters + 1):
        validated = seen.validation_s is not None and (iteration % job.steps_per_eval == 0 or iteration == job.iters)
        due += validated or iteration % job.save_every == 0 or iteration == job.iters
    return due


@given(
    iters=st.integers(1, 400),
    save=st.integers(1, 120),
    every=st.integers(1, 120),
    share=st.floats(0, 1),
    validates=st.booleans(),
)
def test_checkpoints_and_validations_are_counted_as_the_trainer_makes_them(
    iters: int, save: int, every: int, share: float, validates: bool
) -> None:
    job = spec(iters=iters, save_every=save, steps_per_eval=every)
    seen = tried(iteration=int(share * (iters - 1)), validation_s=1.0 if validates else None)
    found = dry_run.forecast(job, seen)
    assert found.checkpoints == expected_saves(job, seen)
    due = [one for one in range(seen.iteration + 1, iters + 1) if one % every == 0 or one == iters]
    assert found.validations == (len(due) + (seen.iteration == 0) if validates else 0)


def test_a_slow_run_has_a_checkpoint_every_ten_minutes() -> None:
    found = dry_run.forecast(spec(), tried(update_s=60.0))
    assert found.checkpoints == 100


def test_segments_each_cost_a_start() -> None:
    found = dry_run.forecast(spec(lq={"segment": 300}), TRIED)
    assert (found.starts, found.start_s) == (4, 50.0)


def test_the_test_set_is_measured_before_and_after() -> None:
    assert dry_run.forecast(spec(), tried(test_s=5.0)).test_s == 15.0
    assert dry_run.forecast(spec(), tried(test_s=5.0, iteration=10)).test_s == 10.0


# --- what fails ---


def test_a_run_that_fits_and_whose_losses_are_finite_does_not_fail() -> None:
    assert failures() == []


@pytest.mark.parametrize(("peak", "limit", "ok"), [(9_200, 10_000, True), (9_201, 10_000, False), (None, 10, True)])
def test_a_run_the_memory_guard_would_stop_does_not_fit(peak: int | None, limit: int, ok: bool) -> None:
    found = failures(peak=peak, limit=limit)
    assert [one.code for one in found] == ([] if ok else ["out_of_memory"])


def test_what_does_not_fit_comes_with_what_lq_would_try() -> None:
    (found,) = failures(peak=2_000_000_000, limit=1_000_000_000)
    assert found.text == (
        "does not fit: it took 2.00 GB, more than 92% of its limit of 1.00 GB; "
        "lq would try next: gradient checkpointing on"
    )
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
def test_a_rehearsal_that_does_not_come_to_its_end_fails_for_its_reason(reason: Reason, outcome: Outcome) -> None:
    ending = Ending(outcome=outcome, reason=reason, detail="why")
    (found,) = failures(ending, None, peak=100, limit=1)
    assert found.code == reason
    assert found.text.startswith("why")
    assert ("lq would try next" in found.text) == (reason is Reason.OUT_OF_MEMORY)


def test_losses_that_are_not_finite_fail_with_the_rows() -> None:
    found = failures(seen=tried(not_finite=("the loss of a batch is nan; by itself not finite: train.jsonl:3",)))
    assert [(one.code, one.text) for one in found] == [
        ("not_finite", "the loss of a batch is nan; by itself not finite: train.jsonl:3")
    ]
    assert [one.text for one in failures(seen=tried(validation_loss=math.inf))] == ["the validation loss is inf"]
    assert failures(seen=tried(validation_loss=None)) == []


def test_too_little_space_fails() -> None:
    (found,) = failures(shortage="the run may take 3 GB")
    assert (found.code, found.text) == ("disk_full", "the run may take 3 GB")
