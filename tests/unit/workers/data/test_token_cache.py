"""The token cache returns what was written for a key, whole or not at all, and its folder stays small."""

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


def rows_of(count: int, *, longest: int = 9, seed: int = 0) -> Rows:
    chance = random.Random(seed)  # noqa: S311 makes rows, guards nothing
    lengths = [chance.randint(0, longest) for _ in range(count)]
    return Rows(
        tokens=[np.array(chance.choices(range(200_000), k=length), np.int32) for length in lengths],
        offsets=[chance.randint(0, 5) for _ in lengths],
        sort_keys=tuple(chance.randint(1, 4) for _ in lengths),
    )


def listed(rows: Rows | None) -> object:
    return rows and ([row.tolist() for row in rows.tokens], list(rows.offsets), rows.sort_keys)


def key(data: str = "d", tokenizer: str = "t", **changes: object) -> Key:
    return key_of(JobSpec.model_validate({"model": "m", "data": "d"} | changes), data, tokenizer)


def only_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@given(st.integers(0, 40), st.integers(0, 30), st.integers())
def test_rows_survive_packing_and_unpacking(count: int, longest: int, seed: int) -> None:
    rows = rows_of(count, longest=longest, seed=seed)
    assert listed(token_cache._unpacked(token_cache._packed(key(), rows), key())) == listed(rows)


def test_only_the_user_reads_cached_rows(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path / "home" / "cache")
    assert cache.read(key()) is None
    cache.write(key(), rows_of(30))
    assert listed(cache.read(key())) == listed(rows_of(30))
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
def test_other_keys_do_not_read_the_file(other: Key, tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    cache.write(other, rows_of(5))
    assert cache.read(key()) is None
    only_file(tmp_path).rename(cache._path(key()))  # even under the name for this key
    assert cache.read(key()) is None
    cache.write(key(), rows_of(7))
    assert listed(cache.read(key())) == listed(rows_of(7))


def test_other_settings_share_the_tokens() -> None:
    assert key(max_seq_length=64, batch_size=2, seed=5) == key()


def test_file_cut_anywhere_is_not_read() -> None:
    whole = token_cache._packed(key(), rows_of(6))
    for length in range(len(whole)):
        assert token_cache._unpacked(whole[:length], key()) is None
    assert token_cache._unpacked(whole + b"\0\0\0\0", key()) is None


def test_file_with_changed_byte_is_not_read() -> None:
    whole = token_cache._packed(key(), rows_of(6))
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        assert listed(token_cache._unpacked(bytes(changed), key())) is None, index


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_not_read(content: bytes) -> None:
    assert token_cache._unpacked(content, key()) is None
    assert token_cache._unpacked(token_cache._MAGIC + content, key()) is None


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file instead of the folder")
    cache = TokenCache(tmp_path / "cache")
    cache.write(key(), rows_of(3))
    assert cache.read(key()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_files_unused_for_a_month_go(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    keys = [key(data=name) for name in ("used", "unused")]
    long_ago = time.time() - token_cache.MAX_AGE_S - 60
    for each in keys:
        cache.write(each, rows_of(3))
    for each in keys:
        os.utime(cache._path(each), (long_ago, long_ago))
    assert cache.read(keys[0]) is not None
    cache.write(key(data="new"), rows_of(3))
    assert [cache.read(each) is not None for each in [*keys, key(data="new")]] == [True, False, True]


def test_least_recently_used_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TokenCache(tmp_path)
    cache.write(key(data="0"), rows_of(50))
    monkeypatch.setattr(token_cache, "MAX_BYTES", 3 * only_file(tmp_path).stat().st_size + 10)
    for number in range(1, 6):
        os.utime(cache._path(key(data=str(number - 1))), (time.time() - 100 + number,) * 2)
        cache.write(key(data=str(number)), rows_of(50))
    assert [cache.read(key(data=str(number))) is not None for number in range(6)] == [False] * 3 + [True] * 3
    cache.write(key(data="too large"), rows_of(900))
    assert cache.read(key(data="too large")) is None
    assert cache.read(key(data="5")) is not None


def test_only_abandoned_partial_files_go(tmp_path: Path) -> None:
    left, now = tmp_path / ".a.tokens.1.partial", tmp_path / ".b.tokens.2.partial"
    for path in (left, now):
        path.write_bytes(b"half")
    os.utime(left, (time.time() - 2 * token_cache._ABANDONED_S,) * 2)
    TokenCache(tmp_path).write(key(), rows_of(3))
    assert not left.exists()
    assert now.exists()


def _write_and_read(folder: Path, times: int) -> None:
    cache = TokenCache(folder)
    for number in range(times):
        cache.write(key(data=str(number % 2)), rows_of(400, seed=number % 2))
        found = cache.read(key(data=str(number % 2)))
        assert listed(found) == listed(rows_of(400, seed=number % 2))


def test_trainers_can_write_the_same_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    trainers = [context.Process(target=_write_and_read, args=(tmp_path / "cache", 40)) for _ in range(3)]
    for trainer in trainers:
        trainer.start()
    for trainer in trainers:
        trainer.join()
    assert [trainer.exitcode for trainer in trainers] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_folder_hash_ignores_weights_only(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors"):
        (tmp_path / name).write_text(name)
    before = folder_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_text("others")
    assert folder_sha256(tmp_path) == before
    hashes = {before}
    (tmp_path / "additional_chat_templates").mkdir()
    for path in ("tokenizer.json", "chat_template.jinja", "added.txt", "additional_chat_templates/tool.jinja"):
        (tmp_path / path).write_text("others")
        assert folder_sha256(tmp_path) not in hashes
        hashes.add(folder_sha256(tmp_path))
    (tmp_path / "added.txt").rename(tmp_path / "renamed.txt")
    assert folder_sha256(tmp_path) not in hashes


def test_rows_are_views_of_the_file(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    cache.write(key(), rows_of(100, longest=500))
    rows = cache.read(key())
    assert rows is not None
    assert all(np.shares_memory(row, rows.tokens[0].base) for row in rows.tokens if len(row))
