"""Model, weights and fused model of a job, and the output of `lq generate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobs.model.errors import InvalidInput, LqError, ModelMissing, NotAllowed
from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.artifacts import fuse, weights
from orchestrator.cli.commands import model as commands
from orchestrator.cli.verbs import run
from orchestrator.core.app import App
from tests.unit.orchestrator.cli_homes import Home

RULE = "=========="
FIGURES = (
    f"\n{RULE}\nPrompt: 23 tokens, 341.181 tokens-per-sec\n"
    "Generation: 20 tokens, 121.411 tokens-per-sec\nPeak memory: 1.250 GB\n"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


@pytest.fixture
def job(home: Home, model: Path, tmp_path: Path) -> Job:
    """A job that succeeded but has no adapter yet."""
    return home.ended(
        Status.SUCCEEDED, Reason.COMPLETED, model=str(model), data=str(tmp_path), adapter_path=str(tmp_path / "out")
    )


def write_adapter(folder: Path, job: Job) -> Path:
    """Write an adapter folder as lq does."""
    folder.mkdir(parents=True)
    for name in ("adapters.safetensors", "final_adapters.safetensors", "adapter_config.json"):
        (folder / name).write_text("{}")
    about = {"job_dir": job.job_dir, "best": {"iteration": 80}, "final": {"iteration": 100}, "why": "the lowest loss"}
    (folder / "lq.json").write_text(json.dumps(about))
    return folder


def own_folder(job: Job) -> Path:
    return Path(job.job_dir) / "adapters"


# --- model and adapter ---


def test_best_adapter_goes_to_mlx_lm(app: App, job: Job, model: Path) -> None:
    folder = write_adapter(own_folder(job), job)
    tuned = weights.tuned(app, job)
    assert (tuned.iteration, tuned.words) == (80, "its best weights, of iteration 80")
    arguments = tuned.arguments("chat", "--temp", "0.7")
    assert arguments == ["chat", "--model", str(model), "--adapter-path", str(folder), "--temp", "0.7"]
    assert weights.tuned(app, job, base=True).arguments("chat") == ["chat", "--model", str(model)]


def test_published_adapter_is_a_fallback(app: App, job: Job, tmp_path: Path) -> None:
    published = write_adapter(tmp_path / "out", job)
    assert weights.tuned(app, job).adapter == published
    (published / "lq.json").write_text(json.dumps({"job_dir": "/another/job"}))
    with pytest.raises(NotAllowed, match=rf"see: lq verify {job.id}"):
        weights.tuned(app, job)


REMEDIES = {
    Status.WAITING: "wait for it: lq wait",
    Status.PAUSED: "resume it: lq resume",
    Status.FAILED: "then lq retry",
}


def test_missing_adapter_names_a_remedy(home: Home, app: App, model: Path) -> None:
    for status, remedy in REMEDIES.items():
        job = home.ended(status, Reason.KILLED, model=str(model))
        with pytest.raises(
            NotAllowed, match=f"job {job.id} is {status} and has no finished adapter.*{remedy} {job.id}"
        ):
            weights.tuned(app, job)
        with pytest.raises(NotAllowed, match=f"job {job.id} is {status} and has no weights.*{remedy} {job.id}"):
            weights.weights(app, job, "best")


def test_cleaned_job_can_be_resubmitted(home: Home, app: App, job: Job) -> None:
    home.store.jobs.mark_cleaned(job.id, 1.0)
    with pytest.raises(NotAllowed, match=r"was cleaned, .*: lq submit .*config\.yaml"):
        weights.tuned(app, app.store.jobs.get(job.id))


def test_missing_model_is_named(app: App, job: Job, model: Path) -> None:
    write_adapter(own_folder(job), job)
    shutil.rmtree(model)
    with pytest.raises(ModelMissing, match=f"its model {model} does not exist any more"):
        weights.tuned(app, job)


def test_weights_by_name_or_iteration(app: App, job: Job) -> None:
    folder = write_adapter(own_folder(job), job)
    (folder / "0000060_adapters.safetensors").write_text("{}")
    found = [weights.weights(app, job, which) for which in ("best", "last", 60, 0)]
    assert [(one.iteration, one.words) for one in found] == [
        (80, "best"),
        (100, "last"),
        (60, "kept"),
        (0, "before training"),
    ]
    assert found[3].path is None
    with pytest.raises(NotAllowed, match=r"iteration 7; .* 60"):
        weights.weights(app, job, 7)


WRONG = [
    (["chat", "9"], 3, "no job 9"),
    (["generate", "1", "-p", " "], 2, "the prompt is empty"),
    (["test", "1", "--checkpoint", "soon"], 2, "'soon'"),
    (["test", "1"], 2, "test.jsonl does not exist; choose another folder: lq test 1 --data FOLDER"),
    (["fuse", "1", "--", "--save-path", "x"], 2, "--save-path must come before the --"),
    (["generate", "1", "-p", "x", "--anyway", "--queue"], 2, "--anyway and --queue"),
]


def test_invalid_options_give_one_line(
    home: Home, job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_adapter(own_folder(job), job)
    monkeypatch.setenv("LQ_HOME", str(home.path))
    for words, code, message in WRONG:
        assert run(words) == code
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert message in err


# --- the place of a fused model ---


def test_fuse_replaces_only_a_model(app: App, job: Job, model: Path, tmp_path: Path) -> None:
    write_adapter(own_folder(job), job)
    tuned = weights.tuned(app, job)
    target = tmp_path / "fused"
    fuse.require_target(target, tuned, force=False, options=())
    target.mkdir()
    fuse.require_target(target, tuned, force=False, options=())
    (target / "notes.txt").write_text("mine")
    with pytest.raises(NotAllowed, match="exists; overwrite it with --force"):
        fuse.require_target(target, tuned, force=False, options=())
    with pytest.raises(NotAllowed, match="contains more than a model"):
        fuse.require_target(target, tuned, force=True, options=())
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model / name, target)
    fuse.require_target(target, tuned, force=True, options=())
    (target / "sub").mkdir()
    with pytest.raises(NotAllowed, match="contains more than a model"):
        fuse.require_target(target, tuned, force=True, options=())
    for place in (model, tmp_path):
        with pytest.raises(InvalidInput, match="contains the base model"):
            fuse.require_target(place, tuned, force=True, options=())


def test_fuse_needs_disk_space_first(app: App, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(own_folder(job), job)
    usage = type("Usage", (), {"free": fuse.SPARE_BYTES + 500})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(LqError, match=r"needs 1 kB, .* free;"):
        fuse.require_target(tmp_path / "fused", weights.tuned(app, job), force=False, options=())


def test_fuse_recovers_from_a_kill(tmp_path: Path) -> None:
    target, replaced = tmp_path / "fused", tmp_path / ".fused.replaced"
    replaced.mkdir()
    (replaced / "config.json").write_text("{}")
    (tmp_path / ".fused.partial" / "old").mkdir(parents=True)
    with fuse._partial_folder(target) as partial:
        assert list(partial.iterdir()) == []
        assert (target / "config.json").exists()
        (partial / "config.json").write_text("new")
        with (
            pytest.raises(NotAllowed, match="another lq fuse is writing"),
            fuse._partial_folder(target),
        ):
            raise AssertionError("two write there")
        fuse._rename(partial, target)
    assert (target / "config.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["fused"]


# --- what is printed of an answer ---


@pytest.mark.parametrize("answer", ["5", "", "two\nlines\n", f"a rule\n{RULE}\nand more", "==", f"x\n{RULE}"])
def test_answer_is_split_from_figures(answer: str) -> None:
    output = f"{RULE}\n{answer}{FIGURES}"
    found, figures = commands._split(output)
    assert found == answer
    assert (figures["tokens"], figures["tok_s"], figures["peak_gb"]) == ("20", "121.411", "1.250")
    shown = [commands._partial_answer(output[:end]) for end in range(len(output) + 1)]
    assert all(answer.startswith(one) for one in shown)
    assert max(map(len, shown)) <= len(answer), "no figure is printed as an answer"


def test_output_without_figures_is_kept() -> None:
    assert commands._split(f"{RULE}\n\n{RULE}\nNo text generated for this prompt\n") == ("", {})
    assert commands._split("plain\n") == ("plain\n", {})
