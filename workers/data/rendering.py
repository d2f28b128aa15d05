"""From a row of a data file to the text that the model sees, and the parts of it that are learned. No tokenizer.

Submit and trainer use this module, so that what is checked is what is trained. A row that MLX-LM handles correctly
gives the same text and mask as its data sets do (mlx_lm/tuner/datasets.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from configs.data_rows import RowFormat
from jobs.model.errors import message_of

Messages = Sequence[Mapping[str, Any]]
Span = tuple[int, int]
"""First position, and the position after the last."""

ENDS_IN_PROMPT, NO_START, CUT_OFF = "ends_in_prompt", "no_start", "cut_off"
"""Why a row has nothing to learn: its last message is not an answer; the template does not show where the answer
starts; or the answer starts beyond max_seq_length."""

PROMPT_ROLES = frozenset({"system", "developer", "user", "human", "tool", "function", "ipython", "observation"})
"""Roles whose messages are never an answer."""

_TEXT_PARTS = (None, "text", "input_text", "output_text")
_MARK = "\ue0a1lq"
"""Stands for an answer, to see where a template puts it: a private character that no data set begins with."""


class RowUnusable(Exception):
    """A row cannot be rendered; the text says why."""


class Render(Protocol):
    """A model's chat template."""

    def __call__(self, messages: Messages, tools: Any, *, add_generation_prompt: bool) -> str:
        """Return the text of messages and tools."""


class Rendered(NamedTuple):
    """A row as the model sees it."""

    text: str
    is_chat: bool  # the template wrote the special tokens
    learned: tuple[Span, ...]  # in characters
    why: str | None = None  # nothing is learned for this reason


class Renderer:
    """Renders the rows of a file."""

    def __init__(self, row_format: RowFormat, render: Render | None, *, mask_prompt: bool) -> None:
        """Take the format of the file; `render` is None if the model has no chat template."""
        self._format, self._render, self._mask_prompt = row_format, render, mask_prompt

    def __call__(self, row: Mapping[str, Any]) -> Rendered:
        """Render a row.

        Raises:
            RowUnusable: it lacks a key, has parts that a language model cannot see, or the template refuses it.
        """
        missing = [key for key in self._format.keys if key not in row]
        if missing:
            raise RowUnusable(f"no '{missing[0]}'")
        try:
            if self._format.name == "text":
                text = row[self._format.keys[0]]
                if not isinstance(text, str):
                    raise RowUnusable(f"'{self._format.keys[0]}' must be text")
                return Rendered(text, is_chat=False, learned=((0, len(text)),))
            return self._chat(row)
        except (RowUnusable, MemoryError):
            raise
        except Exception as error:  # a template is code that comes with the model, and a row is any JSON
            raise RowUnusable(f"the model's chat template refuses the row: {message_of(error)}") from error

    def _chat(self, row: Mapping[str, Any]) -> Rendered:
        if self._render is None:
            raise RowUnusable("the model has no chat template; use an instruct model, or rows with 'text'")
        messages, answer = self.conversation(row)
        tools = row.get("tools")
        text = self._render(messages, tools, add_generation_prompt=False)
        if not self._mask_prompt:
            return Rendered(text, is_chat=True, learned=((0, len(text)),))
        if not messages or messages[-1].get("role") in PROMPT_ROLES:
            return Rendered(text, is_chat=True, learned=(), why=ENDS_IN_PROMPT)
        while messages[answer].get("role") in PROMPT_ROLES:
            answer += 1
        start = self._start(messages, answer, tools, text)
        if start is None:
            return Rendered(text, is_chat=True, learned=(), why=NO_START)
        return Rendered(text, is_chat=True, learned=((start, len(text)),))

    def conversation(self, row: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
        """Return the messages of a row, and the index of the first one that is not part of the prompt."""
        if self._format.name == "chat":
            messages = list(row[self._format.keys[0]])
            answer = len(messages) - 1
        else:
            prompt, completion = self._format.keys
            messages = _messages(row[prompt], "user")
            answer = len(messages)
            messages += _messages(row[completion], "assistant")
        system = row.get("system")
        if system:
            if not isinstance(system, str | list):
                raise RowUnusable("'system' must be text")
            if messages and messages[0].get("role") == "system":
                raise RowUnusable("has both 'system' and a system message; remove one of them")
            messages.insert(0, {"role": "system", "content": system})
            answer += 1
        return [self._readable(message, position) for position, message in enumerate(messages)], answer

    def _readable(self, message: Mapping[str, Any], position: int) -> Mapping[str, Any]:
        """Join the text parts of a message, unless the template handles lists itself."""
        content = message.get("content")
        if not isinstance(content, list) or self._handles_lists:
            return message
        texts = [_text_of(part, f"message {position + 1}") for part in content]
        return {**message, "content": "".join(texts)}

    @cached_property
    def _handles_lists(self) -> bool:
        """Whether the template shows the text of content that is a list of parts, and not its Python or JSON form."""
        assert self._render is not None
        messages = [
            {"role": role, "content": [{"type": "text", "text": f"{_MARK}{role}"}]} for role in ("user", "assistant")
        ]
        try:
            text = self._render(messages, None, add_generation_prompt=False)
        except Exception:  # noqa: BLE001 a template is code that comes with the model
            return False
        shown = all(f"{_MARK}{message['role']}" in text for message in messages)
        return shown and not any(form in text for form in ("'type'", '"type"', "\\ue0a1"))

    def _start(self, messages: Messages, answer: int, tools: Any, text: str) -> int | None:
        """Return the character at which the answer starts; None if the template does not show it.

        It starts after the generation prompt. If that is not how the row goes on (it may end in `<think>`), the
        template is applied to another answer, which shows where it puts one.
        """
        assert self._render is not None
        prompt = self._prompt(messages[:answer], tools, asks=messages[answer].get("role") == "assistant")
        if prompt is not None and text.startswith(prompt) and len(prompt) < len(text):
            return len(prompt)
        marked = [*messages[:answer], {**messages[answer], "content": _MARK}, *messages[answer + 1 :]]
        other = self._render(marked, tools, add_generation_prompt=False)
        start = other.find(_MARK)
        if start >= 0 and text[:start] == other[:start]:
            return start
        before = self._prompt(messages[:answer], tools, asks=False)
        if prompt is None or before is None:
            return None
        common = _common(text, other, prompt)
        return common if len(before) <= common < len(text) and text.startswith(before) else None

    def _prompt(self, messages: Messages, tools: Any, *, asks: bool) -> str | None:
        """Render what precedes an answer; None if the template refuses a conversation without one."""
        assert self._render is not None
        with suppress(Exception):
            return self._render(messages, tools, add_generation_prompt=asks) if messages else None
        return None


def _messages(value: Any, role: str) -> list[Mapping[str, Any]]:
    """Return a prompt or completion as messages: it is text, a list of content parts, or a list of messages."""
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and "role" in each for each in value):
        return list(value)
    return [{"role": role, "content": value}]


def _text_of(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if isinstance(part, Mapping) and kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    raise RowUnusable(f"{where} has a content part of type '{kind}', which a language model cannot see; keep text only")


class Encode(Protocol):
    """A model's tokenizer."""

    def __call__(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Return the tokens of each text, with the special ones that start or end a text if `special`."""


class TokenizedRow(NamedTuple):
    """The tokens of a row."""

    tokens: list[int]
    learned: tuple[Span, ...]  # in tokens


def tokenized(rows: Sequence[Rendered], encode: Encode, end: int | None) -> list[TokenizedRow]:
    """Tokenize rows of one file; `end` is the token that MLX-LM appends to a text that does not end with it."""
    special = bool(rows) and not rows[0].is_chat
    cuts = [
        (index, place)
        for index, row in enumerate(rows)
        for span in row.learned
        for place in span
        if 0 < place < len(row.text)
    ]
    texts = [row.text for row in rows] + [rows[index].text[:place] for index, place in cuts]
    encoded = encode(texts, special=special)
    places = {(index, 0): 0 for index in range(len(rows))}
    for index, row in enumerate(rows):
        tokens = encoded[index]
        if special and end is not None and tokens[-1:] != [end]:
            tokens.append(end)
        places[index, len(row.text)] = len(tokens)
    for (index, place), prefix in zip(cuts, encoded[len(rows) :], strict=True):
        places[index, place] = _common(encoded[index], prefix)  # a token may reach across the end of the prefix
    return [
        TokenizedRow(encoded[index], tuple((places[index, first], places[index, last]) for first, last in row.learned))
        for index, row in enumerate(rows)
    ]


def _common(*sequences: Sequence[Any]) -> int:
    """Return the length of the longest beginning that sequences have in common."""
    columns = enumerate(zip(*sequences, strict=False))
    differs = (index for index, items in columns if any(item != items[0] for item in items))
    return next(differs, min(map(len, sequences)))
