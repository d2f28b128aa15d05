"""`lq.objective`: its shorthand, its parameters by name, and rows of preferences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.data_files import check_data
from configs.load import JobText, dump_job, load_frozen, load_jobs
from jobs.model.errors import ConfigInvalid, DataInvalid
from jobs.model.objective import Cpo, Dpo, Kto, Orpo, Simpo, Supervised
from jobs.model.spec import JobSpec
from tests.golden import assert_golden
from tests.unit.configs.conftest import ROWS, write_rows

GOLDEN = Path(__file__).parent / "golden"
HEAD = "model: org/model\ndata: ./data\n"


def objectives(text: str, *sets: str) -> list[Any]:
    return [job.spec.lq.objective for job in load_jobs(JobText(name="job.yaml", content=(HEAD + text).encode()), sets)]


@pytest.fixture(autouse=True)
def _folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(
    ("text", "sets", "expected"),
    [
        ("", [], [Supervised()]),
        ("lq: {objective: dpo}", [], [Dpo()]),
        ("lq: {objective: {name: dpo, beta: 0.3, loss: hinge}}", [], [Dpo(beta=0.3, loss="hinge")]),
        ("lq: {objective: {name: orpo, lambda: 0.2}}", [], [Orpo(beta=0.2)]),
        ("lq: {objective: dpo}", ["lq.objective.beta=0.2"], [Dpo(beta=0.2)]),
        ("", ["lq.objective=simpo", "lq.objective.gamma=3"], [Simpo(gamma=3.0)]),
        ("lq: {objective: dpo}", ["lq.objective=kto"], [Kto()]),
        ("lq: {objective: dpo, matrix: {lq.objective.beta: [0.1, 1]}}", [], [Dpo(beta=0.1), Dpo(beta=1.0)]),
        ("lq: {matrix: {lq.objective: [dpo, {name: cpo, alpha: 0}]}}", [], [Dpo(), Cpo(alpha=0.0)]),
    ],
)
def test_objective_is_read(text: str, sets: list[str], expected: list[Any]) -> None:
    assert objectives(text, *sets) == expected


@pytest.mark.parametrize("objective", [Supervised(), Dpo(beta=0.3), Orpo(), Kto(loss="apo_zero_unpaired")])
def test_objective_survives_the_frozen_file(objective: Any, tmp_path: Path) -> None:
    spec = JobSpec.model_validate({"lq": {"objective": objective.model_dump()}})
    (tmp_path / "config.yaml").write_text(dump_job(spec))
    assert load_frozen(tmp_path / "config.yaml") == spec


WRONG = [
    "lq: {objective: ppo}",
    "lq: {objective: 5}",
    "lq: {objective: [dpo]}",
    "lq: {objective: {beta: 2}}",
    "lq: {objective: {name: [dpo]}}",
    "lq: {objective: {name: dpo, gamma: 2}}",
    "lq: {objective: {name: sft, beta: 2}}",
    "lq: {objective: {name: dpo, betta: 2}}",
    "lq: {objective: {name: dpo, beta: -2}}",
    "lq: {objective: {name: orpo, lambda: 0}}",
    "lq: {objective: {name: kto, loss: hinge}}",
    "lq: {objective: {name: dpo, loss: ipo, label_smoothing: 0.1}}",
    "lq: {objective: dpo, memory: {allow_truncation: true}}",
    "lq: {objective: dpo, loss_weighting: token}",
    "objective: dpo",
]


def test_wrong_objectives_golden() -> None:
    entries = []
    for text in WRONG:
        with pytest.raises(ConfigInvalid) as caught:
            objectives(text)
        entries.append(f"{text}\n-> {caught.value}\n")
    assert_golden("\n".join(entries), GOLDEN / "wrong_objectives.txt")


USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
)
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
LABELLED = {"prompt": "q", "completion": "a", "label": True}

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("dpo", PAIR),
    ("orpo", PAIR | {"system": "s"}),
    ("simpo", {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}),
    ("cpo", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}),
    ("dpo", {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]}),
    ("kto", LABELLED),
    ("kto", {"prompt": [USER], "completion": [GOOD], "label": False}),
]


@pytest.mark.parametrize(("objective", "row"), ACCEPTED)
def test_preference_rows_are_accepted(folder: Path, objective: str, row: dict[str, Any]) -> None:
    write_rows(folder / "data" / "train.jsonl", [row])
    (folder / "data" / "valid.jsonl").unlink()
    facts = check_data(
        JobSpec.model_validate({"data": str(folder / "data"), "batch_size": 1, "lq": {"objective": objective}})
    )
    assert facts.files["train.jsonl"].format == ("labelled" if objective == "kto" else "preference")


REFUSED: list[tuple[str, list[Any]]] = [
    ("dpo", ROWS[:1]),
    ("kto", [PAIR]),
    ("dpo", [LABELLED]),
    ("sft", [PAIR]),
    ("dpo", [PAIR, {"prompt": "q", "chosen": "a"}]),
    ("dpo", [PAIR, PAIR | {"rejected": "a"}]),
    ("dpo", [PAIR | {"chosen": [USER, GOOD], "rejected": [USER, GOOD]}]),
    ("dpo", [PAIR | {"chosen": [USER, GOOD], "rejected": [USER, GOOD, USER, GOOD]}]),
    ("dpo", [PAIR | {"rejected": " "}]),
    ("dpo", [PAIR | {"rejected": []}]),
    ("dpo", [PAIR | {"rejected": None}]),
    ("dpo", [PAIR | {"rejected": [BAD]}]),
    ("dpo", [PAIR | {"prompt": ""}]),
    ("dpo", [PAIR | {"prompt": []}]),
    ("dpo", [{"chosen": "a", "rejected": "b"}]),
    ("dpo", [{"chosen": [GOOD], "rejected": [BAD]}]),
    ("dpo", [{"chosen": [USER, GOOD], "rejected": [{"role": "user", "content": "other"}, BAD]}]),
    ("dpo", [PAIR | {"chosen": [USER], "rejected": [USER, BAD]}]),
    ("dpo", [PAIR | {"chosen": ["a"], "rejected": [BAD]}]),
    ("dpo", [PAIR | {"chosen": [{"role": "assistant"}], "rejected": [BAD]}]),
    ("dpo", [PAIR | {"system": 1}]),
    ("kto", [LABELLED | {"label": 1}]),
    ("kto", [LABELLED | {"label": "good"}]),
    ("kto", [LABELLED | {"completion": ""}]),
    ("kto", [LABELLED | {"completion": [USER, GOOD]}]),
    ("kto", [{"completion": "a", "label": True}]),
]


def test_invalid_preference_rows_golden(folder: Path) -> None:
    train = folder / "data" / "train.jsonl"
    entries = []
    for objective, rows in REFUSED:
        write_rows(train, rows)
        spec = JobSpec.model_validate({"data": str(folder / "data"), "batch_size": 1, "lq": {"objective": objective}})
        with pytest.raises(DataInvalid) as caught:
            check_data(spec)
        assert "\n" not in str(caught.value)
        entries.append(f"{objective}: {json.dumps(rows[-1])}\n-> {caught.value}\n".replace(str(train), "train.jsonl"))
    assert_golden("\n".join(entries), GOLDEN / "invalid_preference_rows.txt")


def test_data_of_the_hub_is_refused() -> None:
    with pytest.raises(DataInvalid, match=r"lq\.objective dpo needs a folder"):
        check_data(JobSpec.model_validate({"data": "org/pairs", "lq": {"objective": "dpo"}}))
