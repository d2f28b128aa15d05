"""What the trainer tells for the report alone: and that telling it changes no bit of the result."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.model.events import Kind
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import Training

PROMPTS = ["What is 2 plus 3?", "Q: and 4?\nA:"]


def _facts(training: Training) -> dict[str, Any]:
    return {event.data["name"]: event.data["value"] for event in training.events(Kind.FACT)}


@pytest.mark.slow
def test_answers_and_the_first_test_change_no_bit_and_stand_beside_each_other(build: Build, tmp_path: Any) -> None:
    data = str(rows.write(tmp_path / "data", rows.chat, test=5))
    plain = build("plain", data=data, grad_checkpoint=True).finish()
    asked = build("asked", data=data, grad_checkpoint=True, test=True, lq={"prompts": PROMPTS})
    asked.stopped_half_way()
    asked.finish(2)
    assert asked.weights() == plain.weights()
    facts = _facts(asked)
    assert [facts[f"answer.before.{place}"]["prompt"] for place in (0, 1)] == PROMPTS
    assert {facts[f"answer.before.{place}"]["iteration"] for place in (0, 1)} == {0}
    assert {facts[f"answer.after.{place}"]["iteration"] for place in (0, 1)} <= {6, 12}
    assert all(isinstance(facts[f"answer.after.{place}"]["answer"], str) for place in (0, 1))
    tested = [event.data["iteration"] for event in asked.events(Kind.TEST)]
    assert (tested[0], tested[1]) == (0, 12)
    assert not [event for event in asked.events(Kind.WARNING) if event.data["code"] == "no_answer"]


def test_the_data_set_and_the_parameters_are_told_once_a_run(build: Build, tmp_path: Any) -> None:
    data = rows.write(tmp_path / "data", rows.completions, valid=7)
    valid, train = data / "valid.jsonl", data / "train.jsonl"
    train.write_text(train.read_text() + valid.read_text().splitlines()[0] + "\n")
    training = build(data=str(data), mask_prompt=True, num_layers=1).finish()
    assert "answer.before.0" not in _facts(training)
    facts = _facts(training)["dataset"]
    assert (facts["valid"]["rows"], facts["also_trained"]["valid"]["exact"]) == (7, 1)
    assert 0 < facts["train"]["supervised_tokens"] < facts["train"]["tokens"]
    assert 0 < facts["padding_share"] < 1
    # weighed with these counts, the losses by row are the loss
    validation = training.events(Kind.VALIDATION)[0].data
    weights = facts["learned"]["valid"]
    by_row = sum(weight * loss for weight, loss in zip(weights, validation["row_losses"], strict=True)) / sum(weights)
    assert by_row == pytest.approx(validation["loss"])
    parameters = _facts(training)["parameters"]
    assert parameters["layers"] == 1
    assert {"self_attn.q_proj", "mlp.up_proj"} <= set(parameters["targets"])
    assert 0 < parameters["trained"] < parameters["total"]
