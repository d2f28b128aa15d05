"""`lq verify`: a finished job whose every file is spoilt in turn."""

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
from orchestrator.maintenance.verify import verified
from orchestrator.worker.ingest import ingest
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.job_files import app_of, damage, publish, save
from workers.checkpoints.pruning import prune
from workers.checkpoints.storage import ADAPTERS
from workers.events import log as event_log
from workers.events.log import EventLog
from workers.files.atomic import write_json


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a home with one job that has succeeded, with all its files."""
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


def wrong(home: Home) -> dict[str, str]:
    """Return what `lq verify` finds wrong, by name."""
    with app_of(home) as app:
        return {found.path.name: found.because for found in verified(app, app.store.jobs.get(1)) if not found.ok}


def folder(home: Home) -> JobDir:
    return home.store.jobs.get(1).dir


def test_a_job_whose_files_are_as_they_should_be_passes(home: Home) -> None:
    answer = InProcess(home.path)("verify", 1)
    assert answer.err == ""
    assert "as they should be" in answer.out
    with app_of(home) as app:
        seen = {found.path.name for found in verified(app, app.store.jobs.get(1))}
    everything = {path.name for path in Path(folder(home).path).rglob("*") if path.is_file()}
    inside = {"state.json", "manifest.json", "optimizer.safetensors"}
    assert everything - inside <= seen


def test_the_log_of_a_finished_job_is_checked_in_its_compressed_form(home: Home) -> None:
    event_log.pack(folder(home).events)
    assert wrong(home) == {}
    damage(event_log.packed(folder(home).events))
    assert "events.jsonl.gz" in wrong(home)


def cut_events(job_dir: JobDir) -> None:
    job_dir.events.write_bytes(job_dir.events.read_bytes()[:-5])


def other_config(job_dir: JobDir) -> None:
    job_dir.config.write_text(job_dir.config.read_text().replace("iters: 1000", "iters: 2000"))


def other_run_plan(job_dir: JobDir) -> None:
    content = json.loads(job_dir.run_plan.read_text())
    content["stages"][0]["batch_size"] = 1
    write_json(job_dir.run_plan, content)


@pytest.mark.parametrize(
    ("spoil", "name", "says"),
    [
        (other_config, "config.yaml", "it is not what was submitted"),
        (lambda job_dir: job_dir.config.write_text("model: ["), "config.yaml", "not valid YAML"),
        (lambda job_dir: job_dir.provenance.unlink(), "provenance.json", "no such file"),
        (other_run_plan, "run_plan.json", "its stages are not the store's"),
        (cut_events, "events.jsonl", "bytes, but"),
        (lambda job_dir: job_dir.events.unlink(), "events.jsonl", "bytes, but"),
        (
            lambda job_dir: damage(job_dir.checkpoints / "step-0000100" / "optimizer.safetensors"),
            "step-0000100",
            "optimizer.safetensors is not what was written",
        ),
        (lambda job_dir: damage(job_dir.adapters / ADAPTERS), ADAPTERS, "not the one in lq.json"),
        (lambda job_dir: (job_dir.adapters / ADAPTERS).unlink(), ADAPTERS, "it is not there"),
        (
            lambda job_dir: (job_dir.adapters / f"0000950_{ADAPTERS}").write_bytes(b"x"),
            f"0000950_{ADAPTERS}",
            "not the one in its checkpoint's manifest",
        ),
        (lambda job_dir: (job_dir.report / "report.json").write_text("{"), "report.json", "Expecting"),
    ],
)
def test_what_is_spoilt_is_named(home: Home, spoil: Callable[[JobDir], None], name: str, says: str) -> None:
    spoil(folder(home))
    found = wrong(home)
    assert says in found.get(name, ""), found


def test_a_published_adapter_is_checked_while_it_is_this_jobs(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "published"
    damage(target / ADAPTERS)
    assert wrong(home) == {ADAPTERS: "its sha256 is not the one in lq.json: it has changed since it was written"}
    (target / "lq.json").unlink()
    assert wrong(home) == {}


def test_a_milestone_without_its_checkpoint_must_be_as_long_as_it_says(home: Home) -> None:
    milestone = folder(home).adapters / f"0000950_{ADAPTERS}"
    milestone.write_bytes(milestone.read_bytes())  # no longer a link
    shutil.rmtree(folder(home).checkpoints / "step-0000950")
    assert wrong(home) == {}
    milestone.write_bytes(milestone.read_bytes()[:-1])
    assert "its own header says" in wrong(home)[milestone.name]


def test_a_folder_that_is_gone_is_wrong(home: Home) -> None:
    shutil.rmtree(folder(home).path)
    assert wrong(home) == {folder(home).path.name: "the job's folder is not there"}


def test_wrong_files_give_exit_code_6_and_the_remedy_works(home: Home) -> None:
    lq = InProcess(home.path)
    damage(folder(home).checkpoints / "step-0000950" / ADAPTERS)
    answer = lq("verify", "--all", expect=6)
    assert answer.err.endswith("lq verify 1 --set-aside\n")
    assert "WRONG  checkpoints/step-0000950" in answer.out
    answer = lq("verify", 1, "--json", expect=6)
    (told,) = json.loads(answer.out)["jobs"]
    assert (told["ok"], {len(file) for file in told["files"]}) == (False, {3})
    lq("verify", 1, "--set-aside", expect=6)
    assert (folder(home).checkpoints / "step-0000950.bad" / "why.txt").exists()
    assert set(wrong(home)) == {f"0000950_{ADAPTERS}"}, "the milestone is a name of the same damaged file"


def test_one_that_is_asked_for_nothing_says_what_to_name(home: Home) -> None:
    assert (
        InProcess(home.path)("verify", expect=2).err
        == "lq: name a job, or --group NAME, --failed or --all; see: lq verify --help\n"
    )
    assert home.ended(Status.FAILED, Reason.CRASHED).id == 2
