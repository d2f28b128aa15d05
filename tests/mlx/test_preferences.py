"""Preference objectives train, validate and resume exactly, and refuse what would not be exact."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest

from jobs.model.events import Kind
from jobs.policies.exits import NEVER_RETRY
from tests.mlx import rows
from tests.mlx.training import FIRST_EVER_S, Training
from workers.checkpoints import adapters, storage
from workers.checkpoints.storage import Checkpoint

pytestmark = pytest.mark.timeout(FIRST_EVER_S)

OBJECTIVES: dict[str, dict[str, Any]] = {
    "dpo": {"name": "dpo", "label_smoothing": 0.1},
    "orpo": {"name": "orpo"},
    "simpo": {"name": "simpo"},
    "cpo": {"name": "cpo"},
    "kto": {"name": "kto"},
    "kto-without-divergence": {"name": "kto", "loss": "apo_zero_unpaired"},
}
CHANGES: dict[str, Any] = {
    "iters": 48,
    "optimizer": "adamw",
    "grad_accumulation_steps": 2,
    "steps_per_report": 4,
    "steps_per_eval": 12,
    "save_every": 8,
    "test": True,
    "lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.1},
}


def created(folder: Path, basics: dict[str, Any], objective: str, **changes: Any) -> Training:
    """Create a job with rows for an objective."""
    data = folder.parent / f"data-{objective}"
    if not data.exists():
        make = (
            rows.labelled
            if objective.startswith("kto")
            else rows.conversation
            if objective == "cpo"
            else rows.preference
        )
        rows.write(data, make, train=23, valid=8, test=4)
    settings = basics | CHANGES | {"data": str(data), "lq": {"objective": OBJECTIVES[objective]}} | changes
    return Training.create(folder, settings)


def sha256(training: Training) -> str:
    return hashlib.sha256(training.weights()).hexdigest()


def kill_at(training: Training, iteration: int, attempt: int) -> None:
    """Kill -9 after the checkpoint of an iteration, in the middle of training."""
    moment = functools.partial(training.checkpointed, iteration, attempt=attempt)
    assert training.signal_when(moment, signal.SIGKILL, attempt=attempt) == -signal.SIGKILL, training.log_tail()


Pair = tuple[Training, Training]
Runs = Callable[[str], Pair]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Runs:
    """Return a function that gives an undisturbed run of an objective, and one killed after its first checkpoint."""

    @functools.cache
    def run(objective: str) -> Pair:
        folder = tmp_path_factory.mktemp(objective)
        undisturbed = created(folder / "undisturbed", basics, objective).finish()
        killed = created(folder / "killed", basics, objective)
        kill_at(killed, 8, 1)
        return undisturbed, killed

    return run


QUICK_AND_SLOW = ["dpo", *(pytest.param(name, marks=pytest.mark.slow) for name in OBJECTIVES if name != "dpo")]


@pytest.mark.parametrize("objective", QUICK_AND_SLOW)
def test_killed_run_ends_like_undisturbed(runs: Runs, tmp_path: Path, objective: str) -> None:
    undisturbed, killed = runs(objective)
    killed = killed.copied(tmp_path / "killed")
    kill_at(killed, 24, 2)
    killed.finish(3)
    assert sha256(killed) == sha256(undisturbed)
    assert killed.losses() == undisturbed.losses()
    assert killed.validations() == undisturbed.validations()
    starts = [event.data for event in killed.events(Kind.STARTED)]
    assert [start["resume_quality"] for start in starts] == ["fresh", "exact", "exact"]
    assert all(event.data["equal"] for event in killed.events(Kind.SELF_TEST))
    assert killed.phases("reference") == (3 if killed.job_dir.reference.exists() else 0)  # once, for each data file


def replace_in_checkpoint(checkpoint: Checkpoint, name: str, content: bytes) -> None:
    """Replace a file, and its entry in the manifest."""
    (checkpoint.path / name).write_bytes(content)
    manifest = checkpoint.path / storage.MANIFEST
    entries = json.loads(manifest.read_text())
    entries["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(entries))


def edit_state(checkpoint: Checkpoint, **changes: Any) -> None:
    state = json.loads((checkpoint.path / storage.STATE).read_text()) | changes
    replace_in_checkpoint(checkpoint, storage.STATE, json.dumps(state).encode())


def leave_out_moments(training: Training) -> None:
    newest = training.newest
    moments = cast("dict[str, mx.array]", mx.load(str(newest.optimizer)))
    kept = ("step", "learning_rate")
    mx.save_safetensors(
        str(newest.optimizer), {name: each if name in kept else mx.zeros_like(each) for name, each in moments.items()}
    )
    replace_in_checkpoint(newest, storage.OPTIMIZER, newest.optimizer.read_bytes())


def leave_out_random_key(training: Training) -> None:
    edit_state(training.newest, random_key=[0, 1])


def leave_out_position(training: Training) -> None:
    """Continue two updates earlier in the data."""
    newest, before = training.newest, training.newest.iteration - 4
    edit_state(newest, iteration=before, examples_seen=before * training.spec.batch_size)
    manifest = newest.path / storage.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"iteration": before}))
    newest.path.rename(newest.path.with_name(f"step-{before:07d}"))


def leave_out_reference(training: Training) -> None:
    """Put other numbers in the place of the reference, with their hash."""
    reference = training.job_dir.reference
    content = json.loads(reference.read_text())
    reference.write_text(
        json.dumps(content | {"train": [value - index for index, value in enumerate(content["train"])]})
    )
    sha = hashlib.sha256(reference.read_bytes()).hexdigest()
    edit_state(training.newest, data=dict(training.newest.state().data) | {reference.name: sha})


LEFT_OUT = {
    "moments": leave_out_moments,
    "random key": leave_out_random_key,
    "position": leave_out_position,
    "reference": leave_out_reference,
}


@pytest.mark.parametrize(
    "part", [part if part == "reference" else pytest.param(part, marks=pytest.mark.slow) for part in LEFT_OUT]
)
@pytest.mark.parametrize("objective", QUICK_AND_SLOW)
def test_part_left_out_changes_weights(runs: Runs, tmp_path: Path, objective: str, part: str) -> None:
    """Negative control: each part of a checkpoint matters, and the test above notices when it is wrong."""
    undisturbed, killed = runs(objective)
    if part == "reference" and not killed.job_dir.reference.exists():
        pytest.skip("the objective has no reference")
    training = killed.copied(tmp_path / "job")
    LEFT_OUT[part](training)
    assert sha256(training.finish(2)) != sha256(undisturbed)


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_resume_without_reference_is_refused(runs: Runs, tmp_path: Path, change: str) -> None:
    training = runs("dpo")[1].copied(tmp_path / "job")
    reference = training.job_dir.reference
    if change == "missing":
        reference.unlink()
    else:
        reference.write_text(reference.read_text().replace("1", "2", 1))
    assert training.run(2) == NEVER_RETRY
    ended = training.only(Kind.ENDED, attempt=2)
    assert (ended["outcome"], ended["reason"]) == ("refused", "data_invalid")
    assert str(reference) in ended["detail"]


def test_fresh_start_reuses_or_measures_reference(runs: Runs, tmp_path: Path) -> None:
    """Another attempt at the start takes the reference of the first one; a damaged file is measured again."""
    measured = runs("dpo")[1]
    content = measured.job_dir.reference.read_text()
    for changed, phases in ((content, 0), (content[:-9], 3), (content.replace('"key": "', '"key": "0'), 3)):
        training = measured.copied(tmp_path / f"job-{len(list(tmp_path.iterdir()))}")
        shutil.rmtree(training.job_dir.checkpoints)
        training.job_dir.events.unlink()
        training.job_dir.reference.write_text(changed)
        kill_at(training, 8, 2)
        assert training.job_dir.reference.read_text() == content
        assert training.phases("reference") == phases


def test_first_loss_is_that_of_equal_models(runs: Runs) -> None:
    """At the start, the model is its own reference: every reward is 0, and the loss is ln 2 whatever the smoothing."""
    first = next(event.data for event in runs("dpo")[0].events(Kind.VALIDATION))
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards"]["margin"] == pytest.approx(0, abs=1e-4)


def test_validation_prompts_are_answered(runs: Runs) -> None:
    """Without lq.prompts, the report shows answers to validation rows, with the chosen answer beside them."""
    training = runs("dpo")[0]
    first = json.loads((Path(training.spec.data) / "valid.jsonl").read_text().splitlines()[0])
    facts = {event.data["name"]: event.data["value"] for event in training.events(Kind.FACT)}
    before = facts["answer.before.0"]
    assert (before["prompt"], before["reference"]) == (first["prompt"], first["chosen"])


def test_wrong_row_ends_as_data_invalid(tmp_path: Path, basics: dict[str, Any]) -> None:
    training = created(tmp_path / "job", basics, "dpo")
    train = Path(training.spec.data) / "train.jsonl"
    train.write_text(train.read_text() + json.dumps({"prompt": "q", "chosen": "a", "rejected": "a"}) + "\n")
    assert training.run() == NEVER_RETRY
    ended = training.only(Kind.ENDED)
    assert (ended["outcome"], ended["reason"]) == ("refused", "data_invalid")
    assert f"{train}:24:" in ended["detail"]


def test_preferences_are_learned(tmp_path: Path, basics: dict[str, Any]) -> None:
    """A visible rule, the shorter and polite answer, holds for held-out rows after training."""
    data = rows.write(tmp_path / "data", rows.preference, train=200, valid=60)
    changes = {"data": str(data), "iters": 150, "batch_size": 4, "learning_rate": 5e-3, "steps_per_eval": 150}
    training = created(
        tmp_path / "job", basics, "dpo", **changes | {"grad_accumulation_steps": 1, "test": False}
    ).finish()
    first, last = (event.data["rewards"] for event in training.events(Kind.VALIDATION))
    assert first["accuracy"] < 0.8
    assert last["accuracy"] > 0.95
    assert last["margin"] - 2 * last["margin_error"] > 0
    assert last["chosen"] > last["rejected"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_mlx_lm_generates_with_result(runs: Runs, tmp_path: Path, objective: str) -> None:
    training = runs(objective)[0].copied(tmp_path / "job")
    published = adapters.publish(training.job_dir, training.spec, training.run_plan, job_id=1)
    words = [
        "generate",
        "--model",
        training.spec.model,
        "--adapter-path",
        str(published.folder),
        "--prompt",
        "1 plus 1?",
    ]
    command = [sys.executable, "-m", "mlx_lm", *words, "--max-tokens", "4"]
    subprocess.run(command, check=True, capture_output=True, timeout=FIRST_EVER_S)
