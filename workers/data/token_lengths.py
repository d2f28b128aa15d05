"""The token lengths of a data file's rows, without loading a model: by its tokenizer.json, else by characters.

Rows become tokens as in MLX-LM (mlx_lm/tuner/datasets.py). Counts are cached under a hash of what they depend on.
tokenizers is imported only to count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.preference_rows import longest_of
from workers.data.chat_template import Render, TemplateUnusable, renderer, source_of
from workers.files.atomic import write_atomically

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

CHARACTERS_PER_TOKEN = 3.5
"""Of English text in current vocabularies; used if the tokenizer is not on this machine."""

TOKENS_PER_MESSAGE = 5
"""Tokens that a chat template adds to a message; used if the template cannot be applied."""

MAX_ROWS = 20_000
"""Rows to tokenize. Of a longer file, lq tokenizes the longest rows and an even sample, and estimates the others."""

_VERSION = 1
_BATCH = 512
_BUFFERED_ROWS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenLengths:
    """The tokens of each row of a file."""

    tokens: tuple[int, ...]  # in the order of the file
    how: Literal["tokenizer", "sample", "characters"]  # exact, exact for a sample, or estimated from characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Text:
    """The text of a row."""

    text: str
    is_chat: bool  # a chat has its special tokens in the text
    extra: int = 0  # tokens of a chat template that could not be applied


def lengths_of(data: Path, model: Path | None, spec: JobSpec, *, cache: Path | None) -> TokenLengths:
    """Count the tokens of a data file's rows.

    Args:
        data: a validated file such as train.jsonl.
        model: its folder; None if it is not on this machine.
        spec: names the fields of a row.
        cache: folder for the counts, created when needed; None to keep none.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    counter = _Counter(model, spec)
    if cache is None:
        return _count(data, counter)
    path = cache / f"{_hash_of(data, counter, spec)}.json"
    known = _read(path)
    if known is not None:
        return known
    counted = _count(data, counter)
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, json.dumps({"version": _VERSION, "how": counted.how, "tokens": counted.tokens}))
    except OSError:  # the next call counts again
        pass
    return counted


def _read(path: Path) -> TokenLengths | None:
    try:
        content = json.loads(path.read_text())
        if content["version"] != _VERSION:
            return None
        return TokenLengths(tokens=tuple(map(int, content["tokens"])), how=content["how"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash_of(data: Path, counter: _Counter, spec: JobSpec) -> str:
    """Return a hash of everything the lengths depend on."""
    digest = hashlib.sha256(json.dumps([_VERSION, MAX_ROWS, counter.template, *_features(spec), *spec.lq.objective.keys]).encode())
    for path in (data, counter.file):
        if path is not None:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _features(spec: JobSpec) -> tuple[str, str, str, str]:
    return spec.prompt_feature, spec.completion_feature, spec.chat_feature, spec.text_feature


class _Counter:
    """Counts the tokens of texts as the model's tokenizer would."""

    def __init__(self, model: Path | None, spec: JobSpec) -> None:
        self.spec = spec
        file = model / "tokenizer.json" if model is not None else None
        self.file = file if file is not None and file.is_file() else None
        self.template = source_of(model) if model is not None else None
        self._specials = _special_tokens(model) if model is not None else {}
        self._tokenizer: Any = None
        self._render: Render | None = None
        if self.template is not None:
            try:
                self._render = renderer(self.template, self._specials)
            except TemplateUnusable:
                self.template = None

    def text_of(self, row: Mapping[str, Any]) -> _Text:
        """Return the text of a row."""
        prompt, completion, chat, text = _features(self.spec)
        objective = self.spec.lq.objective
        if objective.keys:
            messages: Any = longest_of(row, objective.keys)
        elif prompt in row and completion in row:
            messages = [{"role": "user", "content": row[prompt]}, {"role": "assistant", "content": row[completion]}]
        elif chat in row:
            messages = row[chat]
        else:
            return _Text(text=str(row[text]), is_chat=False)
        if self._render is not None:
            try:
                return _Text(text=self._render(messages, row.get("tools")), is_chat=True)
            except TemplateUnusable:
                pass
        contents = [_content_of(message) for message in messages]
        return _Text(text="\n".join(contents), is_chat=True, extra=TOKENS_PER_MESSAGE * len(contents))

    def tokens_of(self, texts: Sequence[_Text]) -> list[int]:
        """Count the tokens of texts with the tokenizer."""
        from tokenizers import Tokenizer

        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_file(str(self.file))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        end = self._tokenizer.token_to_id(self._specials.get("eos_token", ""))
        counts = [0] * len(texts)
        for is_chat in (True, False):
            indices = [index for index, text in enumerate(texts) if text.is_chat is is_chat]
            for start in range(0, len(indices), _BATCH):
                batch = indices[start : start + _BATCH]
                encodings = self._tokenizer.encode_batch(
                    [texts[index].text for index in batch], add_special_tokens=not is_chat
                )
                for index, encoding in zip(batch, encodings, strict=True):
                    # MLX-LM appends the token that ends a text
                    ended = is_chat or end is None or encoding.ids[-1:] == [end]
                    counts[index] = len(encoding.ids) + texts[index].extra + (not ended)
        return counts


def _content_of(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _special_tokens(model: Path) -> dict[str, str]:
    try:
        settings = json.loads((model / "tokenizer_config.json").read_text())
    except (OSError, ValueError):
        return {}
    entries = settings.items() if isinstance(settings, dict) else ()
    tokens = {name: entry.get("content") if isinstance(entry, dict) else entry for name, entry in entries}
    return {name: token for name, token in tokens.items() if name.endswith("_token") and isinstance(token, str)}


def _count(data: Path, counter: _Counter) -> TokenLengths:
    """Count a file's rows, all or a sample, in two passes, so that the text of a large file is not held in memory."""
    if counter.file is None:
        return TokenLengths(tokens=tuple(_by_characters(text) for text in _texts(data, counter)), how="characters")
    characters = [len(text.text) for text in _texts(data, counter)]
    chosen = _sample(characters)
    tokens: dict[int, int] = {}
    buffer: dict[int, _Text] = {}

    def count_buffer() -> None:
        tokens.update(zip(buffer, counter.tokens_of(list(buffer.values())), strict=True))
        buffer.clear()

    for index, text in enumerate(_texts(data, counter)):
        if index in chosen:
            buffer[index] = text
        if len(buffer) >= _BUFFERED_ROWS:
            count_buffer()
    count_buffer()
    per_character = sum(tokens.values()) / max(1, sum(characters[index] for index in tokens))
    lengths = tuple(tokens.get(index, max(1, round(size * per_character))) for index, size in enumerate(characters))
    return TokenLengths(tokens=lengths, how="tokenizer" if len(tokens) == len(characters) else "sample")


def _by_characters(text: _Text) -> int:
    return max(1, round(len(text.text) / CHARACTERS_PER_TOKEN)) + text.extra + (not text.is_chat)


def _sample(characters: Sequence[int]) -> set[int]:
    """Return the rows to tokenize: all; or the longest ones and an even sample, half of the limit each."""
    rows = len(characters)
    if rows <= MAX_ROWS:
        return set(range(rows))
    longest = sorted(range(rows), key=lambda index: characters[index], reverse=True)[: MAX_ROWS // 2]
    return {*longest, *range(0, rows, -(-rows // (MAX_ROWS // 2)))}


def _texts(data: Path, counter: _Counter) -> Iterator[_Text]:
    with data.open(encoding="utf-8") as file:
        for line in file:
            yield counter.text_of(json.loads(line))
