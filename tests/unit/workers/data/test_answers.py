"""Rows of preferences: their sequences, their batches, and the tokens that count."""

from __future__ import annotations

import numpy as np
import pytest

from configs.preference_rows import pair_of
from jobs.model.objective import Dpo, Kto
from jobs.model.spec import JobSpec
from workers.data import token_cache
from workers.data.answers import sequences
from workers.data.batches import Rows
from workers.data.dataset_facts import describe, duplicates, supervised, weights
from workers.data.token_cache import key_of

PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
LABELLED = [{"prompt": f"q{row}", "completion": f"a{row}", "label": row != 1} for row in range(3)]

ROWS = Rows(
    tokens=[np.arange(length, dtype=np.int32) for length in (5, 8, 3, 4)],
    offsets=[2, 2, 1, 4],
    sort_keys=(8, 4),
    width=2,
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_pair_has_two_sequences() -> None:
    assert list(sequences([PAIR], Dpo())) == [
        {"prompt": [user("q")], "completion": [assistant("good")]},
        {"prompt": [user("q")], "completion": [assistant("bad")]},
    ]


def test_whole_conversations_share_a_prompt() -> None:
    start = [user("hi"), assistant("hello"), user("q")]
    found = pair_of({"chosen": [*start, assistant("good")], "rejected": [*start, assistant("bad")]})
    assert (found.prompt, found.answers) == (start, ([assistant("good")], [assistant("bad")]))


def test_labelled_row_borrows_the_next_answer() -> None:
    found = [(each["prompt"], each["completion"]) for each in sequences(LABELLED, Kto())]
    expected = [("q0", "a0"), ("q0", "a1"), ("q1", "a1"), ("q1", "a2"), ("q2", "a2"), ("q2", "a0")]
    assert found == [([user(prompt)], [assistant(answer)]) for prompt, answer in expected]


def test_apo_needs_no_mismatched_answer() -> None:
    assert len(list(sequences(LABELLED, Kto(loss="apo_zero_unpaired")))) == 3


def test_batch_has_chosen_answers_first() -> None:
    tokens, spans = ROWS.padded([1, 0], 100)
    assert [int(row.max()) + 1 for row in tokens] == [3, 5, 4, 8]
    assert spans.tolist() == [[1, 3], [2, 5], [4, 4], [2, 8]]


def test_row_is_as_long_as_its_longest_sequence() -> None:
    assert (len(ROWS), ROWS.lengths) == (2, (8, 4))


def test_row_needs_a_token_in_both_answers() -> None:
    assert ROWS.supervised(100) == (0,)
    assert ROWS.supervised(2) == ()
    assert weights(ROWS, 100) == [1, 0]


def test_padding_is_no_supervised_token() -> None:
    assert supervised(ROWS, 100) == [3, 6, 2, 0]
    assert describe(ROWS, 100)["supervised_tokens"] == 11


def test_some_rows_keep_their_sequences() -> None:
    labelled = Rows(tokens=ROWS.tokens, offsets=ROWS.offsets, sort_keys=(8, 4), width=2, labels=(True, False))
    found = labelled.only([1])
    assert ([len(row) for row in found.tokens], found.labels, found.number(0)) == ([3, 4], (False,), 2)


def test_equal_rows_are_duplicates() -> None:
    assert duplicates(ROWS, ROWS, measured=2)["exact"] == 2


@pytest.mark.parametrize("labels", [(), (True, False)])
def test_token_cache_keeps_width_and_labels(labels: tuple[bool, ...]) -> None:
    rows = Rows(tokens=ROWS.tokens, offsets=ROWS.offsets, sort_keys=(8, 4), width=2, labels=labels)
    key = key_of(JobSpec.model_validate({"lq": {"objective": "kto"}}), "data", "tokenizer")
    found = token_cache._unpacked(token_cache._packed(key, rows), key)
    assert found is not None
    assert (found.width, found.labels, found.lengths) == (2, labels, rows.lengths)


def test_objectives_with_equal_rows_share_tokens() -> None:
    dpo, simpo, kto, sft = (
        key_of(JobSpec.model_validate({"lq": {"objective": name}}), "data", "tokenizer")
        for name in ("dpo", "simpo", "kto", "sft")
    )
    assert dpo == simpo
    assert len({str(key) for key in (dpo, kto, sft)}) == 3
