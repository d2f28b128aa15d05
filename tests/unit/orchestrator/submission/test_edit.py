"""lq edit: what a job asks for, changed before it starts; and everything that leaves it as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import JobText, full_text, load_frozen, load_jobs
from configs.preset_files import presets
from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from orchestrator.cli.verbs import run
from orchestrator.core.app import App
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.store.job_edits import BEING_EDITED
from orchestrator.submission.submit import check_all, enqueue_all
from tests.harness import BESIDE_PYTHON, Answer, until
from tests.unit.orchestrator.cli_homes import Home

Here = Callable[..., Answer]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a model and data."""
    place = tmp_path_factory.mktemp("shop")
    build_model(place / "model")
    build_data(place / "data", train=8, valid=2, test=0)
    return place


@pytest.fixture
def job(app: App, shop: Path) -> Job:
    """Give a job that is queued."""
    file = shop / "night.yaml"
    file.write_text("model: model\ndata: data\niters: 100\nbatch_size: 2\nnum_layers: -1\nlq: {priority: 1}\n")
    (made,) = enqueue_all(app, check_all(app, [file]))
    return made


@pytest.fixture
def here(
    home: Home, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Here:
    """Give `lq edit`, whose editor is one line of shell with the file as $1."""
    monkeypatch.setenv("LQ_HOME", str(home.path))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.chdir(shop)

    def typed(script: str, *words: str | int, expect: int = 0) -> Answer:
        editor = tmp_path / "editor"
        editor.write_text(f"#!/bin/sh\n{script}\n")
        editor.chmod(0o700)
        monkeypatch.setenv("EDITOR", str(editor))
        code = run(["edit", *map(str, words)])
        out, err = capfd.readouterr()
        assert code == expect, out + err
        return Answer(code=code, out=out, err=err)

    return typed


def asks_for(home: Home, job_id: int) -> JobSpec:
    """Return what a job asks for, once it is the same in the store and in its folder."""
    spec = home.store.spec(job_id)
    assert load_frozen(Path(home.store.jobs.get(job_id).job_dir) / "config.yaml") == spec
    return spec


@contextmanager
def nothing_changes(home: Home, job_id: int) -> Iterator[None]:
    """Insist that a job is afterwards what it was, with its state and its place."""
    before = home.store.jobs.get(job_id), home.store.jobs.spec_json(job_id)
    yield
    assert (home.store.jobs.get(job_id), home.store.jobs.spec_json(job_id)) == before


def test_saved_text_is_applied(home: Home, here: Here, job: Job) -> None:
    other = home.queued("other")
    script = (
        "sed -i 's/^iters: .*/iters: 60/; s/^# learning_rate.*/learning_rate: 2e-5/; s/^  name:.*/  name: morning/;"
        's/^  # after: .*/  after: [other]/; s/^  priority: 1/  priority: 5/\' "$1"'
    )
    said = here(script, "night").out
    assert "job 1 queued: " in said
    for change in ("iters 100 -> 60", "learning_rate 1e-05 -> 2e-05", "lq.name night -> morning"):
        assert change in said
    now, spec = home.store.jobs.get(job.id), asks_for(home, job.id)
    assert (now.status, now.name, now.iters, now.priority, now.attempts) == (Status.QUEUED, "morning", 60, 5, 0)
    assert (spec.iters, spec.learning_rate, spec.lq.after) == (60, 2e-5, ("other",))
    assert [one.on for one in home.store.dependencies.find(of=job.id)] == [other.id]
    assert now.job_dir.endswith("1-morning")
    assert not Path(job.job_dir).exists()
    told = json.loads((Path(now.job_dir) / "provenance.json").read_text())
    assert told["submitted"]["file"].endswith("night.yaml")
    assert len(told["edits"]) == 1
    assert asks_for(home, job.id).adapter_path is None
    here("sed -i 's/^iters: .*/iters: 61/' \"$1\"", job.id, "-q")
    here("sed -i 's/^iters: .*/iters: 62/' \"$1\"", job.id)
    assert asks_for(home, job.id).iters == 62
    assert len([path for path in home.jobs.iterdir() if path.name.startswith("1-")]) == 1


def test_edit_keeps_place_and_hold(home: Home, here: Here, job: Job) -> None:
    home.queued("other")
    home.store.queue.move(job.id, last=True)
    here("sed -i 's/^iters: .*/iters: 60/' \"$1\"", job.id)
    assert [one.job.id for one in home.store.queue.waiting()] == [2, 1]
    home.store.jobs.hold(job.id, "held by the user", 1.0)
    here("sed -i 's/^iters: .*/iters: 61/' \"$1\"", job.id)
    assert (home.store.jobs.get(job.id).status, home.store.jobs.get(job.id).detail) == (Status.HELD, "held by the user")
    assert asks_for(home, job.id).iters == 61


def test_unchanged_text_is_reported(home: Home, here: Here, job: Job) -> None:
    for script in ("true", "echo '# a remark' >> \"$1\""):
        with nothing_changes(home, job.id):
            assert "unchanged" in here(script, job.id).out
    assert not (Path(job.job_dir) / "edited.yaml").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("s/^iters:/itres:/", "edited.yaml:{line}: unknown key 'itres'; did you mean 'iters'?"),
        ("s/^model: .*/model: .\\/gone/", "model: no such folder"),
        ("s/^  # after: .*/  after: [1]/", "lq.after: job 1 would come after itself"),
        ("s/^  # after: .*/  after: [waiter]/", "lq.after: job 1 would come after itself"),
        ("s/^  # after: .*/  after: [nobody]/", "no job and no group is called 'nobody'"),
        ("s/^  # group.*/  matrix: {{seed: [1, 2]}}/", "a matrix makes several jobs"),
        ("s/^# adapter_path.*/adapter_path: taken/", "is already taken by job 2"),
        ("s/^# adapter_path.*/adapter_path: full/", "full holds adapters.safetensors"),
    ],
)
def test_invalid_text_is_kept(home: Home, here: Here, shop: Path, job: Job, change: str, said: str) -> None:
    waiter = home.queued("waiter", adapter_path=str(shop / "taken"))
    with home.store.database.writing() as db:
        db.exec_driver_sql("INSERT INTO dependencies VALUES (?, ?, 0)", (waiter.id, job.id))
    (shop / "full").mkdir(exist_ok=True)
    (shop / "full" / "adapters.safetensors").touch()
    kept = Path(job.job_dir) / "edited.yaml"
    with nothing_changes(home, job.id):
        answer = here(
            f"sed -i '{change.format(line=0)}' \"$1\"", job.id, expect=5 if "full" in said or "taken" in said else 2
        )
    line = next((number for number, text in enumerate(kept.read_text().splitlines(), 1) if "itres" in text), 0)
    assert said.format(line=line) in answer.err
    assert str(kept) in answer.err
    assert answer.err.count("\n") == 1
    again = here("sed -i 's/^itres:/iters:/' \"$1\"", job.id, expect=0 if "itres" in said else answer.code)
    assert "earlier edit" in again.err


@pytest.mark.parametrize(("script", "code"), [("exit 3", 1), ("kill -INT $PPID; kill -INT $$", 130)])
def test_failed_editor_changes_nothing(home: Home, here: Here, job: Job, script: str, code: int) -> None:
    with nothing_changes(home, job.id):
        here(script, job.id, expect=code)


def test_release_during_an_edit_wins(home: Home, here: Here, job: Job) -> None:
    script = f"sed -i 's/^iters: .*/iters: 60/' \"$1\"; {BESIDE_PYTHON}/lq resume 1 > /dev/null"
    answer = here(script, job.id, expect=5)
    assert "released during the edit" in answer.err
    assert "edited.yaml" in answer.err
    assert (asks_for(home, job.id).iters, home.store.jobs.get(job.id).status) == (100, Status.QUEUED)


def test_job_is_held_during_an_edit(home: Home, shop: Path, tmp_path: Path, job: Job) -> None:
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\ntouch {tmp_path}/open; while [ -e {tmp_path}/open ]; do sleep 0.05; done\n")
    editor.chmod(0o700)
    own = {"LQ_HOME": str(home.path), "EDITOR": str(editor)}
    with subprocess.Popen([BESIDE_PYTHON / "lq", "edit", "1"], env=os.environ | own, stdin=subprocess.DEVNULL) as lq:
        until((tmp_path / "open").exists, "the editor to open")
        held = home.store.jobs.get(job.id)
        assert held.status is Status.HELD
        assert (held.detail or "").startswith(BEING_EDITED)
        second = subprocess.run(
            [BESIDE_PYTHON / "lq", "edit", "1"], env=os.environ | own, capture_output=True, text=True, check=False
        )
        assert second.returncode == 5
        lq.send_signal(signal.SIGKILL)
        lq.wait()
        (tmp_path / "open").unlink()
    assert home.store.jobs.get(job.id) == held
    assert home.store.jobs.release(job.id).status is Status.QUEUED
    assert asks_for(home, job.id).iters == 100


def test_begun_job_cannot_be_edited(home: Home, here: Here) -> None:
    ids = {
        "has ended (succeeded)": home.ended(Status.SUCCEEDED, Reason.COMPLETED).id,
        "has ended (cancelled)": home.cancelled().id,
        "has run": home.ended(Status.PAUSED, Reason.STOPPED_BY_USER).id,
        "is running": home.running().id,
    }
    for said, job_id in ids.items():
        with nothing_changes(home, job_id):
            answer = here("exit 1", job_id, expect=5)
        assert f"job {job_id} {said} and cannot be edited; " in answer.err
        assert "--set KEY=VALUE" in answer.err


def test_missing_editor_names_the_variable(
    home: Home, here: Here, job: Job, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, said in (
        ("", "EDITOR=nano"),
        ("/no/such/editor", "/no/such/editor: No such file"),
        ("'", "No"),
    ):
        monkeypatch.setenv("EDITOR", name)
        with nothing_changes(home, job.id):
            assert run(["edit", str(job.id)]) == 2
        assert said in capfd.readouterr().err


@settings(max_examples=12)
@given(st.data())
def test_untouched_text_is_the_same_job(data: st.DataObject) -> None:
    lq = {
        "name": data.draw(st.text("abc: #'", min_size=1).filter(str.strip)).strip(),
        "priority": data.draw(st.integers(-5, 5)),
        "window": data.draw(st.sampled_from([None, "22:00-07:30"])),
        "after": data.draw(st.lists(st.integers(1, 9), max_size=2)),
        "early_stop": data.draw(st.sampled_from([None, {"patience": 10}, {"min_delta": "1se"}])),
        "prompts": data.draw(st.lists(st.text("a\n:#' ", min_size=1), max_size=2)),
        "retry": {"max_restarts": data.draw(st.integers(0, 6))},
    }
    own = {"iters": data.draw(st.integers(1, 2000)), "learning_rate": data.draw(st.sampled_from([1e-5, 3e-4]))}
    spec = JobSpec.model_validate({"model": "a/b", "data": "c/d", "lq": lq} | own)
    (loaded,) = load_jobs(JobText(name="x.yaml", content=full_text(spec).encode()))
    assert loaded.spec == spec


def test_every_preset_survives_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for preset in presets():
        for loaded in load_jobs(JobText(name="x.yaml", content=preset.text.encode())):
            (again,) = load_jobs(JobText(name="x.yaml", content=full_text(loaded.spec).encode()))
            assert again.spec == loaded.spec
