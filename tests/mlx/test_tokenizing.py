"""Rows tokenized many at a time beside MLX-LM's own, one by one: the same tokens, the same offsets, in every format."""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper, load
from mlx_lm.tuner.datasets import CacheDataset, ConcatenatedDataset, TextDataset, load_dataset
from transformers import ByT5Tokenizer

from tests.mlx import rows
from workers.data.batches import Rows
from workers.data.tokenizing import AT_ONCE, Encoder, tokenized

ONES_MORE = "naïve 東京 🙂\n\n  <|im_end|> \t" + "x" * 500
"""What a byte-level tokenizer must not stumble over: no letters of its own, special tokens in plain text, length."""


def settings(data: Path, **changes: Any) -> Any:
    usual = {"data": str(data), "train": True, "test": False, "hf_dataset": None, "mask_prompt": False}
    return types.SimpleNamespace(**usual | changes)


def one_by_one(data: Any) -> list[tuple[list[int], int, int]]:
    """What MLX-LM makes of each row: its tokens, where learning begins, and what it sorts by."""
    cached = CacheDataset(data)
    return [(*cached[place], cached.itemlen(place)) for place in range(len(data))]


def told(found: Rows) -> list[tuple[list[int], int, int]]:
    columns = zip(found.tokens, found.offsets, found.sort_keys, strict=True)
    return [(row.tolist(), offset, key) for row, offset, key in columns]


def compare(folder: Path, tokenizer: Any, **changes: Any) -> None:
    asked = settings(folder, **changes)
    theirs = load_dataset(asked, tokenizer)
    encoder = Encoder(tokenizer)
    ours = load_dataset(asked, cast("Any", encoder))
    for mine, other in zip(ours, theirs, strict=True):
        assert told(tokenized(mine, encoder)) == one_by_one(other)


@pytest.mark.parametrize(
    ("make", "mask_prompt"),
    [
        *((make, mask) for make in (rows.chat, rows.completions, rows.tools) for mask in (False, True)),
        (rows.text, False),  # MLX-LM masks no text
    ],
)
def test_every_row_has_mlx_lms_own_tokens(
    make: Callable[..., rows.Row], mask_prompt: bool, model: Path, tmp_path: Path
) -> None:
    data = rows.write(tmp_path / "data", make, train=AT_ONCE + 3, valid=1)
    compare(data, load(model), mask_prompt=mask_prompt)


@pytest.mark.parametrize("mask_prompt", [False, True])
def test_conversations_of_any_shape_have_mlx_lms_own_tokens(mask_prompt: bool, model: Path, tmp_path: Path) -> None:
    talk = [
        [{"role": "system", "content": ONES_MORE}, {"role": "user", "content": "?"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": ONES_MORE}],
        [{"role": "assistant", "content": "q"}, {"role": "assistant", "content": "r"}],
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"conversation": one}) + "\n" for one in talk))
    compare(tmp_path, load(model), mask_prompt=mask_prompt, chat_feature="conversation")


def text(content: list[Any], by: Any, **more: Any) -> Any:
    return TextDataset(content, by, **more)


def with_a_beginning(model: Path, folder: Path) -> Path:
    """Copy a model whose tokenizer puts a token before every text, and none before what a chat template made."""
    shutil.copytree(model, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    token = next(one for one in content["added_tokens"] if one["content"] == "<|endoftext|>")
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            token["content"]: {"id": token["content"], "ids": [token["id"]], "tokens": [token["content"]]}
        },
    }
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("make", [rows.chat, rows.text])
def test_special_tokens_are_added_where_mlx_lm_adds_them(
    make: Callable[..., rows.Row], model: Path, tmp_path: Path
) -> None:
    tokenizer = load(with_a_beginning(model, tmp_path / "model"))
    begins = tokenizer.encode("a")[0] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert begins
    compare(rows.write(tmp_path / "data", make), tokenizer)


def test_several_data_sets_in_one_are_told_apart(model: Path) -> None:
    tokenizer = load(model)
    encoder = Encoder(tokenizer)

    def made(by: Any) -> ConcatenatedDataset:
        return ConcatenatedDataset(
            [text([{"text": "one"}, {"text": "two"}], by), text([{"body": "three"}], by, text_key="body")]
        )

    assert told(tokenized(made(encoder), encoder)) == one_by_one(made(tokenizer))


def test_a_tokenizer_written_in_python_encodes_row_by_row() -> None:
    tokenizer = TokenizerWrapper(ByT5Tokenizer())
    encoder = Encoder(tokenizer)
    texts = [{"text": "What is 1 plus 1?"}, {"text": ONES_MORE}]
    assert not tokenizer.is_fast
    assert told(tokenized(text(texts, encoder), encoder)) == one_by_one(text(texts, tokenizer))


def test_what_is_no_text_is_refused(model: Path) -> None:
    encoder = Encoder(load(model))
    with pytest.raises(ValueError):
        tokenized(text([{"text": "one"}, {"text": ["two", "three"]}], encoder), encoder)
