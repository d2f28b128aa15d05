"""Token lengths of rows by the tokenizer, by a sample, and by characters; and chat templates."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from jobs.model.spec import JobSpec
from orchestrator.demo.tiny_model import build_model
from workers.data import token_lengths
from workers.data.chat_template import TemplateUnusable, renderer, source_of
from workers.data.token_lengths import lengths_of

CHAT: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"What is {n} plus 1?"}, {"role": "assistant", "content": "More. " * n}]}
    for n in range(1, 40)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder."""
    folder = tmp_path_factory.mktemp("model")
    build_model(folder)
    return folder


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def counted(model: Path, text: str, *, specials: bool = False) -> int:
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(model / "tokenizer.json"))
    return len(tokenizer.encode(text, add_special_tokens=specials).ids)


def test_chat_is_counted_with_its_template(model: Path, tmp_path: Path) -> None:
    lengths = lengths_of(written(tmp_path / "train.jsonl", CHAT), model, JobSpec(), cache=None)
    text = "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n<|im_start|>assistant\nMore. <|im_end|>\n"
    assert lengths.how == "tokenizer"
    assert lengths.tokens[0] == counted(model, text)
    assert list(lengths.tokens) == sorted(lengths.tokens)


def test_completion_counts_like_a_chat(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "What is 1 plus 1?", "completion": "More. "}]
    pair = lengths_of(written(tmp_path / "a.jsonl", rows), model, JobSpec(), cache=None)
    assert pair == lengths_of(written(tmp_path / "b.jsonl", CHAT[:1]), model, JobSpec(), cache=None)


def test_text_has_its_end_token_once(model: Path, tmp_path: Path) -> None:
    rows = [{"text": "plus 1"}, {"text": "plus 1<|im_end|>"}]
    lengths = lengths_of(written(tmp_path / "train.jsonl", rows), model, JobSpec(), cache=None)
    assert lengths.tokens == (counted(model, "plus 1") + 1,) * 2


def test_texts_and_chats_keep_their_order(model: Path, tmp_path: Path) -> None:
    rows = [CHAT[0], {"text": "1"}, CHAT[20], {"text": "2"}]
    lengths = lengths_of(written(tmp_path / "train.jsonl", rows), model, JobSpec(), cache=None).tokens
    assert lengths[1] == lengths[3] == 2
    assert lengths[0] < lengths[2]


def test_characters_without_a_tokenizer(tmp_path: Path) -> None:
    lengths = lengths_of(
        written(tmp_path / "train.jsonl", [{"text": "x" * 350}, *CHAT[:1]]), None, JobSpec(), cache=None
    )
    assert lengths.how == "characters"
    assert lengths.tokens == (101, 10 + round(len("What is 1 plus 1?\nMore. ") / 3.5))


def test_sample_counts_longest_rows_exactly(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(tmp_path / "train.jsonl", CHAT)
    exact = lengths_of(data, model, JobSpec(), cache=None)
    monkeypatch.setattr(token_lengths, "MAX_ROWS", 12)
    sample = lengths_of(data, model, JobSpec(), cache=None)
    assert sample.how == "sample"
    assert sample.tokens[-6:] == exact.tokens[-6:]
    assert statistics.mean(sample.tokens) == pytest.approx(statistics.mean(exact.tokens), rel=0.15)


def test_counts_are_cached_until_a_change(model: Path, tmp_path: Path) -> None:
    data, cache = written(tmp_path / "train.jsonl", CHAT), tmp_path / "cache"
    first = lengths_of(data, model, JobSpec(), cache=cache)
    (kept,) = cache.iterdir()
    kept.write_text(kept.read_text().replace(f"[{first.tokens[0]},", "[7,"))
    assert lengths_of(data, model, JobSpec(), cache=cache).tokens[0] == 7, "read, not counted"
    kept.write_text("{")
    assert lengths_of(data, model, JobSpec(), cache=cache) == first, "damaged: counted again"
    written(data, [*CHAT, CHAT[0]])
    assert len(lengths_of(data, model, JobSpec(), cache=cache).tokens) == len(CHAT) + 1
    assert len(list(cache.iterdir())) == 2


def test_unwritable_cache_is_ignored(model: Path, tmp_path: Path) -> None:
    data, cache = written(tmp_path / "train.jsonl", CHAT), tmp_path / "cache"
    cache.write_text("a file")
    assert lengths_of(data, model, JobSpec(), cache=cache).how == "tokenizer"


# --- templates ---


def test_template_comes_from_either_file(tmp_path: Path) -> None:
    assert source_of(tmp_path) is None
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(
        json.dumps({"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]})
    )
    assert source_of(tmp_path) == "d"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert source_of(tmp_path) == "file"


def test_renderer_has_what_templates_use() -> None:
    source = (
        "{{ bos_token }}{% for message in messages %}{% if loop.index0 > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ message['content'] | trim }}{% endgeneration %}{% endfor %}"
        "{{ tools | tojson }}{{ strftime_now('%Y')[:2] }}"
    )
    render = renderer(source, {"bos_token": "<s>"})
    assert render([{"role": "user", "content": f" {n} "} for n in range(4)], [{"ä": 1}]) == '<s>01[{"ä": 1}]20'


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].content.nothing() }}",
        "{{ ''.__class__.mro() }}",
    ],
)
def test_refusing_template_is_replaced(source: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(TemplateUnusable):
        renderer(source, {})([{"role": "user", "content": "x"}], None)
    (tmp_path / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text(source)
    lengths = lengths_of(written(tmp_path / "train.jsonl", CHAT[:1]), tmp_path, JobSpec(), cache=None)
    assert lengths.tokens == (2 * token_lengths.TOKENS_PER_MESSAGE + counted(model, "What is 1 plus 1?\nMore. "),)


def test_broken_template_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(TemplateUnusable):
        renderer("{% for %}", {})
