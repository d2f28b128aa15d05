"""Warnings about a run that would not fail."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from jobs.estimates import cautions
from jobs.estimates.cautions import DataSummary
from jobs.model.spec import JobSpec

SOUND = DataSummary(
    rows=1000,
    truncated=0,
    unsupervised=0,
    padding_share=0.1,
    batches_per_epoch=250,
    valid_rows=100,
    also_trained=0,
    nearly_trained=0,
)


def spec(**keys: Any) -> JobSpec:
    return JobSpec(**({"iters": 1000} | keys))


def warnings(job: JobSpec, data: DataSummary = SOUND) -> dict[str, str]:
    return {one.code: one.text for one in (*cautions.of_settings(job), *cautions.of_data(job, data))}


def test_usual_run_has_no_warnings() -> None:
    assert warnings(spec()) == {}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"learning_rate": 1e-3}, None),
        ({"learning_rate": 1.1e-3}, "reaches 0.0011, above 0.001: usual for lora with Adam are 1e-06 to 0.001"),
        ({"learning_rate": 1e-6}, None),
        ({"learning_rate": 9e-7}, "reaches 9e-07, below 1e-06"),
        ({"learning_rate": 2e-3, "fine_tune_type": "dora"}, "usual for dora with Adam"),
        ({"learning_rate": 1e-4, "fine_tune_type": "full"}, None),
        ({"learning_rate": 1e-3, "fine_tune_type": "full"}, "usual for full fine-tuning with Adam are 1e-07 to 0.0001"),
        ({"learning_rate": 1e-7, "fine_tune_type": "full"}, None),
        ({"learning_rate": 1e-2, "optimizer": "sgd"}, None),  # Adam's range is not every optimizer's
        ({"learning_rate": 1e-2, "optimizer": "muon"}, None),
        ({"learning_rate": 1e-2, "optimizer": "adamw", "grad_accumulation_steps": 8}, "an update averages 32 rows"),
        # the schedule's peak counts, not the rate it takes the place of
        ({"learning_rate": 1.0, "lr_schedule": {"name": "cosine_decay", "arguments": [1e-4, 1000]}}, None),
        ({"lr_schedule": {"name": "cosine_decay", "arguments": [1e-2, 1000]}}, "reaches 0.01, above"),
    ],
)
def test_unusual_learning_rate_is_reported(keys: dict[str, Any], says: str | None) -> None:
    text = warnings(spec(**keys)).get("learning_rate")
    assert (text is None) if says is None else (text is not None and says in text)


@pytest.mark.parametrize(
    ("warmup", "steps", "accumulation", "says"),
    [
        (100, 900, 1, None),
        (0, 2000, 1, None),
        (0, 2001, 1, "the schedule ends after 2,001 updates, but the run makes 1,000 updates (1,000 iterations / 1)"),
        (0, 1000, 8, "ends after 1,000 updates, but the run makes 125 updates (1,000 iterations / 8)"),
        (125, 1000, 8, "the warm-up lasts 125 updates, but the run makes 125"),
    ],
)
def test_schedule_longer_than_the_run(warmup: int, steps: int, accumulation: int, says: str | None) -> None:
    schedule = {"name": "cosine_decay", "arguments": [1e-4, steps], "warmup": warmup}
    text = warnings(spec(lr_schedule=schedule, grad_accumulation_steps=accumulation)).get("schedule")
    assert (text is None) if says is None else (text is not None and says in text)


@pytest.mark.parametrize(
    ("change", "keys", "code", "says"),
    [
        ({"batches_per_epoch": 50}, {}, None, ""),
        ({"batches_per_epoch": 49}, {}, "epochs", "20 times through the training set; 20 times are 980 iterations"),
        ({"batches_per_epoch": 10}, {}, "epochs", "100 times through"),
        ({"unsupervised": 1}, {}, "unsupervised", "1 of 1,000 training rows have no token to learn"),
        ({"truncated": 10}, {}, None, ""),
        ({"truncated": 11}, {}, "truncated", "11 training rows (1%) are longer than 2,048 tokens"),
        ({"valid_rows": 50}, {}, None, ""),
        ({"valid_rows": 49}, {}, "few_validation_rows", "49 validation rows are few"),
        ({"valid_rows": 0}, {}, "no_validation", "no validation set"),
        ({}, {"val_batches": 0}, "no_validation", "val_batches is 0"),
        ({}, {"val_batches": 5}, "few_validation_rows", "val_batches 5 leaves out the other 80"),
        ({"also_trained": 1}, {}, "duplicates", "1 of 100 validation rows are training rows too: "),
        ({"also_trained": 1, "nearly_trained": 3}, {}, "duplicates", "too and 3 nearly: "),
        ({"nearly_trained": 3}, {}, "duplicates", "0 of 100"),
        ({"nearly_trained": None}, {}, None, ""),
    ],
)
def test_unusual_data_is_reported(change: dict[str, Any], keys: dict[str, Any], code: str | None, says: str) -> None:
    found = warnings(spec(**keys), dataclasses.replace(SOUND, **change))
    assert set(found) == ({code} if code is not None else set())
    assert code is None or says in found[code]


@pytest.mark.parametrize(("ends_at", "due_at", "late"), [(10.0, None, False), (10.0, 10.0, False), (10.1, 10.0, True)])
def test_missed_deadline_is_a_warning(ends_at: float, due_at: float | None, late: bool) -> None:
    found = cautions.of_time(ends_at, due_at, ends="08:00", due="07:30")
    assert [caution.code for caution in found] == (["deadline"] if late else [])
