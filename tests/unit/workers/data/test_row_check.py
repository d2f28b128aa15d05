"""Data files rendered and tokenized without the model: lengths, rows with nothing to learn, and refused rows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.model.errors import DataInvalid, ModelMissing
from jobs.model.spec import JobSpec
from orchestrator.demo.tiny_model import build_model
from workers.data.chat_template import renderer
from workers.data.model_text import ModelText
from workers.data.rendering import CUT_OFF, ENDS_IN_PROMPT, NO_START
from workers.data.row_check import FileCheck, RowChecker

Row = dict[str, Any]

CHAT: list[Row] = [
    {"messages": [{"role": "user", "content": f"What is {n} plus 1?"}, {"role": "assistant", "content": "More. " * n}]}
    for n in range(1, 40)
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model folder that a test may change."""
    build_model(tmp_path / "model")
    return tmp_path / "model"


def written(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def checked(rows: list[Row], model: Path | None, folder: Path, cache: Path | None = None, **keys: Any) -> FileCheck:
    data = written(folder / "train.jsonl", rows)
    return RowChecker(model, JobSpec.model_validate(keys), cache=cache).check(data)


def counted(model: Path, text: str, *, specials: bool = False) -> int:
    return len(ModelText(model).encode([text], special=specials)[0])


def change_template(model: Path, template: Any) -> None:
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


def test_chat_is_counted_with_its_template(model: Path, tmp_path: Path) -> None:
    found = checked(CHAT, model, tmp_path)
    text = "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n<|im_start|>assistant\nMore. <|im_end|>\n"
    assert (found.how, found.left_out, found.learned) == ("tokenizer", {}, len(CHAT))
    assert found.tokens[0] == counted(model, text)
    assert list(found.tokens) == sorted(found.tokens)


def test_many_rows_keep_their_order(model: Path, tmp_path: Path) -> None:
    rows = CHAT * 130  # several calls of the tokenizer
    rows[4_000] = {"messages": CHAT[0]["messages"] * 9}
    tokens = checked(rows, model, tmp_path).tokens
    assert tokens[:39] == tokens[39:78]
    assert len(tokens) == len(rows)
    assert tokens[4_000] == 9 * tokens[0]


def test_text_has_its_end_token_once(model: Path, tmp_path: Path) -> None:
    rows = [{"text": "plus 1"}, {"text": "plus 1<|im_end|>"}]
    assert checked(rows, model, tmp_path).tokens == (counted(model, "plus 1") + 1,) * 2


def test_rows_with_nothing_to_learn_are_named(model: Path, tmp_path: Path) -> None:
    turns = CHAT[0]["messages"]
    long_question = [{"role": "user", "content": "plus " * 200}, turns[1]]
    long_answer = [turns[0], {"role": "assistant", "content": "plus " * 200}]
    rows = [{"messages": chat} for chat in (turns, [*turns, turns[0]], long_question, long_answer, turns)]
    found = checked(rows, model, tmp_path, mask_prompt=True, max_seq_length=64)
    assert found.left_out == {ENDS_IN_PROMPT: (1,), CUT_OFF: (2,)}
    assert [tokens > 64 for tokens in found.tokens] == [False, False, True, True, False]
    assert checked(rows, model, tmp_path, max_seq_length=64).left_out == {}


def test_hidden_start_of_the_answer_is_named(model: Path, tmp_path: Path) -> None:
    change_template(model, "{{ messages | length }}{% for m in messages %}{{ m.content | reverse }}{% endfor %}")
    assert checked(CHAT[:2], model, tmp_path, mask_prompt=True).left_out == {NO_START: (0, 1)}


@pytest.mark.parametrize("fault", ["{{ raise_exception('Roles must alternate') }}", "{{ messages[5].content.x }}"])
def test_row_the_template_refuses_is_named(fault: str, model: Path, tmp_path: Path) -> None:
    change_template(model, "{% if messages | length == 3 %}" + fault + "{% endif %}")
    rows = [*CHAT[:5], {"messages": [*CHAT[0]["messages"], CHAT[0]["messages"][0]]}]
    with pytest.raises(DataInvalid, match=r"/train\.jsonl:6: ") as caught:
        checked(rows, model, tmp_path)
    assert ("Roles must alternate" in str(caught.value)) == ("Roles" in fault)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video"])
def test_parts_without_text_are_refused(kind: str, model: Path | None, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": [{"type": kind}]}, CHAT[0]["messages"][1]]}
    with pytest.raises(DataInvalid, match=rf"/train\.jsonl:2: message 1 .*'{kind}'"):
        checked([CHAT[0], row], model, tmp_path)


def test_chats_need_a_template_and_texts_do_not(model: Path, tmp_path: Path) -> None:
    change_template(model, None)
    with pytest.raises(DataInvalid, match=r"/train\.jsonl:1: .*chat template"):
        checked(CHAT, model, tmp_path)
    assert checked([{"text": "plus 1"}], model, tmp_path).how == "tokenizer"


def test_model_without_a_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(ModelMissing, match="no tokenizer"):
        checked(CHAT, model, tmp_path)


@pytest.mark.parametrize("content", ["", "version https://git-lfs.github.com/spec/v1\n", "{}"])
def test_damaged_tokenizer_is_refused(content: str, model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").write_text(content)
    with pytest.raises(ModelMissing, match=r"tokenizer\.json: cannot be read"):
        checked(CHAT, model, tmp_path)


def test_characters_without_a_tokenizer_file(model: Path, tmp_path: Path) -> None:
    """Some tokenizers are a sentencepiece model only: rows are rendered, and their tokens estimated."""
    (model / "tokenizer.json").rename(model / "tokenizer.model")
    text = "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n<|im_start|>assistant\nMore. <|im_end|>\n"
    found = checked(CHAT[:1], model, tmp_path)
    assert (found.how, found.tokens) == ("characters", (round(len(text) / 3.5),))
    unchecked = RowChecker(model, JobSpec(), cache=None).unchecked
    assert unchecked is not None
    assert "tokenizer.json" in unchecked


def test_unknown_model_is_not_tried(tmp_path: Path) -> None:
    assert checked([{"text": "x" * 350}, {"text": "y"}], None, tmp_path).tokens == (100, 1)
    assert RowChecker(None, JobSpec(), cache=None).unchecked is not None
    picture = {"messages": [{"role": "user", "content": [{"type": "image"}]}, *CHAT[0]["messages"]]}
    found = checked([picture, {"messages": CHAT[0]["messages"][:1]}], None, tmp_path, mask_prompt=True)
    assert found.left_out == {ENDS_IN_PROMPT: (1,)}, "a template on another machine may handle pictures"


def test_results_are_cached_until_a_change(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = checked(CHAT, model, tmp_path, cache)
    (kept,) = cache.iterdir()
    kept.write_text(kept.read_text().replace(f"[{first.tokens[0]},", "[7,"))
    assert checked(CHAT, model, tmp_path, cache).tokens[0] == 7, "read, not counted"
    kept.write_text("{")
    assert checked(CHAT, model, tmp_path, cache) == first, "damaged: counted again"
    assert len(checked([*CHAT, CHAT[0]], model, tmp_path, cache).tokens) == len(CHAT) + 1
    assert checked(CHAT, model, tmp_path, cache, mask_prompt=True, max_seq_length=8).left_out
    change_template(model, "x")
    assert checked(CHAT, model, tmp_path, cache).tokens == (1,) * len(CHAT)
    assert len(list(cache.iterdir())) == 4


def test_unused_results_are_deleted(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    checked(CHAT, model, tmp_path, cache)
    (kept,) = cache.iterdir()
    os.utime(kept, (0, 0))
    checked(CHAT, model, tmp_path, cache)
    checked(CHAT[:3], model, tmp_path, cache)
    assert kept in cache.iterdir(), "it was used"
    os.utime(kept, (0, 0))
    checked(CHAT[:5], model, tmp_path, cache)
    assert kept not in cache.iterdir()


def test_unwritable_cache_is_ignored(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file")
    assert checked(CHAT, model, tmp_path, cache).how == "tokenizer"


def test_shown_row_marks_what_is_learned(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "train.jsonl", CHAT)
    spec = JobSpec.model_validate({"mask_prompt": True, "max_seq_length": 24})
    row = RowChecker(model, spec, cache=None).shown(data, 39)
    ((first, last),) = row.learned
    assert row.text[first:].startswith("More. More. ")
    assert last == row.cut_at
    assert row.text[:first].endswith("<|im_start|>assistant\n")
    assert row.tokens == counted(model, row.text)
    assert row.learned_tokens == 24 - counted(model, row.text[:first])
    assert counted(model, row.text[:last]) == 24
    with pytest.raises(DataInvalid, match=r"has no row 40$"):
        RowChecker(model, spec, cache=None).shown(data, 40)


# --- templates ---


def test_template_comes_from_either_file(model: Path) -> None:
    change_template(model, [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}])
    assert ModelText(model).templates == {"tool_use": "t", "default": "d"}
    (model / "chat_template.jinja").write_text("file")
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool_use.jinja").write_text("tools: {{ tools | length }}")
    render = ModelText(model).render
    assert render is not None
    assert render([], None, add_generation_prompt=False) == "file"
    assert render([], [{}], add_generation_prompt=False) == "tools: 1"


def test_renderer_has_what_templates_use() -> None:
    source = (
        "{{ bos_token }}{% for message in messages %}{% if loop.index0 > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ message['content'] | trim }}{% endgeneration %}{% endfor %}"
        "{{ tools | tojson }}{{ strftime_now('%Y')[:2] }}{{ 'ask' if add_generation_prompt }}"
    )
    render = renderer({"default": source}, {"bos_token": "<s>"})
    messages = [{"role": "user", "content": f" {n} "} for n in range(4)]
    assert render(messages, [{"ä": 1}], add_generation_prompt=True) == '<s>01[{"ä": 1}]20ask'


def test_broken_template_is_refused(model: Path, tmp_path: Path) -> None:
    change_template(model, "a\n{% for %}")
    with pytest.raises(ModelMissing, match="line 2"):
        checked(CHAT, model, tmp_path)
