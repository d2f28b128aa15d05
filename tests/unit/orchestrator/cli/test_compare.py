"""`lq compare`, and the formats of `lq report`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.analysis.comparison import Entry, compare
from orchestrator.report.collect import collect_all
from orchestrator.store.store import Store
from tests.harness import InProcess
from tests.unit.orchestrator.report_runs import START
from tests.unit.orchestrator.series_runs import facts, played, series, validation


def _entry(home: Path, name: str, *, better: float = 0.0, digest: str = "cd", **settings: Any) -> Entry:
    home.mkdir()
    train = {place: 2.0 - place / 1000 for place in range(10, 601, 10)}
    measured = {place: validation(place, 2.0 - better - place / 1000) for place in range(0, 601, 100)}
    run = played(home, lambda _: series(train, measured, first_events=facts()), lq={"name": name}, **settings)
    provenance = json.loads((run.folder / "provenance.json").read_text())
    valid = {"path": "/data/qa/valid.jsonl", "rows": 60, "bytes": 9, "sha256": digest * 32, "format": "chat"}
    provenance["data"]["files"]["valid.jsonl"] = valid
    (run.folder / "provenance.json").write_text(json.dumps(provenance))
    with run.store:
        found, lines = collect_all(run.store, run.id, now=START + 1e6)
        spec = json.loads(run.store.jobs.spec_json(run.id))
        return Entry(facts=found, series=lines, spec=spec, reported=run.store.metrics.facts(run.id))


def test_only_differing_settings_are_shown(tmp_path: Path) -> None:
    one = _entry(tmp_path / "a", "one", learning_rate=1e-4)
    other = _entry(tmp_path / "b", "other", learning_rate=2e-4, lora_parameters={"rank": 16}, adapter_path="/x")
    found = compare([one, other])
    assert dict(found.settings) == {"learning_rate": ("0.0001", "0.0002"), "lora_parameters.rank": ("8", "16")}
    assert found.titles == ("one (job 1)", "other (job 1)")


def test_results_have_intervals(tmp_path: Path) -> None:
    found = compare([_entry(tmp_path / "a", "one"), _entry(tmp_path / "b", "other", better=0.3)])
    assert found.why_not is None
    none, gap = found.against_first
    assert none is None
    assert gap is not None
    assert (gap.paired, gap.rows) == (True, 60)
    assert gap.low < -0.25 < gap.high or gap.value == pytest.approx(-0.3, abs=0.1)
    assert gap.high < 0
    results = dict(found.results)
    assert all(" to " in value and value.endswith(" at 600") for value in results["best validation"])


def test_other_rows_are_not_compared(tmp_path: Path) -> None:
    found = compare([_entry(tmp_path / "a", "one"), _entry(tmp_path / "b", "other", digest="ef")])
    assert found.why_not is not None
    assert "valid.jsonl" in found.why_not
    assert found.against_first == (None, None)


# --- the command line ---


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with a job that has ended."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    run = played(path, lambda _: series({10: 1.0, 20: 0.5}, {0: validation(0, 2.0)}), iters=20)
    run.store.close()
    return path


def test_compare_prints_table_and_picture(home: Path, tmp_path: Path) -> None:
    lq = InProcess(home)
    _second_job(home)
    assert f"picture: {home}/compare/1-2.png" in lq("compare", 1, 2).out
    assert (home / "compare/1-2.png").read_bytes().startswith(b"\x89PNG")
    elsewhere = tmp_path / "curves.png"
    content = lq.json("compare", 1, 2, "--plot", elsewhere)
    assert [job["id"] for job in content["jobs"]] == [1, 2]
    assert content["jobs"][0]["settings"]["iters"] == "20"
    assert content["picture"] == str(elsewhere)
    assert elsewhere.exists()


def _second_job(home: Path) -> None:
    with Store.open(home / "lq.db") as store:
        store.jobs.submit(
            name="second",
            priority=0,
            iters=40,
            spec_json=store.jobs.spec_json(1).replace('"iters":20', '"iters":40'),
            prepare=lambda job_id: Path(shutil.copytree(home / "jobs/1-run", home / f"jobs/{job_id}-run")),
            now=START,
        )


@pytest.mark.parametrize(("typed", "code"), [((1,), 2), ((1, 1), 2), ((1, 9), 3)])
def test_compare_refuses_in_one_line(home: Path, typed: tuple[int, ...], code: int) -> None:
    answer = InProcess(home)("compare", *typed, expect=code)
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1


def test_report_format_html(home: Path) -> None:
    lq = InProcess(home)
    path = Path(lq("report", 1, "--format", "html").out.strip())
    assert path.name == "report.html"
    assert path.read_text().startswith("<!doctype html>")
