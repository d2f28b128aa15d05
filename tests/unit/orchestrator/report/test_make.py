"""The files of a report, and the command that writes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.model.errors import NoSuchJob
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.report.__main__ import main
from orchestrator.report.facts import PendingStatus
from orchestrator.report.make import make
from tests.unit.orchestrator.report_runs import START, TWO_RESTARTS, Run

END = START + 405.0


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run with two restarts and a published adapter."""
    run = Run(tmp_path)
    with run.store:
        run.play(*TWO_RESTARTS)
        run.publish()
        yield run


def test_report_is_private_to_its_owner(run: Run) -> None:
    path = make(run.store, run.id, now=END, pending=PendingStatus(status=Status.SUCCEEDED))
    assert path == run.folder / "report/report.md"
    written = {"report.md", "report.html", "report.json", "loss_curve.png", "training_analysis.png"}
    assert {file.name for file in path.parent.iterdir()} == written
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "![Loss by iteration](loss_curve.png)" in path.read_text()
    content = json.loads((path.parent / "report.json").read_text())
    assert (content["schema"], content["job"]["status"]) == (1, "succeeded")
    assert content["attempts"][1]["repeated_iterations"] == 37


def test_report_survives_failed_picture(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    (run.folder / "report/loss_curve.png/in the way").mkdir(parents=True)
    text = make(run.store, run.id, now=END).read_text()
    assert "loss_curve.png" not in text
    assert "## Key metrics" in text
    assert "loss_curve.png could not be drawn" in caplog.text


def _written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_unchanged_report_is_not_made_again(run: Run) -> None:
    run.settle(Status.SUCCEEDED, Reason.COMPLETED, "trained to its last iteration", now=END)
    folder = make(run.store, run.id, now=END + 1).parent
    before = _written(folder)
    make(run.store, run.id, now=END + 100)
    assert _written(folder) == before
    (folder / "loss_curve.png").unlink()
    make(run.store, run.id, now=END + 100)
    again = _written(folder)
    assert all(again[name] > before[name] for name in before)
    origin = json.loads((run.folder / "adapters/lq.json").read_text())
    (run.folder / "adapters/lq.json").write_text(json.dumps(origin | {"best": {"iteration": 400}}))
    make(run.store, run.id, now=END + 100)
    changed = _written(folder)
    assert all(changed[name] > again[name] for name in again)


def test_command_prints_report_path(run: Run) -> None:
    command = [sys.executable, "-P", "-m", "orchestrator.report", str(run.home), "1", "--as-status", "failed"]
    done = subprocess.run([*command, "--as-reason", "diverged"], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    path = Path(done.stdout.strip())
    assert path.read_text().startswith("# demo-lora (job 1): failed (diverged)\n")
    assert f"LQ_HOME={run.home} lq retry 1" in path.read_text()


def test_unknown_job_exits_with_3(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run.home), "99"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    with pytest.raises(NoSuchJob):
        make(run.store, 99, now=END)


def test_text_needs_no_matplotlib() -> None:
    program = "import sys, orchestrator.report.make, orchestrator.report.render.html; "
    program += "sys.exit(any(name.split('.')[0] == 'matplotlib' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], env=dict(os.environ), check=False).returncode == 0
