"""A run that was stopped goes on, says how faithfully, or says why it cannot."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from configs.load import dump_job
from jobs.model.events import Kind
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
    """A job stopped half way; tests work on copies."""
    return Training.laid_out(tmp_path_factory.mktemp("stopped") / "job", basics | CHANGES).stopped_half_way()


@pytest.fixture(scope="module")
def finished(stopped: Training, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The same job, resumed and trained to its end."""
    return stopped.copied(tmp_path_factory.mktemp("finished") / "job").finish(2)


def edit_state(checkpoint: Checkpoint, **changes: Any) -> None:
    """Change state.json as another machine might have written it, with a manifest that says so."""
    state, manifest = checkpoint.path / STATE, checkpoint.path / MANIFEST
    state.write_text(json.dumps(json.loads(state.read_text()) | changes))
    said = json.loads(manifest.read_text())
    content = state.read_bytes()
    said["files"][STATE] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(said))


@pytest.mark.slow
def test_after_an_upgrade_it_goes_on_and_says_that_bits_may_differ(
    stopped: Training, finished: Training, tmp_path: Path
) -> None:
    training = stopped.copied(tmp_path / "job")
    edit_state(training.newest, versions=dict(training.newest.state().versions) | {"mlx": "0.1.0"})
    training.finish(2)
    begun = training.events(Kind.STARTED)[1].data
    assert begun["resume_quality"] == "state"
    assert begun["iteration"] == stopped.newest.iteration
    assert training.weights() == finished.weights()  # for here only the name of the version was another


def test_rows_that_change_while_it_trains_are_other_rows(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat)
    training = build(**CHANGES | {"data": str(data), "iters": 400})
    with training.running(1) as child:
        training.await_checkpoint(child)
        (data / "train.jsonl").write_text("".join(reversed((data / "train.jsonl").read_text().splitlines(True))))
        child.send_signal(signal.SIGTERM)
        assert child.wait(FIRST_EVER_S) == 75, training.story()
    assert training.run(2) == 78
    assert "is not the file this run began with" in training.events(Kind.ENDED, attempt=2)[0].data["detail"]


def test_it_refuses_to_go_on_with_other_rows(stopped: Training, tmp_path: Path) -> None:
    training = stopped.copied(tmp_path / "job")
    other = rows.write(tmp_path / "other", rows.chat, seed=1)
    training.job_dir.config.write_text(dump_job(training.spec.model_copy(update={"data": str(other)})))
    before = training.checkpoints
    assert training.run(2) == 78
    ended = training.events(Kind.ENDED, attempt=2)[0].data
    assert (ended["outcome"], ended["reason"]) == ("refused", "data_invalid")
    assert ended["detail"].startswith(f"{other / 'train.jsonl'} is not the file this run began with")
    assert ended["iteration"] == before[-1]
    assert training.checkpoints == before


@pytest.mark.slow
def test_a_snapshot_asked_for_changes_nothing_but_that_it_is_there(
    finished: Training, tmp_path: Path, basics: dict[str, Any]
) -> None:
    training = Training.laid_out(tmp_path / "job", basics | CHANGES)
    with training.running(1) as child:
        training.await_checkpoint(child)
        child.send_signal(signal.SIGUSR1)
        assert child.wait(FIRST_EVER_S) == 0, training.story()
    regular = finished.validations()
    [extra] = set(training.validations()) - set(regular)
    assert extra % ACCUMULATION == 0
    assert extra in training.checkpoints
    [state] = [Checkpoint(path=training.job_dir.checkpoints / f"step-{extra:07d}", iteration=extra).state().validation]
    assert state is not None
    assert state.loss == training.validations()[extra][0]
    assert {iteration: training.validations()[iteration] for iteration in regular} == regular
    assert training.losses() == finished.losses()
    assert training.weights() == finished.weights()


def test_a_run_that_was_finished_finishes_again_at_once(finished: Training, tmp_path: Path) -> None:
    training = finished.copied(tmp_path / "job").finish(3)
    assert training.weights() == finished.weights()
    assert training.checkpoints == finished.checkpoints
    assert not [event for event in training.events(Kind.PROGRESS, attempt=3) if event.data["losses"]]
    assert not training.events(Kind.VALIDATION, attempt=3)


@pytest.mark.slow
def test_another_run_starts_from_its_adapter(finished: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    adapter = tmp_path / "adapter.safetensors"
    adapter.write_bytes(finished.weights())
    changes = {"iters": 40, "save_every": 5, "resume_adapter_file": str(adapter)}
    training = Training.laid_out(tmp_path / "job", basics | changes).stopped_half_way()
    assert training.validations()[0] == finished.validations()[60]
    adapter.unlink()  # what a resume needs is in the checkpoint
    training.finish(2)
    assert training.said(Kind.SELF_TEST)["equal"] is True


@pytest.mark.parametrize("wrong", ["another rank", pytest.param("a model", marks=pytest.mark.slow)])
def test_an_adapter_that_does_not_fit_is_refused(
    wrong: str, finished: Training, tmp_path: Path, basics: dict[str, Any]
) -> None:
    """MLX-LM would load nothing of it, or train with another rank than the file says, in silence."""
    adapter = tmp_path / "adapter.safetensors"
    changes: dict[str, Any] = {"resume_adapter_file": str(adapter)}
    if wrong == "another rank":
        adapter.write_bytes(finished.weights())
        changes["lora_parameters"] = basics["lora_parameters"] | {"rank": 2}
    else:
        adapter.write_bytes((Path(basics["model"]) / "model.safetensors").read_bytes())
    training = Training.laid_out(tmp_path / "job", basics | changes)
    assert training.run() == 78
    ended = training.said(Kind.ENDED)
    assert (ended["outcome"], ended["reason"]) == ("refused", "config_invalid")
    assert ended["detail"] == (f"resume_adapter_file {adapter} does not fit this model and these lora_parameters")
