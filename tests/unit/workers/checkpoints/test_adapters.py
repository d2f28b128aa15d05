"""The published adapter: its weights, and the adapters of other runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.model.errors import CheckpointInvalid
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from tests.unit.workers.tensor_files import held_in, holding, state_at
from workers.checkpoints import storage
from workers.checkpoints.adapters import Published, publish
from workers.checkpoints.publishing import ABOUT, BEST, CONFIG, FINAL
from workers.checkpoints.state import CheckpointState


@pytest.fixture
def job_dir(tmp_path: Path) -> JobDir:
    """Create a job with three checkpoints; the second is the best."""
    folder = JobDir(tmp_path / "job")
    for iteration, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
        save(folder, iteration, loss)
    return folder


def save(folder: JobDir, iteration: int, loss: float | None) -> None:
    folder.path.mkdir(exist_ok=True)

    def fill(where: Path) -> CheckpointState:
        (where / storage.ADAPTERS).write_bytes(holding(f"weights {iteration}".encode()))
        (where / storage.OPTIMIZER).write_bytes(holding(b"moments"))
        return state_at(iteration, examples=iteration * 4, loss=loss)

    storage.write(folder.checkpoints, iteration, fill)


def publish_to(job_dir: JobDir, target: Path | None, *, job_id: int = 7, **spec: Any) -> Published:
    asked = JobSpec(adapter_path=None if target is None else str(target), **spec)
    return publish(job_dir, asked, RunPlan.requested(asked), job_id=job_id)


def weights(path: Path) -> str:
    return held_in(path.read_bytes()).decode()


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_best_and_last_are_published(job_dir: JobDir) -> None:
    done = publish_to(job_dir, None)
    assert (done.best, done.final, done.copied_to, done.set_aside) == (20, 30, None, None)
    assert done.folder == job_dir.adapters
    assert {path.name for path in job_dir.adapters.iterdir()} == {BEST, FINAL, CONFIG, ABOUT}
    assert weights(job_dir.adapters / BEST) == "weights 20"
    assert weights(job_dir.adapters / FINAL) == "weights 30"
    about = json.loads((job_dir.adapters / ABOUT).read_text())
    assert "1.0000 at iteration 20 (2.0000 " in about.pop("why")
    assert about == {
        "version": 1,
        "job": 7,
        "job_dir": str(job_dir.path),
        "best": {"iteration": 20, "validation_loss": 1.0},
        "final": {"iteration": 30, "validation_loss": 2.0},
        "files": {
            name: hashlib.sha256((job_dir.adapters / name).read_bytes()).hexdigest() for name in (BEST, FINAL, CONFIG)
        },
    }


def test_adapters_are_hard_links(job_dir: JobDir) -> None:
    publish_to(job_dir, None)
    for name, iteration in ((BEST, 20), (FINAL, 30)):
        original = job_dir.checkpoints / f"step-{iteration:07d}" / storage.ADAPTERS
        assert (job_dir.adapters / name).samefile(original)


def test_last_is_best_without_validation(tmp_path: Path) -> None:
    folder = JobDir(tmp_path / "job")
    save(folder, 10, None)
    save(folder, 20, None)
    done = publish_to(folder, None)
    assert (done.best, done.final) == (20, 20)
    assert weights(folder.adapters / BEST) == weights(folder.adapters / FINAL) == "weights 20"


def test_publishing_twice_changes_nothing(job_dir: JobDir, tmp_path: Path) -> None:
    target = tmp_path / "published"
    first = publish_to(job_dir, target)
    before = content(job_dir.adapters), content(target)
    assert publish_to(job_dir, target) == first
    assert (content(job_dir.adapters), content(target)) == before


def test_more_training_updates_adapter(job_dir: JobDir) -> None:
    publish_to(job_dir, None)
    save(job_dir, 40, 0.5)
    publish_to(job_dir, None)
    assert weights(job_dir.adapters / BEST) == "weights 40"
    assert weights(job_dir.checkpoints / "step-0000020" / storage.ADAPTERS) == "weights 20"


def test_adapter_path_gets_a_copy(job_dir: JobDir, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "published"
    done = publish_to(job_dir, target)
    assert (done.copied_to, done.set_aside) == (target, None)
    assert content(target) == content(job_dir.adapters)
    (target / BEST).write_text("changed by the user")
    assert weights(job_dir.adapters / BEST) == "weights 20"


def test_foreign_adapter_is_moved(job_dir: JobDir, tmp_path: Path) -> None:
    target = tmp_path / "published"
    target.mkdir()
    for name in (BEST, CONFIG, "notes.txt"):
        (target / name).write_text(f"old {name}")
    done = publish_to(job_dir, target)
    assert done.set_aside == target / "before-job-7"
    assert content(target / "before-job-7") == {BEST: f"old {BEST}", CONFIG: f"old {CONFIG}"}
    assert weights(target / BEST) == "weights 20"
    assert (target / "notes.txt").read_text() == "old notes.txt"


def test_adapter_of_other_job_is_moved(job_dir: JobDir, tmp_path: Path) -> None:
    target = tmp_path / "published"
    other = JobDir(tmp_path / "other")  # of another home with the same ids
    save(other, 10, None)
    publish_to(other, target, job_id=7)
    done = publish_to(job_dir, target, job_id=7)
    assert done.set_aside == target / "before-job-7"
    assert json.loads((target / "before-job-7" / ABOUT).read_text())["job_dir"] == str(other.path)
    assert json.loads((target / ABOUT).read_text())["job_dir"] == str(job_dir.path)


def test_publish_after_killed_publication(job_dir: JobDir) -> None:
    job_dir.adapters.mkdir()
    (job_dir.adapters / f".{BEST}.partial").write_text("half")
    publish_to(job_dir, None)
    assert {path.name for path in job_dir.adapters.iterdir()} == {BEST, FINAL, CONFIG, ABOUT}


def test_damaged_checkpoint_is_not_published(job_dir: JobDir) -> None:
    for iteration in (20, 30):
        (job_dir.checkpoints / f"step-{iteration:07d}" / storage.ADAPTERS).write_text("damaged")
    done = publish_to(job_dir, None)
    assert (done.best, done.final) == (10, 10)
    assert weights(job_dir.adapters / BEST) == "weights 10"


def test_no_valid_checkpoint_raises(job_dir: JobDir) -> None:
    for checkpoint in storage.listed(job_dir.checkpoints):
        checkpoint.optimizer.unlink()
    with pytest.raises(CheckpointInvalid, match="step-0000030/optimizer"):
        publish_to(job_dir, None)
    assert not job_dir.adapters.exists()


def test_config_has_mlx_lm_keys(job_dir: JobDir) -> None:
    publish_to(job_dir, None, fine_tune_type="dora", num_layers=4, lora_parameters={"rank": 4, "scale": 2.0})
    config = json.loads((job_dir.adapters / CONFIG).read_text())
    assert config["fine_tune_type"] == "dora"
    assert config["num_layers"] == 4
    assert config["lora_parameters"] == {"rank": 4, "scale": 2.0, "dropout": 0.0}
    assert "lq" not in config


def test_full_fine_tuning_config(job_dir: JobDir) -> None:
    publish_to(job_dir, None, fine_tune_type="full")
    assert json.loads((job_dir.adapters / CONFIG).read_text())["lora_parameters"] is None
