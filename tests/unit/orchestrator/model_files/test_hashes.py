"""The model's files belong to the provenance: a change of their content after the submit is found."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.model.job import Job
from orchestrator.core.app import App
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.model_files.hashes import changed_files, hash_files
from orchestrator.submission import rewind
from orchestrator.submission.submit import check_all, enqueue_all
from tests.harness import until
from workers.checkpoints.publishing import sha256_of

LONG_AGO = 1_700_000_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose files were written long ago."""
    folder = tmp_path / "model"
    build_model(folder)
    for path in folder.iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


@pytest.fixture
def job(app: App, model: Path, tmp_path: Path) -> Job:
    """A queued job of that model."""
    build_data(tmp_path / "data", train=8, valid=2, test=0)
    file = tmp_path / "night.yaml"
    file.write_text("model: model\ndata: data\niters: 10\nbatch_size: 2\nnum_layers: -1\n")
    (made,) = enqueue_all(app, check_all(app, [file]))
    return made


def swap_weights(model: Path) -> None:
    """Replace the weights by others of the same size, and restore the time."""
    path = model / "model.safetensors"
    before = path.stat()
    build_model(model.with_name("other"), seed=1)
    path.write_bytes((model.with_name("other") / path.name).read_bytes())
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap_words(model: Path) -> None:
    """Exchange two tokens of the vocabulary, as in another tokenizer of the same size."""
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [word for word in vocabulary if word.isalpha()][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content))


def change_template(model: Path) -> None:
    """Add a chat template that takes precedence."""
    (model / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")


def move_weights(model: Path) -> None:
    """Rename the weights, which MLX-LM finds all the same."""
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (swap_weights, ["model.safetensors"]),
        (swap_words, ["tokenizer.json"]),
        (change_template, ["chat_template.jinja"]),
        (move_weights, ["model-00001-of-00001.safetensors", "model.safetensors"]),
    ],
)
def test_changed_content_is_named(
    app: App, job: Job, model: Path, change: Callable[[Path], None], names: list[str]
) -> None:
    assert changed_files(job.dir, str(model), app.home.cache) == []
    change(model)
    lines = changed_files(job.dir, str(model), app.home.cache)
    assert [line.split()[0] for line in lines] == names
    assert [line.split()[0] for line in changed_files(job.dir, str(model), app.home.cache)] == names


def test_same_content_is_no_change(app: App, job: Job, model: Path) -> None:
    copy = model.with_name("copy")
    shutil.copytree(model, copy)  # other inodes and times
    shutil.rmtree(model)
    copy.rename(model)
    for path in model.iterdir():
        path.touch()
    (model / "README.md").write_text("MLX-LM does not load this")
    assert changed_files(job.dir, str(model), app.home.cache) == []


def test_fresh_retry_takes_the_model_as_it_is(app: App, job: Job, model: Path) -> None:
    swap_weights(model)
    assert changed_files(job.dir, str(model), app.home.cache) != []
    app.store.jobs.cancel(job.id, 1.0)
    rewind.requeue(app, app.store.jobs.get(job.id), rewind.rewind_to(app, job, 0), 2.0)
    assert changed_files(job.dir, str(model), app.home.cache) == []


def test_missing_hashes_are_recorded_later(app: App, job: Job, model: Path) -> None:
    content = json.loads(job.dir.provenance.read_text())
    recorded = {entry["file"]: entry for entry in content["model"]["files"]}
    recorded["model.safetensors"]["sha256"] = None  # as after a submit that ran out of time
    job.dir.provenance.write_text(json.dumps(content))
    assert changed_files(job.dir, str(model), app.home.cache) == []
    files = json.loads(job.dir.provenance.read_text())["model"]["files"]
    hashes = {entry["file"]: entry["sha256"] for entry in files}
    assert hashes["model.safetensors"] == sha256_of(model / "model.safetensors")
    swap_weights(model)
    assert changed_files(job.dir, str(model), app.home.cache) != []


def test_unhashed_file_may_not_be_rewritten(app: App, job: Job, model: Path) -> None:
    content = json.loads(job.dir.provenance.read_text())
    for entry in content["model"]["files"]:
        entry["sha256"] = None
    job.dir.provenance.write_text(json.dumps(content))
    (model / "model.safetensors").touch()
    (line,) = changed_files(job.dir, str(model), app.home.cache)
    assert line.startswith("model.safetensors ")


def test_budget_leaves_large_files_for_later(model: Path, tmp_path: Path) -> None:
    hashed = hash_files(str(model), tmp_path / "cache", within_s=-1.0)
    assert {one.file for one in hashed} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert all(one.sha256 is None for one in hashed)


def test_known_files_are_not_read_again(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    written = max(path.stat().st_ctime_ns for path in model.iterdir())
    until(lambda: time.time_ns() - written > 2_500_000_000, "files that no longer change")
    first = hash_files(str(model), cache)
    assert hash_files(str(model), cache, within_s=-1.0) == first  # no time to read anything
    swap_weights(model)
    second = {one.file: one.sha256 for one in hash_files(str(model), cache, within_s=-1.0)}
    assert second["model.safetensors"] is None
    assert second["tokenizer.json"] is not None
    for damaged in (cache / "hashes").glob("*.json"):
        damaged.write_text("[")
    assert None not in {one.sha256 for one in hash_files(str(model), cache)}
