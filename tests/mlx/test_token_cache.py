"""Cached tokens: restarts and other jobs use them, no bit of a run depends on them, and wrong ones are not used."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.tokenizer_utils import load

from jobs.model.events import Kind
from jobs.model.job_dir import JobDir
from jobs.model.spec import JobSpec
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import Training
from workers.data.token_cache import _packed, _unpacked
from workers.data.tokenizing import folder_rows
from workers.mlx.data import text_tools


def caching(training: Training, cache: Path) -> Training:
    training.cache = cache
    return training


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def edit_template(model: Path, target: Path, old: str, new: str) -> Path:
    """Copy a model with another chat template."""
    shutil.copytree(model, target)
    settings = json.loads((target / "tokenizer_config.json").read_text())
    settings["chat_template"] = settings["chat_template"].replace(old, new, 1 if not old else -1)
    (target / "tokenizer_config.json").write_text(json.dumps(settings))
    return target


def falsify(path: Path) -> None:
    """Reverse the tokens of every row in a cache file; the file stays valid for its key."""
    content = path.read_bytes()
    start = content.index(b"{")
    key = json.JSONDecoder().raw_decode(content[start:].decode(errors="replace"))[0]["key"]
    cached = _unpacked(content, key)
    assert cached is not None
    reversed_rows = [row[::-1].copy() for row in cached.tokens]
    path.write_bytes(
        _packed(key, type(cached)(tokens=reversed_rows, offsets=cached.offsets, sort_keys=cached.sort_keys))
    )


@pytest.mark.slow
def test_cached_tokens_change_no_bit(build: Build, tmp_path: Path) -> None:
    """Falsified tokens change the weights, so the cache is really used."""
    cache = tmp_path / "cache"
    without = build("without").finish()
    first = caching(build("first"), cache).finish()
    assert len(files(cache)) == 2  # train and valid
    written = [path.read_bytes() for path in files(cache)]
    second = caching(build("second", seed=0, steps_per_eval=12), cache).finish()
    assert [path.read_bytes() for path in files(cache)] == written
    assert without.weights() == first.weights() == second.weights()
    assert without.losses() == first.losses() == second.losses()
    for path in files(cache):
        falsify(path)
    assert caching(build("third"), cache).finish().weights() != without.weights()


@pytest.mark.slow
def test_resume_with_cache_is_exact(build: Build, tmp_path: Path) -> None:
    whole = build("whole", iters=60).finish()
    stopped = caching(build("stopped", iters=60), tmp_path / "cache").stop_half_way()
    assert stopped.finish(2).weights() == whole.weights()
    assert stopped.only(Kind.SELF_TEST)["equal"]


@pytest.mark.slow
def test_damaged_cache_file_is_rewritten(build: Build, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    without = build("without").finish()
    caching(build("first"), cache).finish()
    whole = [path.read_bytes() for path in files(cache)]
    for path, content in zip(files(cache), whole, strict=True):
        path.write_bytes(content[: len(content) // 2])
    assert caching(build("second"), cache).finish().weights() == without.weights()
    assert [path.read_bytes() for path in files(cache)] == whole


@pytest.mark.slow
def test_other_inputs_have_own_tokens(build: Build, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    other_data = rows.write(tmp_path / "others", rows.chat, seed=1)
    other_model = edit_template(model, tmp_path / "other", "<|im_start|>", "<|im_start|>\n")
    caching(build("first"), cache).finish()
    changes: dict[str, dict[str, Any]] = {
        "data": {"data": str(other_data)},
        "model": {"model": str(other_model)},
        "mask": {"mask_prompt": True},
    }
    for name, change in changes.items():
        before = len(files(cache))
        cached = caching(build(name, **change), cache).finish()
        assert len(files(cache)) == before + 2
        assert cached.weights() == build(f"{name}-without", **change).finish().weights()


@pytest.mark.slow
def test_dated_rows_stay_those_of_the_start(build: Build, model: Path, tmp_path: Path) -> None:
    """Llama 3's template has the date in every row. This one has the time, so that the test need not wait."""
    folder = edit_template(model, tmp_path / "model", "", "{{ strftime_now('%H:%M:%S %f') }}")
    training = caching(build("job", model=str(folder), iters=60), tmp_path / "cache").stop_half_way()
    assert len(files(training.job_dir.tokens)) == 2
    assert not (tmp_path / "cache").exists()
    training.finish(2)
    assert training.only(Kind.SELF_TEST)["equal"]
    again = build("again", model=str(folder), iters=60).finish()
    assert again.losses()[1] != training.losses()[1]  # another job has the time of its own start


def test_data_changed_meanwhile_not_cached(model: Path, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat)
    spec = JobSpec.model_validate({"model": str(model), "data": str(data)})
    cache = tmp_path / "cache"
    job_dir = JobDir(tmp_path, cache=cache)
    tools = text_tools(load(model))

    def read(more: str) -> int:
        def encode_and_append(texts: Sequence[str], *, special: bool) -> list[list[int]]:
            with (data / "train.jsonl").open("a") as file:
                file.write(more)
            return tools.encode(texts, special=special)

        return len(folder_rows(spec, dataclasses.replace(tools, encode=encode_and_append), job_dir)[0])

    assert read((data / "train.jsonl").read_text().splitlines()[0] + "\n") == 22
    assert not cache.exists()
    assert read("") == 24  # the first call encoded two files
    assert len(files(cache)) == 2
