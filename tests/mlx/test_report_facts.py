"""Facts that the trainer reports; reporting them changes no bit of the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import Training

PROMPTS = ["What is 2 plus 3?", "Q: and 4?\nA:"]


def facts_of(training: Training) -> dict[str, Any]:
    return {event.data["name"]: event.data["value"] for event in training.events(Kind.FACT)}


@pytest.mark.slow
def test_answers_change_no_bit(build: Build, tmp_path: Any) -> None:
    data = str(rows.write(tmp_path / "data", rows.chat, test=5))
    plain = build("plain", data=data, grad_checkpoint=True, lq={"prompts": []}).finish()
    asked = build("asked", data=data, grad_checkpoint=True, test=True, lq={"prompts": PROMPTS})
    asked.stop_half_way()
    asked.finish(2)
    assert asked.weights() == plain.weights()
    facts = facts_of(asked)
    before, after = ([facts[f"answer.{when}.{index}"] for index in (0, 1)] for when in ("before", "after"))
    assert [fact["prompt"] for fact in before] == PROMPTS
    assert {fact["iteration"] for fact in before} == {0}
    assert {fact["iteration"] for fact in after} <= {6, 12}
    assert all(isinstance(fact["answer"], str) for fact in after)
    assert [event.data["iteration"] for event in asked.events(Kind.TEST)][:2] == [0, 12]
    assert not asked.warnings("no_answer")


FORMATS = {"chat": rows.chat, "pairs": rows.completions, "text": rows.text}


@pytest.mark.parametrize("name", FORMATS)
def test_validation_rows_are_answered(build: Build, tmp_path: Path, name: str) -> None:
    data = rows.write(tmp_path / "data", FORMATS[name], valid=7)
    plain = build("plain", data=str(data), lq={"prompts": []}).finish()
    asked = build("asked", data=str(data)).finish()
    assert asked.weights() == plain.weights()
    assert not any(fact.startswith("answer.") for fact in facts_of(plain))
    facts = facts_of(asked)
    lines = [json.loads(line) for line in (data / "valid.jsonl").read_text().splitlines()]
    for when in ("before", "after"):
        answers = [facts[f"answer.{when}.{index}"] for index in range(3)]
        assert [answer["row"] for answer in answers] == [1, 4, 7]
        for answer in answers:
            row = lines[answer["row"] - 1]
            question, reference = _asked(name, row)
            assert answer["prompt"] in question if name == "text" else answer["prompt"] == question
            assert answer["reference"] in reference if name == "text" else answer["reference"] == reference
            assert isinstance(answer["answer"], str)
            assert 8 < answer["max_tokens"] <= 128
    assert not asked.warnings("no_answer")


def _asked(name: str, row: dict[str, Any]) -> tuple[str, str]:
    if name == "chat":
        *_, question, answer = (message["content"] for message in row["messages"])
        return question, answer
    return (row["prompt"], row["completion"]) if name == "pairs" else (row["text"], row["text"])


def test_dataset_and_parameters_reported(build: Build, tmp_path: Any) -> None:
    data = rows.write(tmp_path / "data", rows.completions, valid=7)
    valid, train = data / "valid.jsonl", data / "train.jsonl"
    train.write_text(train.read_text() + valid.read_text().splitlines()[0] + "\n")
    training = build(data=str(data), mask_prompt=True, num_layers=1).finish()
    facts = facts_of(training)["dataset"]
    shared = facts["also_trained"]["valid"]
    assert (facts["valid"]["rows"], shared["exact"], shared["measured"]) == (7, 1, 1)
    assert 0 < facts["train"]["supervised_tokens"] < facts["train"]["tokens"]
    assert 0 < facts["padding_share"] < 1
    # the losses by row, weighted by these counts, give the loss
    validation = training.events(Kind.VALIDATION)[0].data
    weights = facts["learned"]["valid"]
    by_row = sum(weight * loss for weight, loss in zip(weights, validation["row_losses"], strict=True)) / sum(weights)
    assert by_row == pytest.approx(validation["loss"])
    parameters = facts_of(training)["parameters"]
    assert parameters["layers"] == 1
    assert {"self_attn.q_proj", "mlp.up_proj"} <= set(parameters["targets"])
    assert 0 < parameters["trained"] < parameters["total"]


def test_shared_rows_are_counted_if_measured(build: Build, tmp_path: Any) -> None:
    """`val_batches` measures the first rows only; a verdict must not count rows that no validation measured."""
    data = rows.write(tmp_path / "data", rows.completions, valid=7)
    train = data / "train.jsonl"
    train.write_text(train.read_text() + "".join((data / "valid.jsonl").read_text().splitlines(keepends=True)[-3:]))
    training = build(data=str(data), num_layers=1, batch_size=1, val_batches=5).finish()
    shared = facts_of(training)["dataset"]["also_trained"]["valid"]
    assert (shared["exact"], shared["measured"]) == (3, 1)
    assert training.events(Kind.VALIDATION)[0].data["examples"] == 5
