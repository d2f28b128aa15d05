"""Data sets of preference objectives, with the interface of MLX-LM's data sets. No mlx.

Each row stands for one or two sequences: a prompt and an answer to it, whose tokens are supervised. A pair has the
chosen and the rejected answer. A labelled row of KTO has its own answer and a mismatched one, that of the next row.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.preference_rows import LABELLED, Messages, labelled_of, labelled_problem, pair_of, pair_problem
from jobs.model.errors import DataInvalid, located
from jobs.model.objective import Kto, Preference
from workers.data.batches import Rows

Item = tuple[Messages, Messages, Any]
"""A prompt, an answer to it, and the tools that may be called."""


class Answers:
    """The sequences of a data file: `objective.sequences` for each row, row after row."""

    def __init__(self, rows: list[dict[str, Any]], encoder: Any, objective: Preference) -> None:
        self._rows, self._encoder, self._objective = rows, encoder, objective

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self._rows) * self._objective.sequences

    def __getitem__(self, index: int) -> Item:
        """Return a sequence."""
        number, which = divmod(index, self._objective.sequences)
        row = self._rows[number]
        if not isinstance(self._objective, Kto):
            pair = pair_of(row)
            return pair.prompt, pair.answers[which], row.get("tools")
        prompt = labelled_of(row).prompt
        [answer] = labelled_of(self._rows[(number + which) % len(self._rows)]).answers
        return prompt, answer, row.get("tools")

    def process(self, item: Item) -> tuple[list[int], int]:
        """Return the tokens of a sequence and the index of the first token of the answer.

        A template may render the prompt for generation otherwise than in a whole conversation, for example with an
        opened block of thoughts. So the answer begins where the two differ.
        """
        prompt, answer, tools = item
        if self._encoder.has_chat_template:
            render = self._encoder.apply_chat_template
            tokens = render([*prompt, *answer], tools=tools, return_dict=False)
            before = render(prompt, tools=tools, add_generation_prompt=True, return_dict=False)
        else:
            tokens = self._encoder.encode("".join(str(message["content"]) for message in [*prompt, *answer]))
            if tokens[-1] != self._encoder.eos_token_id:
                tokens = [*tokens, self._encoder.eos_token_id]
            before = self._encoder.encode("".join(str(message["content"]) for message in prompt))
        equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(tokens, before, strict=False))
        return tokens, sum(1 for _ in equal)

    def arranged(self, rows: Rows) -> Rows:
        """Return the tokenized sequences as rows of several sequences, with their labels."""
        labelled = isinstance(self._objective, Kto)
        arranged = dataclasses.replace(rows, width=self._objective.sequences)
        labels = tuple(row["label"] for row in self._rows) if labelled else ()
        return dataclasses.replace(arranged, sort_keys=arranged.lengths, labels=labels)


def answer_sets(folder: Path, encoder: Any, objective: Preference, names: tuple[str, ...]) -> list[Answers]:
    """Read data files; an absent one has no rows.

    Raises:
        DataInvalid: a row does not fit the objective, or cannot be read.
    """
    return [Answers(_rows(folder / f"{name}.jsonl", objective), encoder, objective) for name in names]


def _rows(path: Path, objective: Preference) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    problem_of = labelled_problem if objective.keys == LABELLED else pair_problem
    with path.open("rb") as file:
        return [_row(path, number, line, objective.keys, problem_of) for number, line in enumerate(file, start=1)]


def _row(
    path: Path, number: int, line: bytes, keys: tuple[str, ...], problem_of: Callable[[Mapping[str, Any]], str | None]
) -> dict[str, Any]:
    """Check a row again: the file may have changed since it was submitted."""
    try:
        row = json.loads(line.decode())
        missing = [key for key in keys if key not in row]
        problem = f"no '{missing[0]}'" if missing else problem_of(row)
    except (ValueError, TypeError, RecursionError):
        problem = "not a JSON object"
    if problem is not None:
        raise DataInvalid(located(path, number, problem))
    return dict(row)
