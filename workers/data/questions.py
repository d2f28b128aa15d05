"""Questions from validation rows, which a run answers if its job file names no prompts. No mlx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from configs.data_rows import format_of
from jobs.model.errors import DataInvalid
from jobs.model.objective import Supervised
from jobs.model.spec import JobSpec
from workers.data import answers
from workers.data.rendering import Renderer
from workers.data.tokenizing import RowSet, TextTools, rows_of


class Question(NamedTuple):
    """A validation row as prompt and reference answer."""

    row: int  # of valid.jsonl, from 1
    asked: str | None  # what the user asks; None for a text, which is continued from its middle
    prompt: list[int]  # tokens, as the model sees them in training
    answer: list[int]  # tokens of the reference answer


def questions(spec: JobSpec, tools: TextTools) -> list[Question]:
    """Return the first, the middle and the last row of valid.jsonl, without those that show no answer."""
    path = Path(spec.data) / "valid.jsonl"
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()] if path.is_file() else []
    if not lines:
        return []
    places = sorted({0, len(lines) // 2, len(lines) - 1})
    found = [_question(spec, tools, place + 1, lines[0], lines[place]) for place in places]
    return [question for question in found if question is not None]


def _question(spec: JobSpec, tools: TextTools, number: int, first: bytes, line: bytes) -> Question | None:
    row_format, row = format_of(json.loads(first), spec), json.loads(line)
    if row_format is None:
        return None
    if not isinstance(spec.lq.objective, Supervised):
        if row.get("label") is False:  # an undesirable answer is no reference
            return None
        row_format, row = answers.FORMAT, answers.own_sequences(row, spec.lq.objective)[0]
    try:
        rows = rows_of(RowSet(name="valid.jsonl", row_format=row_format, rows=[row]), tools, mask_prompt=True)
    except DataInvalid:  # the template shows no answer in this row
        return None
    tokens, start = rows.tokens[0].tolist(), rows.offsets[0]
    if row_format.name == "text":
        return Question(number, None, tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :])
    if not 0 < start < min(len(tokens), spec.max_seq_length):
        return None
    messages, answer = Renderer(row_format, tools.render, mask_prompt=True).conversation(row)
    asked = messages[answer - 1].get("content") if answer else None
    return Question(number, asked if isinstance(asked, str) else None, tokens[:start], tokens[start:])
