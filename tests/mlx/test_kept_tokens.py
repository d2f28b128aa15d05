"""Tokens that are kept: used by restarts and by other jobs, noticed by no run, never used where they are wrong."""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path
from typing import Any, cast

import pytest
from mlx_lm.tokenizer_utils import load
from mlx_lm.tuner.datasets import load_dataset

from jobs.model.events import Kind
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import Training
from workers.checkpoints.mlx_config import mlx_config
from workers.data.token_cache import _packed, _unpacked
from workers.data.tokenizing import Encoder, all_rows


def keeping(training: Training, cache: Path) -> Training:
    training.cache = cache
    return training


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def misled(path: Path) -> None:
    """Write other tokens into a kept file, as if they had been found in the data: whole, and for its key."""
    content = path.read_bytes()
    begin = content.index(b"{")
    key = json.JSONDecoder().raw_decode(content[begin:].decode(errors="replace"))[0]["key"]
    kept = _unpacked(content, key)
    assert kept is not None
    for row in kept.tokens:
        row.setflags(write=False)
    kept = type(kept)(tokens=[row[::-1].copy() for row in kept.tokens], offsets=kept.offsets, sort_keys=kept.sort_keys)
    path.write_bytes(_packed(key, kept))


@pytest.mark.slow
def test_kept_tokens_change_no_bit_and_serve_other_jobs(build: Build, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    without = build("without").finish()
    first = keeping(build("first"), cache).finish()
    assert len(files(cache)) == 2  # train and valid
    written = [path.read_bytes() for path in files(cache)]
    second = keeping(build("second", seed=0, steps_per_eval=12), cache).finish()
    assert [path.read_bytes() for path in files(cache)] == written
    assert without.weights() == first.weights() == second.weights()
    assert without.losses() == first.losses() == second.losses()
    for path in files(cache):
        misled(path)
    assert keeping(build("third"), cache).finish().weights() != without.weights()  # so they are used indeed


@pytest.mark.slow
def test_a_resume_on_kept_tokens_is_exact(build: Build, tmp_path: Path) -> None:
    whole = build("whole", iters=60).finish()
    stopped = keeping(build("stopped", iters=60), tmp_path / "cache").stopped_half_way()
    assert stopped.finish(2).weights() == whole.weights()
    assert stopped.said(Kind.SELF_TEST)["equal"]


@pytest.mark.slow
def test_a_damaged_file_is_written_anew(build: Build, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    without = build("without").finish()
    keeping(build("first"), cache).finish()
    whole = [path.read_bytes() for path in files(cache)]
    for path, content in zip(files(cache), whole, strict=True):
        path.write_bytes(content[: len(content) // 2])
    assert keeping(build("second"), cache).finish().weights() == without.weights()
    assert [path.read_bytes() for path in files(cache)] == whole


@pytest.mark.slow
def test_other_data_another_tokenizer_and_other_keys_have_tokens_of_their_own(
    build: Build, model: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    other_data = rows.write(tmp_path / "others", rows.chat, seed=1)
    other_model = tmp_path / "other"
    shutil.copytree(model, other_model)
    settings = json.loads((other_model / "tokenizer_config.json").read_text())
    settings["chat_template"] = settings["chat_template"].replace("<|im_start|>", "<|im_start|>\n")
    (other_model / "tokenizer_config.json").write_text(json.dumps(settings))
    keeping(build("first"), cache).finish()
    changes: dict[str, dict[str, Any]] = {
        "data": {"data": str(other_data)},
        "model": {"model": str(other_model)},
        "mask": {"mask_prompt": True},
    }
    for name, change in changes.items():
        before = len(files(cache))
        mine = keeping(build(name, **change), cache).finish()
        assert len(files(cache)) == before + 2
        assert mine.weights() == build(f"{name}-without", **change).finish().weights()


@pytest.mark.slow
def test_rows_that_hold_the_time_stay_those_the_job_began_with(build: Build, model: Path, tmp_path: Path) -> None:
    """As Llama 3's template has the day. Here it is every moment, so that no midnight is waited for."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ strftime_now('%H:%M:%S %f') }}" + settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    training = keeping(build("job", model=str(folder), iters=60), tmp_path / "cache").stopped_half_way()
    assert len(files(training.job_dir.tokens)) == 2
    assert not (tmp_path / "cache").exists()
    training.finish(2)
    assert training.said(Kind.SELF_TEST)["equal"]
    again = build("again", model=str(folder), iters=60).finish()
    assert again.losses()[1] != training.losses()[1]  # another job has the time it begins at


def test_data_that_is_written_to_while_it_is_read_is_not_kept(model: Path, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat)
    spec = JobSpec.model_validate({"model": str(model), "data": str(data)})
    settings = types.SimpleNamespace(**mlx_config(spec, RunPlan.requested(spec).stages[0]))
    cache = tmp_path / "cache"
    job_dir = JobDir(tmp_path, cache=cache)

    def read(more: str) -> int:
        def load_meanwhile(encoder: Encoder) -> Any:
            sets = load_dataset(settings, cast("Any", encoder))
            with (data / "train.jsonl").open("a") as file:
                file.write(more)
            return sets

        return len(all_rows(spec, load(model), job_dir, load_meanwhile)[0])

    assert read((data / "train.jsonl").read_text().splitlines()[0] + "\n") == 22
    assert not cache.exists()
    assert read("") == 23
    assert len(files(cache)) == 2
