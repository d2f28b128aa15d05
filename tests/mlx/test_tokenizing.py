"""Rows tokenized in batches have the tokens and offsets that MLX-LM gives one by one, in every format."""

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

DIFFICULT = "naïve 東京 🙂\n\n  <|im_end|> \t" + "x" * 500
"""Difficult text for a byte-level tokenizer: letters without a token, special tokens in plain text, length."""


def settings(data: Path, **changes: Any) -> Any:
    usual = {"data": str(data), "train": True, "test": False, "hf_dataset": None, "mask_prompt": False}
    return types.SimpleNamespace(**usual | changes)


def one_by_one(data: Any) -> list[tuple[list[int], int, int]]:
    """Return what MLX-LM makes of each row: its tokens, the first supervised token, the sort key."""
    cached = CacheDataset(data)
    return [(*cached[place], cached.itemlen(place)) for place in range(len(data))]


def listed(rows: Rows) -> list[tuple[list[int], int, int]]:
    columns = zip(rows.tokens, rows.offsets, rows.sort_keys, strict=True)
    return [(row.tolist(), offset, key) for row, offset, key in columns]


def compare(folder: Path, tokenizer: Any, **changes: Any) -> None:
    asked = settings(folder, **changes)
    theirs = load_dataset(asked, tokenizer)
    encoder = Encoder(tokenizer)
    ours = load_dataset(asked, cast("Any", encoder))
    for mine, other in zip(ours, theirs, strict=True):
        assert listed(tokenized(mine, encoder)) == one_by_one(other)


@pytest.mark.parametrize(
    ("make", "mask_prompt"),
    [
        *((make, mask) for make in (rows.chat, rows.completions, rows.tools) for mask in (False, True)),
        (rows.text, False),  # MLX-LM masks no text
    ],
)
def test_rows_have_the_tokens_of_mlx_lm(
    make: Callable[..., rows.Row], mask_prompt: bool, model: Path, tmp_path: Path
) -> None:
    data = rows.write(tmp_path / "data", make, train=AT_ONCE + 3, valid=1)
    compare(data, load(model), mask_prompt=mask_prompt)


@pytest.mark.parametrize("mask_prompt", [False, True])
def test_unusual_chats_have_same_tokens(mask_prompt: bool, model: Path, tmp_path: Path) -> None:
    chats = [
        [{"role": "system", "content": DIFFICULT}, {"role": "user", "content": "?"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": DIFFICULT}],
        [{"role": "assistant", "content": "q"}, {"role": "assistant", "content": "r"}],
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"conversation": chat}) + "\n" for chat in chats))
    compare(tmp_path, load(model), mask_prompt=mask_prompt, chat_feature="conversation")


def text(content: list[Any], by: Any, **more: Any) -> Any:
    return TextDataset(content, by, **more)


def with_start_token(model: Path, folder: Path) -> Path:
    """Copy a model; its tokenizer puts a token before every text, but not before the text of a chat template."""
    shutil.copytree(model, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    token = next(token for token in content["added_tokens"] if token["content"] == "<|endoftext|>")
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
def test_special_tokens_as_in_mlx_lm(make: Callable[..., rows.Row], model: Path, tmp_path: Path) -> None:
    tokenizer = load(with_start_token(model, tmp_path / "model"))
    assert tokenizer.encode("a")[0] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    compare(rows.write(tmp_path / "data", make), tokenizer)


def test_concatenated_sets_keep_their_keys(model: Path) -> None:
    tokenizer = load(model)
    encoder = Encoder(tokenizer)

    def made(by: Any) -> ConcatenatedDataset:
        return ConcatenatedDataset(
            [text([{"text": "one"}, {"text": "two"}], by), text([{"body": "three"}], by, text_key="body")]
        )

    assert listed(tokenized(made(encoder), encoder)) == one_by_one(made(tokenizer))


def test_python_tokenizer_goes_row_by_row() -> None:
    tokenizer = TokenizerWrapper(ByT5Tokenizer())
    encoder = Encoder(tokenizer)
    texts = [{"text": "What is 1 plus 1?"}, {"text": DIFFICULT}]
    assert not tokenizer.is_fast
    assert listed(tokenized(text(texts, encoder), encoder)) == one_by_one(text(texts, tokenizer))


def test_rows_without_text_are_refused(model: Path) -> None:
    encoder = Encoder(load(model))
    with pytest.raises(ValueError):
        tokenized(text([{"text": "one"}, {"text": ["two", "three"]}], encoder), encoder)
