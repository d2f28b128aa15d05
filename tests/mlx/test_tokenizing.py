"""Rows have the tokens and masks that MLX-LM gives one by one, in the trainer and at submit, in every format."""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper, load
from mlx_lm.tuner.datasets import CacheDataset, ChatDataset, ConcatenatedDataset, TextDataset, load_dataset
from transformers import ByT5Tokenizer

from configs.data_rows import format_of
from jobs.model.errors import DataInvalid
from jobs.model.spec import JobSpec
from tests.mlx import rows
from workers.data.batches import Rows
from workers.data.model_text import ModelText
from workers.data.rendering import Renderer, tokenized
from workers.data.tokenizing import AT_ONCE, RowSet, joined, rows_of
from workers.mlx.data import row_sets, text_tools

DIFFICULT = "naïve 東京 🙂\n\n  <|im_end|> \t" + "x" * 500
"""Difficult text for a byte-level tokenizer: letters without a token, special tokens in plain text, length."""

Triple = tuple[list[int], int, int]
"""The tokens of a row, the first supervised one, and the sort key."""

ASK, ANSWER = {"role": "user", "content": "What is 1 plus 1?"}, {"role": "assistant", "content": "two"}


def settings(data: Path, **changes: Any) -> Any:
    usual = {"data": str(data), "train": True, "test": False, "hf_dataset": None, "mask_prompt": False}
    return types.SimpleNamespace(**usual | changes)


def one_by_one(data: Any) -> list[Triple]:
    """Return what MLX-LM makes of each row."""
    cached = CacheDataset(data)
    return [(*cached[place], cached.itemlen(place)) for place in range(len(data))]


def listed(rows: Rows) -> list[Triple]:
    columns = zip(rows.tokens, rows.offsets, rows.sort_keys, strict=True)
    return [(row.tolist(), offset, key) for row, offset, key in columns]


def trained(data: Any, tokenizer: Any, *, mask_prompt: bool = False) -> list[Triple]:
    """Return what the trainer makes of each row of a data set of MLX-LM."""
    tools = text_tools(tokenizer)
    return listed(joined([rows_of(part, tools, mask_prompt=mask_prompt) for part in row_sets("train", data)]))


def submitted(data: Any, model: Path, *, mask_prompt: bool) -> list[tuple[list[int], int]]:
    """Return what submit makes of each row, from the files of the model."""
    text = ModelText(model)
    (part,) = row_sets("train", data)
    renderer = Renderer(part.row_format, text.render, mask_prompt=mask_prompt)
    return [
        (tokens, learned[0][0])
        for tokens, learned in tokenized([renderer(row) for row in part.rows], text.encode, text.end)
    ]


def compare(folder: Path, model: Path, **changes: Any) -> None:
    asked = settings(folder, **changes)
    tokenizer: Any = load(model)
    # transformers 5 replaces the pre-tokenizer of a Qwen2 model; a real Qwen2 has the same one in its file
    tokenizer._tokenizer.backend_tokenizer.save(str(model / "tokenizer.json"))
    for data in cast("Any", load_dataset)(asked, tokenizer):
        if not len(data):
            continue
        expected = one_by_one(data)
        assert trained(data, tokenizer, mask_prompt=asked.mask_prompt) == expected
        assert submitted(data, model, mask_prompt=asked.mask_prompt) == [triple[:2] for triple in expected]


@pytest.fixture
def own_model(model: Path, tmp_path: Path) -> Path:
    """Return a copy of the model, for changes."""
    return Path(shutil.copytree(model, tmp_path / "model"))


def change_template(model: Path, template: str) -> None:
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


@pytest.mark.parametrize(
    ("make", "mask_prompt"),
    [
        *((make, mask) for make in (rows.chat, rows.completions, rows.tools) for mask in (False, True)),
        (rows.text, False),  # MLX-LM masks no text
    ],
)
def test_rows_have_the_tokens_of_mlx_lm(
    make: Callable[..., rows.Row], mask_prompt: bool, own_model: Path, tmp_path: Path
) -> None:
    data = rows.write(tmp_path / "data", make, train=AT_ONCE + 3, valid=1)
    compare(data, own_model, mask_prompt=mask_prompt)


def write_chats(folder: Path, chats: Sequence[Sequence[Any]], key: str = "messages") -> Path:
    (folder / "train.jsonl").write_text("".join(json.dumps({key: chat}) + "\n" for chat in chats))
    return folder


@pytest.mark.parametrize("mask_prompt", [False, True])
def test_unusual_chats_have_same_tokens(mask_prompt: bool, own_model: Path, tmp_path: Path) -> None:
    chats: list[list[Any]] = [
        [{"role": "system", "content": DIFFICULT}, ASK, ANSWER],
        [ASK, {"role": "assistant", "content": ""}, ASK, {"role": "assistant", "content": "b"}],
        [ASK, {"role": "assistant", "content": DIFFICULT}],
        [ANSWER, {"role": "assistant", "content": "r"}],
        [ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, ANSWER],
        [ASK, {"role": "assistant", "content": "two", "reasoning": "1 + 1"}],
        [ASK, {"role": "model", "content": "two"}],
    ]
    data = write_chats(tmp_path, chats, key="conversation")
    compare(data, own_model, mask_prompt=mask_prompt, chat_feature="conversation")


CHATML = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TEMPLATES = {
    "blocks, breaks and the generation mark": (
        "{{ bos_token }}{% for message in messages %}\n  {% if loop.index0 == 9 %}{% break %}{% endif %}\n"
        "<|im_start|>{{ message.role }}\n{% generation %}{{ message | tojson }}{% endgeneration %}{{ eos_token }}\n"
        "{%- endfor %}\n{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "a scope of its own in the generation mark": (
        "{% set seen = 'a' %}{% for message in messages %}{{ message.role }}:{% generation %}{% set seen = 'b' %}"
        "{{ message.content }}{{ seen }}{% endgeneration %}{{ seen }};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    "a thinking model": (
        "{{ enable_thinking }}{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% if message.role == 'assistant' %}<think>\n"
        "{{ message.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "instructions in brackets": (
        "{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content | trim }} [/INST]"
        "{% else %} {{ message.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("mask_prompt", [False, True])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_templates_render_as_in_mlx_lm(template: str, mask_prompt: bool, own_model: Path, tmp_path: Path) -> None:
    change_template(own_model, template)
    chats = [[ASK, ANSWER], [ASK, ANSWER, ASK, {"role": "assistant", "content": "<b>2</b>", "thinking": "1 + 1"}]]
    compare(write_chats(tmp_path, chats), own_model, mask_prompt=mask_prompt)


def text(content: list[Any], **more: Any) -> Any:
    return TextDataset(content, cast("Any", None), **more)


def with_start_token(model: Path) -> Path:
    """Change a model: its tokenizer puts a token before every text, but not before the text of a chat template."""
    path = model / "tokenizer.json"
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
    return model


@pytest.mark.parametrize("make", [rows.chat, rows.text])
def test_special_tokens_as_in_mlx_lm(make: Callable[..., rows.Row], own_model: Path, tmp_path: Path) -> None:
    tokenizer = load(with_start_token(own_model))
    assert tokenizer.encode("a")[0] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    compare(rows.write(tmp_path / "data", make), own_model)


def test_concatenated_sets_keep_their_keys(model: Path) -> None:
    tokenizer: Any = load(model)
    chat: Any = [{"chat": [ASK, ANSWER]}]
    parts: list[Any] = [
        TextDataset([{"text": "one"}, {"text": "two"}], tokenizer),
        ChatDataset(chat, tokenizer, chat_key="chat"),
    ]
    assert trained(ConcatenatedDataset(parts), tokenizer) == one_by_one(ConcatenatedDataset(parts))


def test_python_tokenizer_goes_row_by_row() -> None:
    tokenizer: Any = TokenizerWrapper(ByT5Tokenizer())
    texts = TextDataset([{"text": "What is 1 plus 1?"}, {"text": DIFFICULT}], tokenizer)
    assert not tokenizer.is_fast
    assert trained(texts, tokenizer) == one_by_one(texts)


def test_rows_without_text_are_refused(model: Path) -> None:
    with pytest.raises(DataInvalid, match="train set:2"):
        trained(text([{"text": "one"}, {"text": ["two", "three"]}]), load(model))


def masked(model: Path, row: rows.Row, **keys: Any) -> tuple[str, str]:
    """Return what the trainer masks of a row, and what it learns."""
    spec = JobSpec.model_validate({"mask_prompt": True} | keys)
    row_format = format_of(row, spec)
    assert row_format is not None
    tokenizer: Any = load(model)
    part = RowSet(name="train", row_format=row_format, rows=[row])
    rows = rows_of(part, text_tools(tokenizer), mask_prompt=spec.mask_prompt)
    tokens, offset = rows.tokens[0].tolist(), rows.offsets[0]
    return tokenizer.decode(tokens[:offset]), tokenizer.decode(tokens[offset:])


def chatml(*turns: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


PARTS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1 plus 1?"}]
PROMPT = chatml(("user", "What is 1 plus 1?")) + "<|im_start|>assistant\n"
LEARNED = "two<|im_end|>\n"
SHAPES: dict[str, tuple[rows.Row, str]] = {
    "text parts": ({"messages": [{"role": "user", "content": PARTS}, ANSWER]}, PROMPT),
    "strings as parts": ({"messages": [{"role": "user", "content": ["What is ", "1 plus 1?"]}, ANSWER]}, PROMPT),
    "parts of an answer": (
        {"messages": [ASK, {"role": "assistant", "content": [{"type": "output_text", "text": "two"}]}]},
        PROMPT,
    ),
    "prompt and completion as messages": ({"prompt": [ASK], "completion": [ANSWER]}, PROMPT),
    "a text and messages": ({"prompt": "What is 1 plus 1?", "completion": [ANSWER]}, PROMPT),
    "a prompt of parts": ({"prompt": PARTS, "completion": "two"}, PROMPT),
    "a prompt of several turns": (
        {"prompt": [ASK, ANSWER, ASK], "completion": [ANSWER]},
        chatml(("user", "What is 1 plus 1?"), ("assistant", "two")) + PROMPT,
    ),
    "system beside a prompt": (
        {"system": "Count.", "prompt": "What is 1 plus 1?", "completion": "two"},
        chatml(("system", "Count.")) + PROMPT,
    ),
    "system beside messages": ({"system": "Count.", "messages": [ASK, ANSWER]}, chatml(("system", "Count.")) + PROMPT),
    "an empty system": ({"system": "", "prompt": "What is 1 plus 1?", "completion": "two"}, PROMPT),
}


@pytest.mark.parametrize(("row", "prompt"), SHAPES.values(), ids=SHAPES)
def test_row_is_what_the_model_sees(row: rows.Row, prompt: str, model: Path) -> None:
    assert masked(model, row) == (prompt, LEARNED)


def test_completion_of_turns_is_learned(model: Path) -> None:
    tool = {"role": "tool", "content": "2"}
    row = {"prompt": [ASK], "completion": [ANSWER, tool, ANSWER]}
    later = chatml(("tool", "2"), ("assistant", "two"))
    assert masked(model, row) == (PROMPT, LEARNED + later)


def test_template_that_handles_parts_gets_them(own_model: Path) -> None:
    change_template(
        own_model,
        "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}({{ part.type }})"
        "{% endif %}{% endfor %}{% endif %}|{% endfor %}",
    )
    picture = [{"type": "image"}, {"type": "text", "text": "a cat?"}]
    row = {"messages": [{"role": "user", "content": picture}, {"role": "assistant", "content": "yes"}]}
    assert masked(own_model, row) == ("(image)a cat?|", "yes|")


BEFORE = "{% for message in messages %}<|im_start|>{{ message.role }}\n"
AFTER = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
STARTS = {
    "thoughts only in the generation prompt": (f"{BEFORE}{{{{ message.content }}}}{AFTER}", "two"),
    "an answer that begins like the generation prompt": (f"{BEFORE}{{{{ message.content }}}}{AFTER}", "<thin> two"),
    "an answer without its thoughts": (f"{BEFORE}{{{{ message.content.split('</think>')[-1] }}}}{AFTER}", "two"),
    "a trimmed answer": (f"{BEFORE}{{{{ message.content | trim }}}}{AFTER}", "two"),
}


@pytest.mark.parametrize(("template", "answer"), STARTS.values(), ids=STARTS)
def test_mask_starts_where_the_answer_starts(template: str, answer: str, own_model: Path) -> None:
    change_template(own_model, template)
    row = {"messages": [ASK, {"role": "assistant", "content": answer}]}
    assert masked(own_model, row) == (PROMPT, f"{answer}<|im_end|>\n")


NOTHING: dict[str, tuple[str, list[rows.Row]]] = {
    "a user turn at the end": (CHATML, [ASK, ANSWER, ASK]),
    "a tool's result at the end": (CHATML, [ASK, ANSWER, {"role": "tool", "content": "2"}]),
    "answers turned around": ("{{ message.content | reverse }}|", [ASK, ANSWER]),
}


@pytest.mark.parametrize(("message", "chat"), NOTHING.values(), ids=NOTHING)
def test_nothing_of_the_prompt_is_learned(message: str, chat: list[rows.Row], own_model: Path) -> None:
    change_template(own_model, "{% for message in messages %}" + message + "{% endfor %}" + "{{ messages | length }}")
    assert masked(own_model, {"messages": chat})[1] == ""


def test_token_across_the_border_is_learned(own_model: Path) -> None:
    """The token of "us" in "plus" begins in the prompt and ends in the answer."""
    change_template(own_model, "{% for message in messages %}{{ message.content }}{% endfor %}")
    prompt, learned = masked(own_model, {"prompt": "What is 5 pl", "completion": "us 4?"})
    assert prompt + learned == "What is 5 plus 4?"
    assert "us 4?" in learned
    assert len(prompt) > len("What is")


REFUSED: dict[str, rows.Row] = {
    "a picture": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER]},
    "a system that is no text": {"system": {"text": "a"}, "messages": [ANSWER]},
    "two system messages": {"system": "a", "messages": [{"role": "system", "content": "b"}, ANSWER]},
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_unreadable_row_is_refused(row: rows.Row, model: Path) -> None:
    with pytest.raises(DataInvalid, match=r"^train:1: "):
        masked(model, row)


def test_error_of_the_template_is_named(own_model: Path) -> None:
    change_template(own_model, "{{ raise_exception('Roles must alternate') }}")
    with pytest.raises(DataInvalid, match=r"^train:1: .*Roles must alternate"):
        masked(own_model, {"messages": [ASK, ANSWER]})
