"""The model card: readable by a model hub, without private names, and never over a README.md of the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from orchestrator.report.collect import collect
from orchestrator.report.facts import Facts
from orchestrator.report.make import make
from orchestrator.report.render.model_card import MARK, render_card
from tests.golden import assert_golden
from tests.unit.orchestrator.report_runs import START, Run
from tests.unit.orchestrator.series_runs import played_with_facts

LATER = START + 1e6


def _facts(run: Run) -> Facts:
    with run.store:
        return collect(run.store, run.id, now=LATER)


def _metadata(card: str) -> dict[str, Any]:
    metadata: dict[str, Any] = yaml.safe_load(card.split("---\n", 2)[1])
    return metadata


def test_card_matches_golden_file(tmp_path: Path) -> None:
    facts = _facts(played_with_facts(tmp_path))
    card = render_card(facts)
    assert_golden(card, Path(__file__).parent / "golden" / "model_card.md")
    for private in ("/models", "/data", facts.job.job_dir, "LQ_HOME"):
        assert private not in card


def test_card_has_results_for_a_hub(tmp_path: Path) -> None:
    metadata = _metadata(render_card(_facts(played_with_facts(tmp_path, lq={"name": "Hund & <Katze>"}))))
    [index] = metadata["model-index"]
    [result] = index["results"]
    loss, perplexity = result["metrics"]
    low, high = loss["args"]["interval_95"]
    assert index["name"] == "Hund & <Katze>"
    assert loss["args"]["n"] == 60
    assert low < loss["value"] < high
    assert perplexity["type"] == "perplexity"
    assert "datasets" not in metadata


def test_card_names_models_of_the_hub(tmp_path: Path) -> None:
    run = played_with_facts(tmp_path, model="Qwen/Qwen2.5-1.5B-Instruct", data="mlx-community/WikiSQL")
    card = render_card(_facts(run))
    metadata = _metadata(card)
    assert metadata["base_model"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert metadata["datasets"] == ["mlx-community/WikiSQL"]
    assert str(tmp_path) not in card


def test_own_readme_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    run = played_with_facts(tmp_path, adapter_path=str(own))
    with run.store:
        (own / "lq.json").write_text(json.dumps({"job_dir": str(run.folder)}))
        make(run.store, run.id, now=LATER)
        assert MARK in (own / "README.md").read_text()
        assert MARK in (run.folder / "adapters/README.md").read_text()
        (own / "README.md").write_text("# mine\n")
        make(run.store, run.id, now=LATER)
        assert (own / "README.md").read_text() == "# mine\n"


def test_foreign_adapter_gets_no_card(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "lq.json").write_text(json.dumps({"job_dir": "/another"}))
    run = played_with_facts(tmp_path, adapter_path=str(own))
    with run.store:
        make(run.store, run.id, now=LATER)
    assert not (own / "README.md").exists()
