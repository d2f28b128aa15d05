"""A model's tokenizer and chat template, from the files of its folder. No transformers, no weights.

This is the only module that imports tokenizers, except for the one that makes the demo's model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.model.errors import ModelMissing, located, message_of
from workers.data.rendering import Messages, Render

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "*.tiktoken", "tekken.json", "vocab.*", "*.spm")
_SPECIAL_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_OWN_TEMPLATE = frozenset({"muse_spark"})
"""Types of models whose template is a function of MLX-LM (TOKENIZER_DEFAULTS in mlx_lm/models)."""

_THINKING = (("<think>", "</think>"), ("<longcat_think>", "</longcat_think>"), ("<|think:start|>", "<|think:end|>"),
             ("<|channel>", "<channel|>"), ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"))  # fmt: skip
"""Tokens by which MLX-LM recognizes a thinking model; it then sets `enable_thinking` for the template."""


class ModelText:
    """What a model makes of messages and texts, as far as its files show it."""

    def __init__(self, folder: Path) -> None:
        """Read the small files of a model.

        Raises:
            ModelMissing: it has no tokenizer, or a file of it cannot be read.
        """
        self._folder = folder
        self.settings = self._json("special_tokens_map.json") | self._json("tokenizer_config.json")
        if "auto_map" not in self.settings and not any(any(folder.glob(name)) for name in _VOCABULARIES):
            raise ModelMissing(
                f"{folder}: no tokenizer; the folder needs tokenizer.json or tokenizer.model of the original model"
            )

    def _json(self, name: str) -> dict[str, Any]:
        path = self._folder / name
        try:
            content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise ModelMissing(located(path, None, f"cannot be read: {message_of(error)}")) from error
        return content if isinstance(content, dict) else {}

    @property
    def file(self) -> Path | None:
        """tokenizer.json; None without one, and then tokens cannot be counted here."""
        path = self._folder / "tokenizer.json"
        return path if path.is_file() else None

    @property
    def has_own_code(self) -> bool:
        """Whether Python code renders chats instead of a template file, so that they cannot be rendered here."""
        by_type = not self.templates and self._json("config.json").get("model_type") in _OWN_TEMPLATE
        return by_type or bool({"auto_map", "chat_template_type"} & self.settings.keys())

    @cached_property
    def templates(self) -> Mapping[str, str]:
        """The sources of the chat templates by name, such as `default` and `tool_use`."""
        template, file = self.settings.get("chat_template"), self._folder / "chat_template.jinja"
        more = sorted((self._folder / "additional_chat_templates").glob("*.jinja"))
        try:
            if file.is_file():
                sources = {"default": file.read_text("utf-8")}
            elif isinstance(template, list):
                sources = {entry["name"]: entry["template"] for entry in template}
            else:
                sources = {"default": template} if isinstance(template, str) else {}
            return sources | {path.stem: path.read_text("utf-8") for path in more}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelMissing(f"{self._folder}: the chat template cannot be read: {message_of(error)}") from error

    @cached_property
    def render(self) -> Render | None:
        """The chat template; None if there is none, or only named ones."""
        from workers.data.chat_template import renderer

        if "default" not in self.templates:
            return None
        try:
            return renderer(self.templates, self._special_tokens | {"enable_thinking": self._thinks})
        except ValueError as error:
            raise ModelMissing(f"{self._folder}: {message_of(error)}") from error

    @cached_property
    def _special_tokens(self) -> dict[str, str]:
        values = {name: self.settings.get(name) for name in _SPECIAL_TOKENS}
        named = {name: value.get("content") if isinstance(value, dict) else value for name, value in values.items()}
        return {name: value for name, value in named.items() if isinstance(value, str)}

    @property
    def _thinks(self) -> bool:
        if self.file is None:
            return False
        return any(all(self._tokenizer.token_to_id(token) is not None for token in tokens) for tokens in _THINKING)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self.file))
        except Exception as error:  # tokenizers raises nothing more specific
            raise ModelMissing(located(str(self.file), None, f"cannot be read: {message_of(error)}")) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def end(self) -> int | None:
        """The token that ends a text."""
        token: int | None = self._tokenizer.token_to_id(self._special_tokens.get("eos_token", ""))
        return token

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Return the tokens of each text; the work is done on every core, without Python's lock."""
        return [each.ids for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)]

    def counted(self, texts: Sequence[str], *, special: bool) -> list[int]:
        """Return the number of tokens of each text, with the token that MLX-LM appends to a text."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)
        if not special or self.end is None:
            return [len(each) for each in encodings]
        return [len(each) + (each.ids[-1:] != [self.end]) for each in encodings]

    def ends(self, text: str, *, special: bool) -> list[int]:
        """Return, for each token of a text, the character after its last one."""
        return [end for _, end in self._tokenizer.encode(text, add_special_tokens=special).offsets]


def plain(messages: Messages, tools: Any, *, add_generation_prompt: bool) -> str:
    """Stand for the template of a model whose files are not here: the texts of the messages."""
    return "".join(f"{message.get('role')}\n{_shown(message.get('content'))}\n" for message in messages)


def _shown(content: Any) -> str:
    parts = content if isinstance(content, list) else [content]
    return "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part or "") for part in parts)
