"""The best of a group: who wins, by how much, and when nobody can tell."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.commands.results import group_best
from orchestrator.cli.views.comparison import best_lines
from orchestrator.report.analysis.comparison import Entry, best_of, why_not_by_row
from orchestrator.report.analysis.settings_diff import differing, validated_alike
from orchestrator.report.collect import collect_all
from tests.unit.orchestrator.report_runs import START
from tests.unit.orchestrator.series_runs import FACTS, WEIGHTS, facts, played, series, validation


def entry(
    home: Path,
    name: str,
    *,
    better: float = 0.0,
    digest: str = "cd",
    adapter: bool = True,
    learned: list[int] = WEIGHTS,
    noise: float = 0.02,
) -> Entry:
    """Return a run of 600 iterations that ended, `better` nats below the others on every row."""
    home.mkdir()
    train = {place: 2.0 - place / 1000 for place in range(10, 601, 10)}
    measured = {place: validation(place, 2.0 - better - place / 1000, noise=noise) for place in range(0, 601, 100)}
    told = facts() if learned is WEIGHTS else facts(dataset=FACTS["dataset"] | {"learned": {"valid": learned}})
    run = played(home, lambda _: series(train, measured, first_events=told), lq={"name": name})
    provenance = json.loads((run.folder / "provenance.json").read_text())
    valid = {"path": "/data/qa/valid.jsonl", "rows": 60, "bytes": 9, "sha256": digest * 32, "format": "chat"}
    provenance["data"]["files"]["valid.jsonl"] = valid
    (run.folder / "provenance.json").write_text(json.dumps(provenance))
    if not adapter:
        shutil.rmtree(run.folder / "adapters")
    with run.store:
        found, lines = collect_all(run.store, run.id, now=START + 1e6)
        spec: dict[str, Any] = json.loads(run.store.jobs.spec_json(run.id))
        return Entry(facts=found, series=lines, spec=spec, reported=run.store.metrics.facts(run.id))


def test_lowest_validation_loss_wins(tmp_path: Path) -> None:
    found = best_of([entry(tmp_path / "a", "a"), entry(tmp_path / "b", "b", better=0.3)])
    assert found.winner is not None
    assert found.runner_up is not None
    assert found.winner.entry.facts.job.name == "b"
    lead = found.runner_up.behind
    assert lead is not None
    assert (lead.paired, lead.rows) == (True, 60)
    assert lead.low > 0.25
    assert lead.value == pytest.approx(0.3, abs=0.1)
    assert found.not_apart == ()
    said = best_lines(found)
    assert said[0] == f"best: b (job 1), validation loss {found.winner.loss:.4f} at iteration 600"
    assert said[1].startswith("second: a (job 1), difference +0.")
    assert said[1].endswith(", row by row")
    assert said[2] == f"adapter: {tmp_path}/b/jobs/1-run/adapters"


def test_indistinguishable_jobs_are_named(tmp_path: Path) -> None:
    one, twin = entry(tmp_path / "a", "a"), entry(tmp_path / "b", "b", noise=0.025)
    found = best_of([entry(tmp_path / "c", "c", better=-1), one, twin])
    assert found.winner is not None
    (near,) = found.not_apart
    assert {found.winner.entry.title, near.entry.title} == {"a (job 1)", "b (job 1)"}
    assert found.ranked[-1].entry.title == "c (job 1)"
    assert f"not significantly worse on these rows: {near.entry.title}" in best_lines(found)
    best = group_best(found)
    assert best is not None
    assert (best.not_told_apart, best.jobs) == ([1], 3)


def test_winner_needs_an_adapter(tmp_path: Path) -> None:
    found = best_of([entry(tmp_path / "a", "a"), entry(tmp_path / "b", "b", better=0.3, adapter=False)])
    assert found.winner is not None
    assert found.winner.entry.facts.job.name == "a"
    assert (found.runner_up, len(found.others)) == (None, 1)
    nobody = best_of([entry(tmp_path / "c", "c", adapter=False)])
    assert group_best(nobody) is None
    (line,) = best_lines(nobody)
    assert line.startswith("best: none yet; ")


def test_different_objectives_have_no_best(tmp_path: Path) -> None:
    one, other = entry(tmp_path / "a", "a"), entry(tmp_path / "b", "b", better=0.3)
    pairs = [
        dataclasses.replace(each, spec={**each.spec, "lq": {"objective": {"name": name}}})
        for each, name in ((one, "sft"), (other, "dpo"))
    ]
    found = best_of(pairs)
    assert (found.winner, len(found.others)) == (None, 2)
    assert group_best(found) is None
    assert best_lines(found) == [f"best: none, because {found.why_not}"]
    assert not validated_alike([each.spec for each in pairs])
    assert validated_alike([one.spec, other.spec])


def test_other_rows_are_not_compared(tmp_path: Path) -> None:
    one = entry(tmp_path / "a", "a")
    other_rows = best_of([one, entry(tmp_path / "b", "b", digest="ef")])
    assert re.fullmatch(r"not compared row by row, .* valid\.jsonl", best_lines(other_rows)[2])
    other_tokens = entry(tmp_path / "c", "c", learned=[weight + 1 for weight in WEIGHTS])
    why_not = "the jobs do not learn from the same tokens of the validation rows"
    assert why_not_by_row([one, other_tokens]) == why_not


def test_differing_settings_are_listed() -> None:
    specs: list[dict[str, Any]] = [
        {"iters": 3, "lq": {"name": "a", "retry": {"max_restarts": 5}}, "max_seq_length": 512},
        {"iters": 4, "lq": {"name": "b", "retry": {"max_restarts": 6}}, "max_seq_length": 512},
    ]
    assert differing(specs) == [("iters", ("3", "4")), ("lq.retry.max_restarts", ("5", "6"))]
    assert validated_alike(specs)
    assert not validated_alike([*specs, {"max_seq_length": 1024}])
