"""What the trainer alone could see, from the store's facts: data set, parameters, answers. Pure, and tolerant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.model.events import number
from orchestrator.report.measured import Answer, Dataset, Overlap, Parameters, TokenisedFile, Twin

FILES = ("train", "valid", "test")

Told = Mapping[str, Any]


def dataset(facts: Told) -> Dataset | None:
    """Return the data set as the trainer saw it; None where it did not say."""
    told = facts.get("dataset")
    if not isinstance(told, dict):
        return None
    overlaps = told.get("also_trained") or {}
    return Dataset(
        files=tuple(_file(name, told[name]) for name in FILES if (told.get(name) or {}).get("rows")),
        max_seq_length=_whole(told.get("max_seq_length")),
        padding_share=number(told.get("padding_share")),
        repeated_inside=next((_whole(one.get("inside")) for one in overlaps.values()), None),
        overlaps=tuple(
            _overlap(name, told[name]["rows"], overlaps[name])
            for name in FILES
            if name in overlaps and (told.get(name) or {}).get("rows")
        ),
    )


def _file(name: str, told: Told) -> TokenisedFile:
    return TokenisedFile(
        name=name,
        rows=int(told["rows"]),
        tokens=_whole(told.get("tokens")),
        supervised_tokens=_whole(told.get("supervised_tokens")),
        truncated=_whole(told.get("truncated")),
        shortest=_whole(told.get("shortest")),
        median=number(told.get("median")),
        p95=number(told.get("p95")),
        longest=_whole(told.get("longest")),
    )


def _overlap(name: str, rows: int, told: Told) -> Overlap:
    twins = [Twin(row=one["row"], train_row=one["train_row"], share=one["share"]) for one in told.get("examples") or ()]
    return Overlap(name=name, rows=rows, exact=int(told["exact"]), near=_whole(told.get("near")), examples=tuple(twins))


def learned(facts: Told, name: str) -> list[int] | None:
    """Return the supervised tokens of each row of a file; None where the trainer did not say."""
    told = facts.get("dataset")
    found = (told.get("learned") or {}).get(name) if isinstance(told, dict) else None
    return [int(one) for one in found] if found else None


def parameters(facts: Told) -> Parameters | None:
    """Return what of the model was trained; None where the trainer did not say."""
    told = facts.get("parameters")
    if not isinstance(told, dict):
        return None
    return Parameters(
        trained=int(told["trained"]),
        total=int(told["total"]),
        targets=tuple(told.get("targets") or ()),
        layers=int(told.get("layers") or 0),
    )


def answers(facts: Told) -> tuple[Answer, ...]:
    """Return the answers to the prompts, in their order."""
    places = sorted({int(name.rpartition(".")[2]) for name in facts if name.startswith("answer.")})
    return tuple(
        _answer(facts.get(f"answer.before.{place}") or {}, facts.get(f"answer.after.{place}") or {}) for place in places
    )


def _answer(before: Told, after: Told) -> Answer:
    either = after or before
    return Answer(
        prompt=str(either.get("prompt", "")),
        before=before.get("answer"),
        after=after.get("answer"),
        iteration=_whole(after.get("iteration")),
        max_tokens=_whole(either.get("max_tokens")),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
