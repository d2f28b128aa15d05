"""Kept tokens: what was written comes back for its own key, whole or not at all, and the folder stays small."""

from __future__ import annotations

import multiprocessing
import os
import random
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.spec import JobSpec
from workers.data import token_cache
from workers.data.batches import Rows
from workers.data.token_cache import Key, TokenCache, folder_sha256, key_of


def made(count: int, *, longest: int = 9, seed: int = 0) -> Rows:
    chance = random.Random(seed)  # noqa: S311 makes rows, guards nothing
    lengths = [chance.randint(0, longest) for _ in range(count)]
    return Rows(
        tokens=[np.array(chance.choices(range(200_000), k=length), np.int32) for length in lengths],
        offsets=[chance.randint(0, 5) for _ in lengths],
        sort_keys=tuple(chance.randint(1, 4) for _ in lengths),
    )


def told(rows: Rows | None) -> object:
    return rows and ([row.tolist() for row in rows.tokens], list(rows.offsets), rows.sort_keys)


def key(data: str = "d", tokenizer: str = "t", **changes: object) -> Key:
    return key_of(JobSpec.model_validate({"model": "m", "data": "d"} | changes), data, tokenizer)


def only_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@given(st.integers(0, 40), st.integers(0, 30), st.integers())
def test_rows_come_back_as_they_were_written(count: int, longest: int, seed: int) -> None:
    rows = made(count, longest=longest, seed=seed)
    assert told(token_cache._unpacked(token_cache._packed(key(), rows), key())) == told(rows)


def test_kept_rows_are_found_again_by_this_user_only(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path / "home" / "cache")
    assert cache.read(key()) is None
    cache.write(key(), made(30))
    assert told(cache.read(key())) == told(made(30))
    assert stat.S_IMODE(only_file(tmp_path / "home" / "cache").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home" / "cache").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "other",
    [
        key(data="e"),
        key(tokenizer="u"),
        key(mask_prompt=True),
        key(text_feature="body"),
        key(chat_feature="talk"),
        key(prompt_feature="q"),
        key(completion_feature="a"),
        key() | {"format": token_cache.FORMAT + 1},
        key() | {"encoding": "latin-1"},
        *(key() | {"versions": key()["versions"] | {name: "0"}} for name in key()["versions"]),
    ],
)
def test_rows_of_another_key_are_never_read(other: Key, tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    cache.write(other, made(5))
    assert cache.read(key()) is None
    only_file(tmp_path).rename(cache._path(key()))  # even where it lies in the other's place
    assert cache.read(key()) is None
    cache.write(key(), made(7))
    assert told(cache.read(key())) == told(made(7))


def test_keys_that_change_no_token_do_not_matter() -> None:
    assert key(max_seq_length=64, batch_size=2, seed=5) == key()


def test_a_file_cut_anywhere_is_not_read() -> None:
    whole = token_cache._packed(key(), made(6))
    for length in range(len(whole)):
        assert token_cache._unpacked(whole[:length], key()) is None
    assert token_cache._unpacked(whole + b"\0\0\0\0", key()) is None


def test_a_file_with_any_byte_changed_is_not_read() -> None:
    whole = token_cache._packed(key(), made(6))
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        assert told(token_cache._unpacked(bytes(changed), key())) is None, place


@given(st.binary(max_size=200))
def test_rubbish_is_not_read(content: bytes) -> None:
    assert token_cache._unpacked(content, key()) is None
    assert token_cache._unpacked(token_cache._MAGIC + content, key()) is None


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    cache = TokenCache(tmp_path / "cache")
    cache.write(key(), made(3))
    assert cache.read(key()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_what_nobody_used_for_a_month_goes(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    keys = [key(data=name) for name in ("used", "unused")]
    long_ago = time.time() - token_cache.MAX_AGE_S - 60
    for one in keys:
        cache.write(one, made(3))
    for one in keys:
        os.utime(cache._path(one), (long_ago, long_ago))
    assert cache.read(keys[0]) is not None
    cache.write(key(data="new"), made(3))
    assert [cache.read(one) is not None for one in [*keys, key(data="new")]] == [True, False, True]


def test_the_folder_is_kept_small_by_what_was_unused_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TokenCache(tmp_path)
    cache.write(key(data="0"), made(50))
    monkeypatch.setattr(token_cache, "MAX_BYTES", 3 * only_file(tmp_path).stat().st_size + 10)
    for number in range(1, 6):
        os.utime(cache._path(key(data=str(number - 1))), (time.time() - 100 + number,) * 2)
        cache.write(key(data=str(number)), made(50))
    assert [cache.read(key(data=str(number))) is not None for number in range(6)] == [False] * 3 + [True] * 3
    cache.write(key(data="larger than all may be"), made(900))
    assert cache.read(key(data="larger than all may be")) is None
    assert cache.read(key(data="5")) is not None


def test_what_a_killed_trainer_left_goes_and_what_one_writes_now_stays(tmp_path: Path) -> None:
    left, now = tmp_path / ".a.tokens.1.partial", tmp_path / ".b.tokens.2.partial"
    for path in (left, now):
        path.write_bytes(b"half")
    os.utime(left, (time.time() - 2 * token_cache._ABANDONED_S,) * 2)
    TokenCache(tmp_path).write(key(), made(3))
    assert not left.exists()
    assert now.exists()


def _write_and_read(folder: Path, times: int) -> None:
    cache = TokenCache(folder)
    for number in range(times):
        cache.write(key(data=str(number % 2)), made(400, seed=number % 2))
        found = cache.read(key(data=str(number % 2)))
        assert told(found) == told(made(400, seed=number % 2))


def test_several_trainers_may_write_the_same_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    trainers = [context.Process(target=_write_and_read, args=(tmp_path / "cache", 40)) for _ in range(3)]
    for one in trainers:
        one.start()
    for one in trainers:
        one.join()
    assert [one.exitcode for one in trainers] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_models_hash_is_that_of_all_but_its_weights(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors"):
        (tmp_path / name).write_text(name)
    before = folder_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_text("others")
    assert folder_sha256(tmp_path) == before
    seen = {before}
    (tmp_path / "additional_chat_templates").mkdir()
    for path in ("tokenizer.json", "chat_template.jinja", "added.txt", "additional_chat_templates/tool.jinja"):
        (tmp_path / path).write_text("others")
        assert folder_sha256(tmp_path) not in seen
        seen.add(folder_sha256(tmp_path))
    (tmp_path / "added.txt").rename(tmp_path / "renamed.txt")
    assert folder_sha256(tmp_path) not in seen


def test_a_row_is_a_view_of_the_file_and_no_copy(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    cache.write(key(), made(100, longest=500))
    rows = cache.read(key())
    assert rows is not None
    assert all(np.shares_memory(row, rows.tokens[0].base) for row in rows.tokens if len(row))
