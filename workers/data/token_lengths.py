"""How long the rows of a data file are in tokens, without loading a model: by its tokenizer.json, else by characters.

Rows become tokens as MLX-LM makes them (mlx_lm/tuner/datasets.py). What was counted once is kept on the disk, by what
it depends on. tokenizers is imported when something is counted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workers.data.chat_template import Render, TemplateUnusable, renderer, source_of
from workers.files.atomic import write_atomically

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

CHARACTERS_PER_TOKEN = 3.5
"""Of English text in the vocabularies of today; used where the tokenizer is not on this machine."""

TOKENS_PER_MESSAGE = 5
"""What a chat template puts around a message; used where it cannot be applied."""

MOST_ROWS = 20_000
"""Of a longer file the longest rows and every so many-th are tokenised; of the others the characters are counted."""

_VERSION = 1
_BATCH = 512
_LINES = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of each row of a file."""

    tokens: tuple[int, ...]  # in the order of the file
    how: Literal["tokenizer", "sample", "characters"]  # exact, exact for a sample, or estimated from characters


def lengths_of(data: Path, model: Path | None, spec: JobSpec, *, cache: Path | None) -> Lengths:
    """Count the tokens of a data file's rows.

    Args:
        data: such as train.jsonl; was checked before.
        model: its folder; None where it is not on this machine.
        spec: names the keys of a row.
        cache: folder for what was counted; made where something is. None: nothing is kept.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    counter = _Counter(model, spec)
    if cache is None:
        return _count(data, counter)
    place = cache / f"{_hash_of(data, counter, spec)}.json"
    known = _read(place)
    if known is not None:
        return known
    counted = _count(data, counter)
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(place, json.dumps({"version": _VERSION, "how": counted.how, "tokens": counted.tokens}))
    except OSError:  # it is counted anew next time
        pass
    return counted


def _read(place: Path) -> Lengths | None:
    try:
        content = json.loads(place.read_text())
        if content["version"] != _VERSION:
            return None
        return Lengths(tokens=tuple(map(int, content["tokens"])), how=content["how"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash_of(data: Path, counter: _Counter, spec: JobSpec) -> str:
    """Return what names everything the lengths depend on."""
    digest = hashlib.sha256(json.dumps([_VERSION, MOST_ROWS, counter.template, *_features(spec)]).encode())
    for path in (data, counter.file):
        if path is not None:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _features(spec: JobSpec) -> tuple[str, str, str, str]:
    return spec.prompt_feature, spec.completion_feature, spec.chat_feature, spec.text_feature


class _Counter:
    """Counts the tokens of texts as a model would."""

    def __init__(self, model: Path | None, spec: JobSpec) -> None:
        self.spec = spec
        file = model / "tokenizer.json" if model is not None else None
        self.file = file if file is not None and file.is_file() else None
        self.template = source_of(model) if model is not None else None
        self._specials = _special_tokens(model) if model is not None else {}
        self._render: Render | None = None
        if self.template is not None:
            try:
                self._render = renderer(self.template, self._specials)
            except TemplateUnusable:
                self.template = None

    def text_of(self, row: Mapping[str, Any]) -> tuple[str, bool, int]:
        """Return a row's text, whether it is a chat, and tokens that stand around it."""
        prompt, completion, chat, text = _features(self.spec)
        if prompt in row and completion in row:
            messages = [{"role": "user", "content": row[prompt]}, {"role": "assistant", "content": row[completion]}]
        elif chat in row:
            messages = row[chat]
        else:
            return str(row[text]), False, 0
        if self._render is not None:
            try:
                return self._render(messages, row.get("tools")), True, 0
            except TemplateUnusable:
                pass
        said = [_said(message) for message in messages]
        return "\n".join(said), True, TOKENS_PER_MESSAGE * len(said)

    def tokens_of(self, texts: Sequence[tuple[str, bool, int]]) -> list[int]:
        """Count the tokens of rows, as `text_of` returns them; by the tokenizer."""
        from tokenizers import Tokenizer

        if not hasattr(self, "_tokenizer"):
            self._tokenizer: Any = Tokenizer.from_file(str(self.file))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._end = self._tokenizer.token_to_id(self._specials.get("eos_token", ""))
        counts = []
        for start in range(0, len(texts), _BATCH):
            part = texts[start : start + _BATCH]
            for is_chat in (True, False):
                chosen = [text for text, chat, _ in part if chat is is_chat]
                encoded = iter(self._tokenizer.encode_batch(chosen, add_special_tokens=not is_chat))
                found = {place: next(encoded).ids for place, (_, chat, _) in enumerate(part) if chat is is_chat}
                counts += [
                    (start + place, len(ids) + part[place][2] + self._ends(ids, is_chat))
                    for place, ids in found.items()
                ]
        return [count for _, count in sorted(counts)]

    def _ends(self, ids: Sequence[int], is_chat: bool) -> int:
        """Return 1 where MLX-LM appends the token that ends a text."""
        return int(not is_chat and self._end is not None and (not ids or ids[-1] != self._end))


def _said(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _special_tokens(model: Path) -> dict[str, str]:
    try:
        settings = json.loads((model / "tokenizer_config.json").read_text())
    except (OSError, ValueError):
        return {}
    named = settings.items() if isinstance(settings, dict) else ()
    tokens = {name: one.get("content") if isinstance(one, dict) else one for name, one in named}
    return {name: one for name, one in tokens.items() if name.endswith("_token") and isinstance(one, str)}


def _count(data: Path, counter: _Counter) -> Lengths:
    """Count a file's rows, all or a sample, in two passes: the text of a large file is not kept."""
    if counter.file is None:
        return Lengths(tokens=tuple(_by_characters(one) for one in _texts(data, counter)), how="characters")
    characters = [len(text) for text, _, _ in _texts(data, counter)]
    chosen = _chosen(characters)
    tokens: dict[int, int] = {}
    waiting: list[tuple[int, tuple[str, bool, int]]] = []

    def count_waiting() -> None:
        counts = counter.tokens_of([text for _, text in waiting])
        tokens.update(zip((place for place, _ in waiting), counts, strict=True))
        waiting.clear()

    for place, text in enumerate(_texts(data, counter)):
        if place in chosen:
            waiting.append((place, text))
        if len(waiting) >= _LINES:
            count_waiting()
    count_waiting()
    per_character = sum(tokens.values()) / max(1, sum(characters[place] for place in tokens))
    whole = tuple(tokens.get(place, max(1, round(size * per_character))) for place, size in enumerate(characters))
    return Lengths(tokens=whole, how="tokenizer" if len(tokens) == len(characters) else "sample")


def _by_characters(row: tuple[str, bool, int]) -> int:
    text, is_chat, around = row
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN)) + around + (not is_chat)


def _chosen(characters: Sequence[int]) -> set[int]:
    """Return the rows to tokenise: all, or half of what is allowed by length and half evenly over the file."""
    rows = len(characters)
    if rows <= MOST_ROWS:
        return set(range(rows))
    longest = sorted(range(rows), key=lambda place: characters[place], reverse=True)[: MOST_ROWS // 2]
    return {*longest, *range(0, rows, -(-rows // (MOST_ROWS // 2)))}


def _texts(data: Path, counter: _Counter) -> Iterator[tuple[str, bool, int]]:
    with data.open(encoding="utf-8") as file:
        for line in file:
            yield counter.text_of(json.loads(line))
