"""A sweep from its file into the store: its group, its folders, all of it or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from configs.load import load_frozen
from jobs.model.errors import ConfigInvalid, NotAllowed
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.store.groups import free_name
from orchestrator.submission import staging
from orchestrator.submission.submit import check_all, enqueue_all
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep of four jobs."""
    build_model(tmp_path / "model")
    build_data(tmp_path / "data")
    path = tmp_path / "night.yaml"
    matrix = {"learning_rate": [1e-5, 1e-4], "lora_parameters.rank": [4, 8]}
    path.write_text(yaml.safe_dump({"model": "model", "data": "data", "num_layers": -1, "lq": {"matrix": matrix}}))
    return path


def test_sweep_becomes_a_group(home: Home, app: App, file: Path) -> None:
    jobs = enqueue_all(app, check_all(app, [file], sets=["iters=7"]))
    assert [(job.id, job.name, job.group_name, job.iters) for job in jobs] == [
        (1, "night lr=1e-5 r=4", "night", 7),
        (2, "night lr=1e-5 r=8", "night", 7),
        (3, "night lr=1e-4 r=4", "night", 7),
        (4, "night lr=1e-4 r=8", "night", 7),
    ]
    assert home.store.groups.jobs("night") == jobs
    folder = Path(jobs[3].job_dir)
    spec = load_frozen(folder / "config.yaml")
    assert (spec.lora_parameters.rank, spec.lq.group) == (8, "night")
    assert spec.model_dump_json() == home.store.jobs.spec_json(4)
    submitted = json.loads((folder / "provenance.json").read_text())["submitted"]
    assert submitted["set"] == ["iters=7"]
    assert submitted["matrix"] == {"learning_rate": 1e-4, "lora_parameters.rank": 8}
    assert sorted(path.name for path in home.jobs.iterdir()) == sorted(Path(job.job_dir).name for job in jobs)


def test_repeated_sweep_is_another_group(app: App, file: Path) -> None:
    for job in enqueue_all(app, check_all(app, [file])):
        app.store.jobs.cancel(job.id, 1.0)
    twice = enqueue_all(app, check_all(app, [file, file]))
    assert [job.group_name for job in twice] == ["night 2"] * 4 + ["night 3"] * 4
    assert load_frozen(Path(twice[0].job_dir) / "config.yaml").lq.group == "night 2"
    assert app.store.groups.names() == ["night 3", "night 2", "night"]


def test_named_group_is_joined(app: App, file: Path) -> None:
    enqueue_all(app, check_all(app, [file]))
    enqueue_all(app, check_all(app, [file], sets=["lq.group=night", "lq.matrix.learning_rate=[1e-3]"]))
    enqueue_all(app, check_all(app, [file], sets=["lq.group=night", "lq.matrix="]))
    assert len(app.store.groups.jobs("night")) == 7


def test_taken_group_name_gets_a_number() -> None:
    assert [free_name("a", taken) for taken in ([], ["a"], ["a", "a 2"], ["a 2"])] == ["a", "a 2", "a 3", "a"]


def test_sweep_is_queued_whole_or_not(home: Home, app: App, file: Path) -> None:
    checked = check_all(app, [file], sets=["adapter_path=out"])
    enqueue_all(app, checked[2:3])
    with pytest.raises(NotAllowed, match="is already taken by job 1"):
        enqueue_all(app, checked)
    assert [job.id for job in home.store.jobs.overview()] == [1]
    assert len(list(home.jobs.iterdir())) == 1
    with pytest.raises(NotAllowed):
        check_all(app, [file], sets=["adapter_path=out"])


def test_invalid_combination_queues_nothing(home: Home, app: App, file: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"night\.yaml: --set lq\.matrix\.num_layers: num_layers: 9, "):
        check_all(app, [file], sets=["lq.matrix.num_layers=[1, 2, 9]"])
    assert home.store.jobs.overview() == []


def test_killed_submit_leaves_no_job(home: Home, app: App, file: Path) -> None:
    """Killed where it hurts most: the last folder has its name, and the transaction has not ended."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from orchestrator.submission import staging\n"
        "from orchestrator.core.app import App\n"
        "from orchestrator.submission.submit import check_all, enqueue_all\n"
        "named = staging.moved\n"
        "def moved(folder, jobs, name):\n"
        "    path = named(folder, jobs, name)\n"
        "    if name.startswith('4-'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return path\n"
        "staging.moved = moved\n"
        "with App.of_this_user() as app:\n"
        "    enqueue_all(app, check_all(app, [Path(sys.argv[1])]))\n"
    )
    environment = os.environ | {"LQ_HOME": str(home.path)}
    done = subprocess.run([sys.executable, "-c", script, str(file)], env=environment, check=False)
    assert done.returncode == -9
    assert home.store.jobs.overview() == []
    assert len([path for path in home.jobs.iterdir() if path.name[0].isdigit()]) == 4

    jobs = enqueue_all(app, check_all(app, [file], sets=["lq.name=another"]))
    assert [job.group_name for job in jobs] == ["another"] * 4
    assert sorted(path.name for path in home.jobs.iterdir()) == sorted(Path(job.job_dir).name for job in jobs)


def test_folder_of_a_run_is_no_leftover(tmp_path: Path) -> None:
    """The store may have been put back to an older copy, whose next id has been used."""
    ran = tmp_path / "1-other"
    ran.mkdir()
    (ran / "config.yaml").touch()
    (ran / "events.jsonl").touch()
    with staging.opened(tmp_path) as stage:
        folder = stage / "filled"
        folder.mkdir()
        (folder / "config.yaml").touch()
        assert staging.moved(folder, tmp_path, "1-mine") == tmp_path / "1-mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-mine", "1-other"]


# --- the command line ---


def test_submit_reports_the_group(home: Home, file: Path) -> None:
    lq = InProcess(home.path)
    said = lq("submit", "--dry-run", file).out
    assert "night lr=1e-5 r=4: 1,000 iterations" in said
    assert said.splitlines()[-1].startswith("4 jobs")
    planned = lq.json("submit", "--dry-run", file)
    assert planned["dry_run"] is True
    assert planned["jobs"][0] == {
        "id": None,
        "name": "night lr=1e-5 r=4",
        "group": "night",
        "settings": {"learning_rate": 1e-5, "lora_parameters.rank": 4},
        "status": None,
        "job_dir": None,
    }
    assert home.store.jobs.overview() == []
    said = lq("submit", file, "--set", "iters=3").out
    assert "4 jobs queued, 1 to 4\n" in said
    assert max(map(len, said.splitlines()[:2])) <= 80
    assert "4 lr=1e-4 r=8" in said
    assert {job.iters for job in home.store.groups.jobs("night")} == {3}


def test_many_jobs_are_not_all_listed(home: Home, file: Path) -> None:
    said = InProcess(home.path)("submit", file, "--set", "lq.matrix.seed=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]").out
    assert "40 jobs queued, 1 to 40" in said
    assert "and 16 more" in said
    assert len(said.splitlines()) < 25


def test_run_follows_one_job_only(home: Home, file: Path) -> None:
    answer = InProcess(home.path)("run", file, expect=2)
    assert "lq submit" in answer.err
    assert home.store.jobs.overview() == []


def test_invalid_set_is_one_line(home: Home, file: Path) -> None:
    answer = InProcess(home.path)("submit", file, "--set", "iters=x", expect=2)
    assert answer.err.startswith(f"lq: {file}: --set iters: ")
    assert answer.err.endswith(" not 'x'\n")
    assert answer.err.count("\n") == 1


def test_after_names_a_group_of_its_submit(app: App, file: Path, tmp_path: Path) -> None:
    last = tmp_path / "last.yaml"
    last.write_text("model: model\ndata: data\nnum_layers: -1\nlq: {after: [night]}\n")
    *_, job = enqueue_all(app, check_all(app, [file, last]))
    assert job.status is Status.QUEUED
    assert [one.on for one in app.store.dependencies.find(of=job.id)] == [1, 2, 3, 4]
