"""A stopped run resumes and reports how exact the resume is, or refuses to resume."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from configs.load import dump_job
from jobs.model.events import Kind
from jobs.model.outcomes import Outcome, Reason
from jobs.policies.exits import NEVER_RETRY, RESUMABLE
from orchestrator.demo.tiny_model import build_model
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import FIRST_EVER_S, Training
from workers.checkpoints.storage import MANIFEST, STATE, Checkpoint

pytestmark = pytest.mark.timeout(FIRST_EVER_S)

ACCUMULATION = 3
CHANGES: dict[str, Any] = {
    "iters": 60,
    "steps_per_report": 4,
    "steps_per_eval": 30,
    "save_every": 7,
    "grad_accumulation_steps": ACCUMULATION,
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Training:
    """A job stopped half way; tests use copies."""
    return Training.create(tmp_path_factory.mktemp("stopped") / "job", basics | CHANGES).stop_half_way()


@pytest.fixture(scope="module")
def finished(stopped: Training, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The same job, resumed and trained to its end."""
    return stopped.copied(tmp_path_factory.mktemp("finished") / "job").finish(2)


def edit_state(checkpoint: Checkpoint, **changes: Any) -> None:
    """Change state.json, and the manifest with it."""
    state, manifest = checkpoint.path / STATE, checkpoint.path / MANIFEST
    state.write_text(json.dumps(json.loads(state.read_text()) | changes))
    entries, content = json.loads(manifest.read_text()), state.read_bytes()
    entries["files"][STATE] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(entries))


def assert_data_refused(training: Training, attempt: int) -> None:
    assert training.run(attempt) == NEVER_RETRY
    ended = training.only(Kind.ENDED, attempt=attempt)
    assert (ended["outcome"], ended["reason"]) == ("refused", "data_invalid")
    assert "train.jsonl" in ended["detail"]


@pytest.mark.slow
def test_other_versions_give_quality_state(stopped: Training, finished: Training, tmp_path: Path) -> None:
    training = stopped.copied(tmp_path / "job")
    edit_state(training.newest, versions=dict(training.newest.state().versions) | {"mlx": "0.1.0"})
    training.finish(2)
    started = training.only(Kind.STARTED, attempt=2)
    assert (started["resume_quality"], started["iteration"]) == ("state", stopped.newest.iteration)
    assert training.weights() == finished.weights()  # only the name of the version was another


@pytest.mark.slow
def test_other_random_key_changes_weights(stopped: Training, finished: Training, tmp_path: Path) -> None:
    """Negative control: the exactness tests notice a restore that is wrong."""
    training = stopped.copied(tmp_path / "job")
    edit_state(training.newest, random_key=[0, 1])
    assert training.finish(2).weights() != finished.weights()


def test_rows_changed_meanwhile_are_refused(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat)
    training = build(**CHANGES | {"data": str(data), "iters": 400})

    def reverse_rows() -> bool:
        if not training.checkpointed(1):
            return False
        (data / "train.jsonl").write_text("".join(reversed((data / "train.jsonl").read_text().splitlines(True))))
        return True

    assert training.signal_when(reverse_rows, signal.SIGTERM) == RESUMABLE, training.log_tail()
    assert_data_refused(training, 2)


def test_other_data_is_refused(stopped: Training, tmp_path: Path) -> None:
    training = stopped.copied(tmp_path / "job")
    other = rows.write(tmp_path / "other", rows.chat, seed=1)
    training.job_dir.config.write_text(dump_job(training.spec.model_copy(update={"data": str(other)})))
    before = training.checkpoints
    assert_data_refused(training, 2)
    assert training.only(Kind.ENDED, attempt=2)["iteration"] == before[-1]
    assert training.checkpoints == before


@pytest.mark.slow
def test_snapshot_changes_no_bit(finished: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    training = Training.create(tmp_path / "job", basics | CHANGES)
    code = training.signal_when(lambda: training.checkpointed(1), signal.SIGUSR1)
    assert code == 0, training.log_tail()
    regular = finished.validations()
    [extra] = set(training.validations()) - set(regular)
    assert extra % ACCUMULATION == 0
    assert extra in training.checkpoints
    validation = training.checkpoint_at(extra).state().validation
    assert validation is not None
    assert (validation.loss, validation.asked) == (training.validations()[extra][0], True)
    assert {iteration: training.validations()[iteration] for iteration in regular} == regular
    assert training.losses() == finished.losses()
    assert training.weights() == finished.weights()


def test_finished_run_finishes_again(finished: Training, tmp_path: Path) -> None:
    training = finished.copied(tmp_path / "job").finish(3)
    assert training.weights() == finished.weights()
    assert training.checkpoints == finished.checkpoints
    assert not training.reports(attempt=3)
    assert not training.events(Kind.VALIDATION, attempt=3)


@pytest.mark.slow
def test_adapter_file_starts_another_run(finished: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    adapter = tmp_path / "adapter.safetensors"
    adapter.write_bytes(finished.weights())
    changes = {"iters": 40, "save_every": 5, "resume_adapter_file": str(adapter)}
    training = Training.create(tmp_path / "job", basics | changes).stop_half_way()
    assert training.validations()[0] == finished.validations()[60]
    adapter.unlink()  # a resume needs the checkpoint only
    training.finish(2)
    assert training.only(Kind.SELF_TEST)["equal"] is True


@pytest.mark.parametrize("wrong", ["another rank", pytest.param("a model", marks=pytest.mark.slow)])
def test_unfit_adapter_is_refused(wrong: str, finished: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    """MLX-LM would load nothing of it, or train with another rank than the file has, without a message."""
    adapter = tmp_path / "adapter.safetensors"
    changes: dict[str, Any] = {"resume_adapter_file": str(adapter)}
    if wrong == "another rank":
        adapter.write_bytes(finished.weights())
        changes["lora_parameters"] = basics["lora_parameters"] | {"rank": 2}
    else:
        adapter.write_bytes((Path(basics["model"]) / "model.safetensors").read_bytes())
    training = Training.create(tmp_path / "job", basics | changes)
    assert training.run() == NEVER_RETRY
    ended = training.only(Kind.ENDED)
    assert (ended["outcome"], ended["reason"]) == ("refused", "config_invalid")
    assert str(adapter) in ended["detail"]


def test_other_model_stops_the_resume(build: Build, model: Path, tmp_path: Path) -> None:
    """The self-test measures another loss than the checkpoint recorded, so the attempt trains nothing."""
    replaced = shutil.copytree(model, tmp_path / "model")
    training = build(model=str(replaced)).stop_half_way()
    build_model(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other" / "model.safetensors", replaced)
    assert training.run(2) == NEVER_RETRY, training.log_tail()
    assert training.only(Kind.SELF_TEST, attempt=2)["equal"] is False
    end = training.only(Kind.ENDED, attempt=2)
    assert (end["outcome"], end["reason"]) == (Outcome.REFUSED, Reason.MODEL_MISSING)
    assert not training.reports(attempt=2)
    shutil.copy(model / "model.safetensors", replaced)
    training.finish(3)
