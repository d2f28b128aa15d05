"""The rows of preference objectives: what they must contain, and the conversations they stand for. No file access.

Pairs have `chosen` and `rejected`, KTO has `completion` and `label`. An answer is text, a list of messages that follows
`prompt`, or a whole conversation; then the messages that both conversations begin with are the prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Messages = list[dict[str, Any]]

PAIR, LABELLED = ("chosen", "rejected"), ("completion", "label")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answered:
    """A prompt and one or two answers to it, as messages."""

    prompt: Messages
    answers: tuple[Messages, ...]


def pair_problem(row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row that has `chosen` and `rejected`; None if it is valid."""
    problem = _prompt_problem(row) or _answer_problem(row, "chosen") or _answer_problem(row, "rejected")
    if problem is not None:
        return problem
    if row["chosen"] == row["rejected"]:
        return "'chosen' and 'rejected' are equal; remove the row"
    if isinstance(row["chosen"], str) is not isinstance(row["rejected"], str):
        return "'chosen' and 'rejected' must both be text, or both lists of messages"
    answered = pair_of(row)
    if not answered.prompt:
        return "'chosen' and 'rejected' must begin with the same messages, or follow a 'prompt'"
    if not all(answered.answers):
        return "one of 'chosen' and 'rejected' is the beginning of the other; nothing is left to compare"
    return None


def labelled_problem(row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row that has `completion` and `label`; None if it is valid."""
    problem = _prompt_problem(row) or _answer_problem(row, "completion")
    if problem is not None:
        return problem
    if not isinstance(row["label"], bool):
        return "'label' must be true or false"
    if "prompt" not in row:
        return "no 'prompt'"
    if not _follows(row["completion"]):
        return "'completion' must begin with a message of the assistant"
    return None


def pair_of(row: Mapping[str, Any]) -> Answered:
    """Return the prompt and both answers of a row with `chosen` and `rejected`."""
    both = [_conversation(row, key) for key in PAIR]
    shared = 0
    for left, right in zip(*both, strict=False):
        if left != right:
            break
        shared += 1
    return Answered(prompt=both[0][:shared], answers=tuple(conversation[shared:] for conversation in both))


def labelled_of(row: Mapping[str, Any]) -> Answered:
    """Return the prompt and the answer of a row with `completion` and `label`."""
    prompt = _prompt(row)
    return Answered(prompt=prompt, answers=(_conversation(row, "completion")[len(prompt) :],))


def _conversation(row: Mapping[str, Any], key: str) -> Messages:
    answer = row[key]
    if isinstance(answer, str):
        return [*_prompt(row), {"role": "assistant", "content": answer}]
    return [*_prompt(row), *answer] if _follows(answer) else list(answer)


def _prompt(row: Mapping[str, Any]) -> Messages:
    prompt = row.get("prompt", [])
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return [{"role": "system", "content": row["system"]}, *messages] if row.get("system") else messages


def _follows(answer: str | Sequence[Mapping[str, Any]]) -> bool:
    """Return whether an answer continues `prompt`, and is not a whole conversation."""
    return isinstance(answer, str) or answer[0]["role"] == "assistant"


def _prompt_problem(row: Mapping[str, Any]) -> str | None:
    if not isinstance(row.get("system", ""), str):
        return "'system' must be text"
    prompt = row.get("prompt", [])
    if isinstance(prompt, str):
        return None if prompt.strip() else "'prompt' is empty; remove the row"
    if not isinstance(prompt, list):
        return "'prompt' must be text or a list of messages"
    if not prompt and "prompt" in row:
        return "'prompt' is empty; remove the row"
    return _messages_problem(prompt, "prompt")


def _answer_problem(row: Mapping[str, Any], key: str) -> str | None:
    answer = row[key]
    if isinstance(answer, str):
        if "prompt" not in row:
            return f"no 'prompt', which '{key}' answers"
        return None if answer.strip() else f"'{key}' is empty; remove the row"
    if not isinstance(answer, list):
        return f"'{key}' must be text or a list of messages"
    problem = _messages_problem(answer, key)
    if problem is not None:
        return problem
    if not answer or (not (answer[-1].get("content") or "").strip() and not answer[-1].get("tool_calls")):
        return f"'{key}' is empty; remove the row"
    if answer[-1]["role"] != "assistant":
        return f"'{key}' must end with a message of the assistant"
    if _follows(answer) and "prompt" not in row:
        return f"no 'prompt', which '{key}' answers"
    return None


def _messages_problem(messages: Sequence[object], key: str) -> str | None:
    for position, message in enumerate(messages):
        where = f"{key}[{position}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not message["role"]:
            return f"{where}: must be a mapping with 'role' and 'content'"
        calls = message["role"] == "assistant" and isinstance(message.get("tool_calls"), list)
        if not isinstance(message.get("content"), str) and not (message.get("content") is None and calls):
            return f"{where}: 'content' must be text"
    return None
