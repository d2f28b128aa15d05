"""The row formats of MLX-LM and of preference objectives, and what a row must contain. No file access."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from configs.preference_rows import LABELLED, PAIR, labelled_problem, pair_problem
from jobs.model.objective import Kto, Supervised
from jobs.model.spec import JobSpec

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowFormat:
    """The format of a file, determined by its first row."""

    name: str  # completions, chat, text, preference or labelled
    keys: tuple[str, ...]  # the keys that every row must have


def format_of(first: Row, spec: JobSpec) -> RowFormat | None:
    """Determine the format from the first row, in the order of mlx_lm/tuner/datasets.py; None if it is unknown."""
    if not isinstance(spec.lq.objective, Supervised):
        name, own = ("labelled", LABELLED) if isinstance(spec.lq.objective, Kto) else ("preference", PAIR)
        return RowFormat(name=name, keys=own) if all(key in first for key in own) else None
    completions = (spec.prompt_feature, spec.completion_feature)
    if all(key in first for key in completions):
        return RowFormat(name="completions", keys=completions)
    if spec.chat_feature in first:
        return RowFormat(name="chat", keys=(spec.chat_feature,))
    if spec.text_feature in first:
        return RowFormat(name="text", keys=(spec.text_feature,))
    return None


def row_problem(row: Row, row_format: RowFormat) -> str | None:
    """Return what is wrong with a row; None if it is valid."""
    missing = [key for key in row_format.keys if key not in row]
    if missing:
        return f"no '{missing[0]}', but the first row has the {row_format.name} format; add the key or remove the row"
    if row_format.name in ("preference", "labelled"):
        return pair_problem(row) if row_format.name == "preference" else labelled_problem(row)
    if row_format.name == "text":
        return _text_problem(row[row_format.keys[0]], row_format.keys[0])
    tools = row.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        return "'tools' must be a list of mappings"
    if row_format.name == "chat":
        return _chat_problem(row[row_format.keys[0]], row_format.keys[0])
    return _completion_problem(row, *row_format.keys)


def _text_problem(text: object, key: str) -> str | None:
    if not isinstance(text, str):
        return f"'{key}' must be text"
    return None if text.strip() else f"'{key}' is empty; remove the row"


def _completion_problem(row: Row, prompt: str, completion: str) -> str | None:
    for key in (prompt, completion):
        if not isinstance(row[key], str | list):
            return f"'{key}' must be text"
    return f"'{completion}' is empty; remove the row" if _is_empty(row[completion]) else None


def _chat_problem(messages: object, key: str) -> str | None:
    if not isinstance(messages, list):
        return f"'{key}' must be a list of messages"
    for position, message in enumerate(messages):
        problem = _message_problem(message)
        if problem is not None:
            return f"{key}[{position}]: {problem}"
    if all(_is_empty(message.get("content")) and not message.get("tool_calls") for message in messages):
        return f"'{key}' is empty; remove the row"
    return None


def _message_problem(message: object) -> str | None:
    if not isinstance(message, dict):
        return "must be a mapping with 'role' and 'content'"
    if not isinstance(message.get("role"), str) or not message["role"]:
        return "'role' must be text such as user or assistant"
    content = message.get("content")
    if isinstance(content, str | list):
        return None
    if content is None and message["role"] == "assistant" and isinstance(message.get("tool_calls"), list):
        return None
    return "'content' must be text" if "content" in message else "no 'content'"


def _is_empty(content: object) -> bool:
    return not content or (isinstance(content, str) and not content.strip())
