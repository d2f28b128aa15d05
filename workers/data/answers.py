"""The sequences of rows of a preference objective, as rows of prompt and completion. No tokenizer.

A pair has a sequence with the chosen answer and one with the rejected answer. A labelled row of KTO has its own answer
and a mismatched one, that of the next row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.data_rows import RowFormat
from configs.preference_rows import labelled_of, pair_of
from jobs.model.objective import Kto, Preference

FORMAT = RowFormat(name="completions", keys=("prompt", "completion"))
"""The format of a sequence."""

Row = Mapping[str, Any]


def own_sequences(row: Row, objective: Preference) -> list[Row]:
    """Return a sequence for each answer of a row."""
    answered = labelled_of(row) if isinstance(objective, Kto) else pair_of(row)
    more = {"tools": row["tools"]} if row.get("tools") is not None else {}
    return [{"prompt": answered.prompt, "completion": answer, **more} for answer in answered.answers]


def sequences(rows: Sequence[Row], objective: Preference) -> Iterator[Row]:
    """Yield `objective.sequences` sequences for each row."""
    for number, row in enumerate(rows):
        own = own_sequences(row, objective)
        yield from own
        if objective.sequences > len(own):
            [other] = own_sequences(rows[(number + 1) % len(rows)], objective)
            yield {**own[0], "completion": other["completion"]}
