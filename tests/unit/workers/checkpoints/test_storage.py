"""Checkpoints: written atomically, and not used if a bit is wrong."""

from __future__ import annotations

import json
import math
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.model.errors import CheckpointInvalid
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from tests.unit.workers.tensor_files import held_in, holding, state_at
from workers.checkpoints import storage
from workers.checkpoints.state import CheckpointState
from workers.checkpoints.storage import (
    ADAPTERS,
    MANIFEST,
    OPTIMIZER,
    STATE,
    Checkpoint,
    best_valid,
    listed,
    listed_bad,
    newest_valid,
    sweep,
    verify,
    write,
)

BATCH = 4
RUN_PLAN = RunPlan.requested(JobSpec(batch_size=BATCH))
WHOLE = len(holding(b"weights" * 100))


def save(folder: Path, iteration: int, *, loss: float | None = None, weights: bytes = b"weights") -> Checkpoint:
    """Write a checkpoint with these weights and this validation."""

    def fill(where: Path) -> CheckpointState:
        (where / ADAPTERS).write_bytes(holding(weights * 100))
        (where / OPTIMIZER).write_bytes(holding(b"moments" * 100))
        return state_at(iteration, examples=iteration * BATCH, loss=loss)

    checkpoint, _ = write(folder, iteration, fill)
    return checkpoint


def newest(folder: Path) -> int | None:
    newest, _ = newest_valid(folder, RUN_PLAN)
    return None if newest is None else newest.iteration


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_write_complete_checkpoint(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 500, loss=2.5)
    verify(checkpoint)
    assert checkpoint == Checkpoint(path=tmp_path / "step-0000500", iteration=500)
    assert names(tmp_path) == ["step-0000500"]
    assert names(checkpoint.path) == [ADAPTERS, MANIFEST, OPTIMIZER, STATE]
    assert checkpoint.state() == state_at(500, examples=2000, loss=2.5)
    assert newest_valid(tmp_path, RUN_PLAN) == (checkpoint, [])


def test_write_returns_size(tmp_path: Path) -> None:
    adapters, optimizer = holding(b"a" * 1000), holding(b"b" * 234)

    def fill(where: Path) -> CheckpointState:
        (where / ADAPTERS).write_bytes(adapters)
        (where / OPTIMIZER).write_bytes(optimizer)
        return state_at(1)

    checkpoint, size = write(tmp_path, 1, fill)
    assert size == len(adapters) + len(optimizer) + (checkpoint.path / STATE).stat().st_size


def test_checkpoint_is_private(tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoints", 1)
    assert stat.S_IMODE(checkpoint.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in checkpoint.path.iterdir()} == {0o600}


def test_nan_loss_can_be_stored(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1, loss=math.nan)
    assert '"nan"' in (checkpoint.path / STATE).read_text()
    state = checkpoint.state()
    assert state.validation is not None
    assert math.isnan(state.validation.loss)
    assert state.validation_loss is None


def test_no_checkpoints(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "none yet", RUN_PLAN) == (None, [])
    assert best_valid(tmp_path / "none yet", RUN_PLAN) == (None, [])


def test_checkpoints_ordered_by_iteration(tmp_path: Path) -> None:
    for iteration in (9_999_999, 12_345_678, 3):
        save(tmp_path, iteration)
    for foreign in ("step-1", "step-00000x1", "stop-0000001", ".step-0000009.partial"):
        (tmp_path / foreign).mkdir()
    (tmp_path / "step-0000004").write_text("a file, not a folder")
    assert [checkpoint.iteration for checkpoint in listed(tmp_path)] == [3, 9_999_999, 12_345_678]


def truncate(checkpoint: Checkpoint) -> None:
    checkpoint.adapters.write_bytes(checkpoint.adapters.read_bytes()[:-1])


def flip(checkpoint: Checkpoint) -> None:
    content = bytearray(checkpoint.optimizer.read_bytes())
    content[350] ^= 1
    checkpoint.optimizer.write_bytes(content)


def lose_weights(checkpoint: Checkpoint) -> None:
    checkpoint.adapters.unlink()


def lose_state(checkpoint: Checkpoint) -> None:
    (checkpoint.path / STATE).unlink()


def lose_manifest(checkpoint: Checkpoint) -> None:
    (checkpoint.path / MANIFEST).unlink()


def empty_manifest(checkpoint: Checkpoint) -> None:
    (checkpoint.path / MANIFEST).write_text("")


def manifest_of_nothing(checkpoint: Checkpoint) -> None:
    edit_json(checkpoint.path / MANIFEST, files={})


def manifest_without_weights(checkpoint: Checkpoint) -> None:
    files = json.loads((checkpoint.path / MANIFEST).read_text())["files"]
    del files[ADAPTERS]
    edit_json(checkpoint.path / MANIFEST, files=files)


def manifest_without_sizes(checkpoint: Checkpoint) -> None:
    files = json.loads((checkpoint.path / MANIFEST).read_text())["files"]
    edit_json(checkpoint.path / MANIFEST, files={name: {"sha256": entry["sha256"]} for name, entry in files.items()})


def newer_manifest(checkpoint: Checkpoint) -> None:
    edit_json(checkpoint.path / MANIFEST, version=2)


def change_state(checkpoint: Checkpoint) -> None:
    edit_json(checkpoint.path / STATE, random_key=[0, 8])


def a_folder_in_its_place(checkpoint: Checkpoint) -> None:
    checkpoint.adapters.unlink()
    checkpoint.adapters.mkdir()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (truncate, f"adapters.safetensors has {WHOLE - 1} bytes"),
        (flip, "optimizer.safetensors is damaged"),
        (lose_weights, "adapters.safetensors is missing"),
        (lose_state, "state.json is missing"),
        (lose_manifest, "manifest.json cannot be read"),
        (empty_manifest, "manifest.json cannot be read"),
        (manifest_of_nothing, "manifest.json is damaged"),
        (manifest_without_weights, "manifest.json is damaged"),
        (manifest_without_sizes, "manifest.json is damaged"),
        (newer_manifest, "manifest.json has version 2"),
        (change_state, "state.json "),
        (a_folder_in_its_place, "adapters.safetensors is missing"),
    ],
)
def test_damaged_checkpoint_is_skipped(tmp_path: Path, damage: Callable[[Checkpoint], None], error: str) -> None:
    good, bad = save(tmp_path, 10), save(tmp_path, 20)
    damage(bad)
    newest, errors = newest_valid(tmp_path, RUN_PLAN)
    assert newest == good
    assert len(errors) == 1
    assert error in errors[0]
    assert str(bad.path) in errors[0]
    assert "\n" not in errors[0]
    with pytest.raises(CheckpointInvalid):
        verify(bad)


def test_flipped_bits_are_detected(tmp_path: Path) -> None:
    """With any byte changed, the newest valid checkpoint still has the right weights."""
    good, other = save(tmp_path, 10, weights=b"older"), save(tmp_path, 20, weights=b"newer")
    complete = other.state()
    for name in (MANIFEST, STATE):
        path = other.path / name
        content = path.read_bytes()
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            chosen, _ = newest_valid(tmp_path, RUN_PLAN)
            assert chosen in (good, other)
            if chosen == other:
                assert other.state() == complete
                assert name == MANIFEST
        path.write_bytes(content)
    assert newest(tmp_path) == 20


def test_all_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    for iteration in (10, 20, 30):
        truncate(save(tmp_path, iteration))
    newest, errors = newest_valid(tmp_path, RUN_PLAN)
    assert newest is None
    assert [Path(text.split()[0]).parent.name for text in errors] == ["step-0000030", "step-0000020", "step-0000010"]


def test_interrupted_write_is_not_listed(tmp_path: Path) -> None:
    save(tmp_path, 10)

    def die_half_way(where: Path) -> CheckpointState:
        (where / ADAPTERS).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 20, die_half_way)
    assert names(tmp_path) == [".step-0000020.partial", "step-0000010"]
    assert newest(tmp_path) == 10
    sweep(tmp_path)
    assert names(tmp_path) == ["step-0000010"]


def test_leftover_files_are_not_used(tmp_path: Path) -> None:
    (tmp_path / ".step-0000020.partial").mkdir()
    (tmp_path / ".step-0000020.partial" / "rubbish").write_text("x")
    assert names(save(tmp_path, 20).path) == [ADAPTERS, MANIFEST, OPTIMIZER, STATE]


def test_bad_checkpoint_is_replaced(tmp_path: Path) -> None:
    truncate(save(tmp_path, 20, weights=b"first"))
    again = save(tmp_path, 20, weights=b"again")
    verify(again)
    assert held_in(again.adapters.read_bytes()) == b"again" * 100
    assert names(tmp_path) == ["step-0000020"]


def test_interrupted_replacement_is_undone(tmp_path: Path) -> None:
    save(tmp_path, 10)
    replaced = save(tmp_path, 20)
    replaced.path.rename(tmp_path / ".step-0000020.replaced")
    assert newest(tmp_path) == 10
    sweep(tmp_path)
    assert names(tmp_path) == ["step-0000010", "step-0000020"]
    assert newest(tmp_path) == 20


def test_replaced_checkpoint_is_deleted(tmp_path: Path) -> None:
    shutil.copytree(save(tmp_path, 20, weights=b"older").path, tmp_path / ".step-0000020.replaced")
    again = save(tmp_path, 20, weights=b"newer")
    shutil.copytree(again.path, tmp_path / ".step-0000020.replaced")
    sweep(tmp_path)
    assert names(tmp_path) == ["step-0000020"]
    assert held_in(again.adapters.read_bytes()) == b"newer" * 100


def test_sweep_keeps_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "notes.partial").write_text("mine")
    sweep(tmp_path)
    sweep(tmp_path / "not there")
    assert names(tmp_path) == ["notes.partial", "step-0000010"]


def test_newer_state_is_refused(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 10)
    edit_json(checkpoint.path / STATE, version=9)
    with pytest.raises(CheckpointInvalid, match=r"version 9; .* version 2"):
        checkpoint.state()


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ({10: 3.0, 20: 1.0, 30: 2.0}, 20),
        ({10: 1.0, 20: 1.0, 30: 1.0}, 10),  # the earliest of equals
        ({10: None, 20: 5.0, 30: None}, 20),
        ({10: None, 20: None}, None),
        ({10: math.nan, 20: 4.0, 30: -math.inf}, 20),
    ],
)
def test_best_has_lowest_loss(tmp_path: Path, losses: dict[int, float | None], best: int | None) -> None:
    for iteration, loss in losses.items():
        save(tmp_path, iteration, loss=loss)
    newest, _ = best_valid(tmp_path, RUN_PLAN)
    assert (None if newest is None else newest.iteration) == best


def test_damaged_best_is_skipped(tmp_path: Path) -> None:
    save(tmp_path, 10, loss=2.0)
    flip(save(tmp_path, 20, loss=1.0))
    lose_state(save(tmp_path, 30, loss=0.5))
    newest, _ = best_valid(tmp_path, RUN_PLAN)
    assert newest is not None
    assert newest.iteration == 10


def test_moved_checkpoint_is_valid(tmp_path: Path) -> None:
    save(tmp_path / "old", 10)
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert newest(tmp_path / "new") == 10
    assert storage.listed(tmp_path / "new")[0].path.parent.name == "new"


def test_bad_checkpoint_is_set_aside(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 10), save(tmp_path, 20)
    truncate(bad)
    newest, errors = newest_valid(tmp_path, RUN_PLAN, set_aside_by="the trainer")
    assert newest == good
    assert "step-0000020.bad" in errors[0]
    (aside,) = listed_bad(tmp_path)
    assert aside.name == "step-0000020.bad"
    note = (aside / "why.txt").read_text()
    assert str(bad.adapters) in note
    assert "by the trainer" in note
    assert bad.adapters.name in names(aside), "its files are kept"
    assert listed(tmp_path) == [good]
    assert newest_valid(tmp_path, RUN_PLAN, set_aside_by="the trainer") == (good, [])


def test_set_aside_replaces_older_one(tmp_path: Path) -> None:
    for weights in (b"first", b"second"):
        truncate(save(tmp_path, 20, weights=weights))
        newest_valid(tmp_path, RUN_PLAN, set_aside_by="the trainer")
    (aside,) = listed_bad(tmp_path)
    assert b"second" in (aside / ADAPTERS).read_bytes()


def test_newer_checkpoint_is_not_set_aside(tmp_path: Path) -> None:
    good, newer = save(tmp_path, 10), save(tmp_path, 20)
    newer_manifest(newer)
    newest, errors = newest_valid(tmp_path, RUN_PLAN, set_aside_by="the trainer")
    assert newest == good
    assert "reads version 1" in errors[0]
    assert listed(tmp_path) == [good, newer]


def test_concurrently_deleted_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, gone = save(tmp_path, 10), save(tmp_path, 20)
    monkeypatch.setattr("workers.checkpoints.storage.listed", lambda _: [good, gone])
    shutil.rmtree(gone.path)
    assert newest_valid(tmp_path, RUN_PLAN) == (good, [])


def test_deleted_job_folder_stays_deleted(tmp_path: Path) -> None:
    job = tmp_path / "job"
    with pytest.raises(FileNotFoundError):
        save(job / "checkpoints", 10)
    assert not job.exists()
