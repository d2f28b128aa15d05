"""Lengths of runs: `lq.epochs`, and shares in `lr_schedule`."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.load import dump_job, load_frozen, load_jobs
from configs.settings import load_settings
from jobs.model.errors import ConfigInvalid
from tests.unit.configs.conftest import write_rows
from tests.unit.configs.test_load_job import HEAD, load


@pytest.mark.parametrize(
    ("text", "iters"),
    [
        ("batch_size: 4\nlq: {epochs: 3}", 6),  # 8 rows
        ("batch_size: 3\nlq: {epochs: 2}", 4),  # an epoch leaves out the rows that do not fill a batch
        ("batch_size: 2\nlq: {epochs: 0.5}", 2),
        ("batch_size: 4\nlq: {epochs: 0.1}", 1),
        ("batch_size: 2\ngrad_accumulation_steps: 3\nlq: {epochs: 1}", 6),  # whole updates
        ("batch_size: 4\niters: 6\nlq: {epochs: 3}", 6),
        ("batch_size: 4\niters: 6.0\nlq: {epochs: 3}", 6),
        ("batch_size: 4\niters: null\nlq: {epochs: 3}", 6),
    ],
)
def test_epochs_become_iterations(folder: Path, text: str, iters: int) -> None:
    assert load(folder, HEAD + text).spec.iters == iters


def test_epochs_and_other_iters_refused(folder: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(folder, HEAD + "iters: 100\nlq:\n  epochs: 3\n")
    assert "night.yaml:6" in str(caught.value)
    assert "6 iterations" in str(caught.value)


def test_frozen_epochs_can_be_submitted(folder: Path) -> None:
    spec = load(folder, HEAD + "lq: {epochs: 3}").spec
    frozen = folder / "config.yaml"
    frozen.write_text(dump_job(spec))
    assert load_frozen(frozen) == spec
    (again,) = load_jobs(frozen)
    assert (again.spec.iters, again.spec.lq.epochs) == (6, 3)
    write_rows(folder / "data" / "train.jsonl", [{"text": "more"}] * 80)
    assert load_frozen(frozen).iters == 6
    with pytest.raises(ConfigInvalid, match="remove one"):
        load_jobs(frozen)


def test_matrix_can_vary_epochs(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(HEAD + "lq: {matrix: {lq.epochs: [1, 2]}}")
    assert [job.spec.iters for job in load_jobs(folder / "sweep.yaml")] == [2, 4]


def test_epochs_of_a_hub_data_set_refused(folder: Path) -> None:
    with pytest.raises(ConfigInvalid, match="set iters"):
        load(folder, "model: model\nnum_layers: 4\ndata: org/rows\nlq: {epochs: 1}")


@pytest.mark.parametrize("epochs", ["0", "-1", "true", "many", ".inf"])
def test_wrong_epochs_are_refused(folder: Path, epochs: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"lq\.epochs"):
        load(folder, HEAD + f"lq: {{epochs: {epochs}}}")


@pytest.mark.parametrize(
    ("schedule", "warmup", "steps"),
    [
        ("{name: cosine_decay, warmup: 10%, arguments: [1e-4, 100%]}", 20, 180),
        ("{name: cosine_decay, arguments: [1e-4, 50 %, 1e-6]}", 0, 100),
        ("{name: step_decay, warmup: 20, arguments: [1e-4, 0.9, 25%]}", 20, 45),
        ("{name: linear_schedule, warmup: 2.5%, arguments: [1e-4, 0, 100%]}", 5, 195),
    ],
)
def test_shares_become_updates(folder: Path, schedule: str, warmup: int, steps: int) -> None:
    spec = load(folder, HEAD + f"iters: 400\ngrad_accumulation_steps: 2\nlr_schedule: {schedule}").spec
    assert spec.lr_schedule is not None
    assert spec.lr_schedule.warmup == warmup
    assert steps in spec.lr_schedule.arguments


def test_shares_follow_the_epochs(folder: Path) -> None:
    text = "batch_size: 2\nlq: {epochs: 5}\nlr_schedule: {name: cosine_decay, warmup: 10%, arguments: [1e-4, 100%]}"
    spec = load(folder, HEAD + text).spec
    assert spec.lr_schedule is not None
    assert (spec.iters, spec.lr_schedule.warmup, spec.lr_schedule.arguments) == (20, 2, (1e-4, 18))


@pytest.mark.parametrize("warmup", ["110%", "ten%", "'10'"])
def test_wrong_shares_are_refused(folder: Path, warmup: str) -> None:
    schedule = f"{{name: cosine_decay, warmup: {warmup}, arguments: [1e-4, 100]}}"
    with pytest.raises(ConfigInvalid, match=r"lr_schedule\.warmup"):
        load(folder, HEAD + f"lr_schedule: {schedule}")


def test_share_as_a_rate_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"lr_schedule\.arguments"):
        load(folder, HEAD + "lr_schedule: {name: cosine_decay, arguments: [10%, 100]}")


def test_settings_cannot_set_epochs(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("defaults: {epochs: 3}")
    settings.chmod(0o600)
    with pytest.raises(ConfigInvalid, match="epochs"):
        load_settings(settings)
