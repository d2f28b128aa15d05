"""`lq verify`: a finished job, each file of which is damaged in turn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.model import run_plan as run_plans
from jobs.model.events import PhaseEvent
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.core.paths import Home as CoreHome
from orchestrator.doctor.check import CheckState
from orchestrator.doctor.examine import run_check
from orchestrator.doctor.readings import Readings
from orchestrator.maintenance.verify import verify_job
from orchestrator.worker.ingest import ingest
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.job_files import app_of, damage, publish, save
from workers.checkpoints.pruning import prune
from workers.checkpoints.storage import ADAPTERS
from workers.events import log as event_log
from workers.events.log import EventLog
from workers.files.atomic import write_json
from workers.mlx.device import DeviceQuery


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a home with a succeeded job and all its files."""
    made = Home(tmp_path / "home")
    job = made.running(adapter_path=str(tmp_path / "published"))
    spec = made.store.spec(job.id)
    folder = job.dir
    write_json(folder.provenance, {"version": 1})
    write_json(folder.run_plan, run_plans.to_json(run_plans.RunPlan.requested(spec)))
    for iteration, loss in ((50, 3.0), (100, 1.0), (950, 2.0), (1000, 2.0)):
        save(job, iteration, loss)
    prune(folder, spec, run_plans.RunPlan.requested(spec))
    with EventLog(folder.events, 1) as log:
        log.append(PhaseEvent(phase="train"))
    ingest(made.store, job.id, folder.events, 10, now=1.0)
    with app_of(made) as app:
        publish(app, job)
    (folder.report).mkdir()
    write_json(folder.report / "report.json", {"schema": 1})
    yield made
    made.store.close()


def damaged(home: Home) -> dict[str, str]:
    """Return the damaged files with the reason, by name."""
    with app_of(home) as app:
        return {file.path.name: file.because for file in verify_job(app, app.store.jobs.get(1)).files if not file.ok}


def folder(home: Home) -> JobDir:
    return home.store.jobs.get(1).dir


def test_intact_job_passes(home: Home) -> None:
    assert InProcess(home.path)("verify", 1).err == ""
    with app_of(home) as app:
        checked = {file.path.name for file in verify_job(app, app.store.jobs.get(1)).files}
    everything = {path.name for path in Path(folder(home).path).rglob("*") if path.is_file()}
    inside = {"state.json", "manifest.json", "optimizer.safetensors"}
    assert everything - inside <= checked


def test_compressed_log_is_checked(home: Home) -> None:
    event_log.pack(folder(home).events)
    assert damaged(home) == {}
    damage(event_log.packed(folder(home).events))
    assert "events.jsonl.gz" in damaged(home)


def cut_events(job_dir: JobDir) -> None:
    job_dir.events.write_bytes(job_dir.events.read_bytes()[:-5])


def other_config(job_dir: JobDir) -> None:
    job_dir.config.write_text(job_dir.config.read_text().replace("iters: 1000", "iters: 2000"))


def other_run_plan(job_dir: JobDir) -> None:
    content = json.loads(job_dir.run_plan.read_text())
    content["stages"][0]["batch_size"] = 1
    write_json(job_dir.run_plan, content)


@pytest.mark.parametrize(
    ("spoil", "name", "because"),
    [
        (other_config, "config.yaml", "differs from the submitted"),
        (lambda job_dir: job_dir.config.write_text("model: ["), "config.yaml", "not valid YAML"),
        (lambda job_dir: job_dir.provenance.unlink(), "provenance.json", "no such file"),
        (other_run_plan, "run_plan.json", "differ from the store"),
        (cut_events, "events.jsonl", "bytes, but"),
        (lambda job_dir: job_dir.events.unlink(), "events.jsonl", "bytes, but"),
        (
            lambda job_dir: damage(job_dir.checkpoints / "step-0000100" / "optimizer.safetensors"),
            "step-0000100",
            "optimizer.safetensors is damaged",
        ),
        (lambda job_dir: damage(job_dir.adapters / ADAPTERS), ADAPTERS, "differs from lq.json"),
        (lambda job_dir: (job_dir.adapters / ADAPTERS).unlink(), ADAPTERS, "missing"),
        (
            lambda job_dir: (job_dir.adapters / f"0000950_{ADAPTERS}").write_bytes(b"x"),
            f"0000950_{ADAPTERS}",
            "differs from the manifest",
        ),
        (lambda job_dir: (job_dir.report / "report.json").write_text("{"), "report.json", "Expecting"),
    ],
)
def test_damaged_file_is_named(home: Home, spoil: Callable[[JobDir], None], name: str, because: str) -> None:
    spoil(folder(home))
    assert because in damaged(home).get(name, "")


@pytest.mark.parametrize(("status", "cleaned"), [("failed", False), ("succeeded", False), ("succeeded", True)])
def test_finished_job_without_report(home: Home, status: str, cleaned: bool) -> None:
    job = home.ended(Status(status), Reason.COMPLETED, name="ended")
    queued = home.queued("waits")
    if cleaned:
        home.store.jobs.mark_cleaned(job.id, 1.0)
    with app_of(home) as app:
        missing = [
            file for file in verify_job(app, app.store.jobs.get(job.id)).files if file.path.name == "report.json"
        ]
        assert [file.ok for file in missing] == ([] if cleaned else [False])
        assert "report.json" not in {file.path.name for file in verify_job(app, queued).files}
    doctor = run_check("reports", Readings(CoreHome(home.path), {}, DeviceQuery()))
    assert doctor.state is (CheckState.OK if cleaned else CheckState.WARN)
    assert doctor.advice == (None if cleaned else f"lq report {job.id}")


def test_published_adapter_is_checked(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "published"
    damage(target / ADAPTERS)
    assert damaged(home).keys() == {ADAPTERS}
    (target / "lq.json").unlink()
    assert damaged(home) == {}


def test_milestone_size_is_checked(home: Home) -> None:
    milestone = folder(home).adapters / f"0000950_{ADAPTERS}"
    milestone.write_bytes(milestone.read_bytes())  # no longer a link
    shutil.rmtree(folder(home).checkpoints / "step-0000950")
    assert damaged(home) == {}
    milestone.write_bytes(milestone.read_bytes()[:-1])
    assert damaged(home).keys() == {milestone.name}


def test_missing_folder_is_reported(home: Home) -> None:
    shutil.rmtree(folder(home).path)
    assert damaged(home).keys() == {folder(home).path.name}


def test_set_aside_renames_checkpoints(home: Home) -> None:
    lq = InProcess(home.path)
    damage(folder(home).checkpoints / "step-0000950" / ADAPTERS)
    assert lq("verify", "--all", expect=6).err.endswith("lq verify 1 --set-aside\n")
    (job,) = json.loads(lq("verify", 1, "--json", expect=6).out)["jobs"]
    assert job["ok"] is False
    lq("verify", 1, "--set-aside", expect=6)
    assert (folder(home).checkpoints / "step-0000950.bad" / "why.txt").exists()
    assert set(damaged(home)) == {f"0000950_{ADAPTERS}"}, "the milestone is a link to the same damaged file"


def test_verify_needs_a_selection(home: Home) -> None:
    assert "--all" in InProcess(home.path)("verify", expect=2).err
    assert home.ended(Status.FAILED, Reason.CRASHED).id == 2
