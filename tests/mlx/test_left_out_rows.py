"""Rows with nothing to learn: left out of training, validation and test, with their number; and unusable rows."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.model.events import Kind
from jobs.policies.exits import NEVER_RETRY
from tests.mlx.conftest import Build
from tests.mlx.training import Training

ASK, ANSWER = {"role": "user", "content": "What is 1 plus 1?"}, {"role": "assistant", "content": "two"}
CHAT = [ASK, ANSWER]
LONG = [{"role": "user", "content": "plus " * 200}, ANSWER]


def write(folder: Path, **files: Sequence[Any]) -> str:
    folder.mkdir()
    for name, chats in files.items():
        text = "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)
        (folder / f"{name}.jsonl").write_text(text)
    return str(folder)


def data_of(run: Training, kind: Kind) -> list[Mapping[str, Any]]:
    return [event.data for event in run.events(kind)]


def test_rows_cut_off_are_not_measured(build: Build, tmp_path: Path) -> None:
    train = [CHAT] * 6 + [[*CHAT, ASK]] * 2
    data = write(tmp_path / "data", train=train, valid=[CHAT, *[LONG] * 6, CHAT], test=[LONG, CHAT])
    run = build(data=data, mask_prompt=True, max_seq_length=64, test=True, val_batches=-1).finish()
    validations = data_of(run, Kind.VALIDATION)
    assert [(event["examples"], len(event["row_losses"])) for event in validations] == [(2, 2)] * len(validations)
    assert all(math.isfinite(event["loss"]) for event in [*validations, *data_of(run, Kind.TEST)])
    left_out = {event["data"]["set"]: event["data"]["rows"] for event in run.warnings("unsupervised")}
    assert left_out == {"train": 2, "valid": 6, "test": 1}
    dataset = next(event["value"] for event in data_of(run, Kind.FACT) if event["name"] == "dataset")
    assert dataset["valid"]["rows"] == dataset["valid"]["measured"] == len(dataset["learned"]["valid"]) == 2
    assert [twin["row"] for twin in dataset["also_trained"]["valid"]["examples"]] == [1, 8]


def test_measured_rows_are_limited_by_batches(build: Build, tmp_path: Path) -> None:
    data = write(tmp_path / "data", train=[CHAT] * 6, valid=[CHAT] * 7)
    run = build(data=data, val_batches=2).finish()
    dataset = next(event["value"] for event in data_of(run, Kind.FACT) if event["name"] == "dataset")
    assert (dataset["valid"]["rows"], dataset["valid"]["measured"]) == (7, 4)
    overlap = dataset["also_trained"]["valid"]
    assert (overlap["exact"], overlap["measured"]) == (7, 4)


def test_no_row_to_validate_is_no_validation(build: Build, tmp_path: Path) -> None:
    for name, valid in (("empty", []), ("cut", [LONG] * 3)):
        data = write(tmp_path / name, train=[CHAT] * 6, valid=valid)
        run = build(f"{name}-job", data=data, mask_prompt=True, max_seq_length=64).finish()
        assert data_of(run, Kind.VALIDATION) == []


def test_row_the_template_refuses_is_permanent(build: Build, model: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "model"))
    refuses = "{% if messages | length == 3 %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    (broken / "chat_template.jinja").write_text(refuses)
    data = write(tmp_path / "data", train=[CHAT] * 5 + [[ASK, ASK, ANSWER]])
    run = build(model=str(broken), data=data)
    assert run.run() == NEVER_RETRY
    ended = run.only(Kind.ENDED)
    assert ended["reason"] == "data_invalid"
    assert f"{data}/train.jsonl:6: " in ended["detail"]
    assert "Roles must alternate" in ended["detail"]
