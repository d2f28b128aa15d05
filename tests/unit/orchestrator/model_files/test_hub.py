"""A model of the Hugging Face hub at submit: cached, partly cached, absent, gated, or out of reach."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from jobs.model.errors import InvalidInput
from orchestrator.core.app import App
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.model_files.hub import TIMEOUT_S, HubAnswer, ask
from orchestrator.model_files.hub_cache import folder_of
from orchestrator.submission.submit import Checked, check_all
from tests.integration.loopback import Endpoint, listening

MODEL = "made-up/tiny"
COMMIT = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32"
SECRET = "hf_made_up_secret"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and a job file for a model of the hub; the cache is empty, and nothing else is reachable."""
    build_data(tmp_path / "data", train=8, valid=2, test=0)
    (tmp_path / "night.yaml").write_text(f"model: {MODEL}\ndata: data\niters: 10\nbatch_size: 2\nnum_layers: -1\n")
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


def cached(place: Path, *, commit: str = COMMIT, seed: int = 0) -> Path:
    """Put the model into the cache as huggingface_hub does: links in a snapshot to blobs; return the snapshot."""
    repository = place / "hf" / "hub" / "models--made-up--tiny"
    build_model(place / "built", seed=seed)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for folder in ("blobs", "refs"):
        (repository / folder).mkdir(exist_ok=True)
    for number, path in enumerate(sorted((place / "built").iterdir())):
        blob = repository / "blobs" / f"{commit[:8]}{number}"
        shutil.move(path, blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def submitted(app: App, place: Path) -> Checked:
    """Check the job file as submit does."""
    (job,) = check_all(app, [place / "night.yaml"])
    return job


def test_cached_model_needs_no_network(app: App, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(place)
    for offline in ("0", "1"):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        assert submitted(app, place).cautions == ()


def test_snapshot_of_the_main_branch_counts(place: Path) -> None:
    first = cached(place)
    other = cached(place, commit="b" * 40, seed=1)
    (place / "hf" / "hub" / "models--made-up--tiny" / "refs" / "main").write_text(COMMIT)
    os.utime(other)
    assert folder_of(MODEL) == first


def test_offline_without_the_model_is_refused(app: App, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidInput, match="HF_HUB_OFFLINE") as refused:
        submitted(app, place)
    assert str(refused.value).startswith(f"{place / 'night.yaml'}:1: model: {MODEL} ")


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json"])
def test_partly_cached_model(app: App, place: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    (cached(place) / lost).resolve().unlink()  # the link stays
    with Endpoint() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert submitted(app, place).cautions == ()  # the next download adds what is missing
        assert len(hub.received) == 1
    assert len(submitted(app, place).cautions) == 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidInput, match=lost):
        submitted(app, place)


def test_download_that_was_cut_off(app: App, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(place)
    weights = (snapshot / "model.safetensors").resolve()
    (snapshot / "model.safetensors").unlink()
    weights.rename(weights.with_name("4d7a2146.incomplete"))
    assert folder_of(MODEL) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidInput, match=r"no model.*safetensors"):
        submitted(app, place)


def test_damaged_blob_is_named_with_its_folder(app: App, place: Path) -> None:
    blob = (cached(place) / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"model\.safetensors is cut short") as refused:
        submitted(app, place)
    assert COMMIT in str(refused.value)


@pytest.mark.parametrize(
    ("status", "headers", "answer"),
    [
        (200, {}, HubAnswer.THERE),
        (307, {"Location": "/elsewhere"}, HubAnswer.THERE),
        (302, {"Location": "http://127.0.0.1:9/other-host"}, HubAnswer.THERE),
        (401, {"X_Error_Code": "RepoNotFound"}, HubAnswer.ABSENT),
        (404, {"X_Error_Code": "RepoNotFound"}, HubAnswer.ABSENT),
        (404, {}, HubAnswer.ABSENT),
        (401, {}, HubAnswer.ABSENT),
        (404, {"X_Error_Code": "EntryNotFound"}, HubAnswer.NO_MODEL),
        (401, {"X_Error_Code": "GatedRepo"}, HubAnswer.GATED),
        (403, {"X_Error_Code": "GatedRepo"}, HubAnswer.GATED),
        (403, {}, HubAnswer.GATED),
        (429, {}, HubAnswer.UNREACHABLE),
        (500, {}, HubAnswer.UNREACHABLE),
        (503, {}, HubAnswer.UNREACHABLE),
    ],
)
def test_answers_of_the_hub(
    app: App,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    answer: HubAnswer,
) -> None:
    with Endpoint(always=status, headers={name.replace("_", "-"): value for name, value in headers.items()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert ask(MODEL)[0] is answer
        if answer in (HubAnswer.THERE, HubAnswer.UNREACHABLE):
            assert len(submitted(app, place).cautions) == (answer is HubAnswer.UNREACHABLE)
        else:
            with pytest.raises(InvalidInput, match=MODEL):
                submitted(app, place)
        assert {path for path, _ in hub.received} == {f"/{MODEL}/resolve/main/config.json"}


def test_refused_connection_is_a_caution(app: App, place: Path) -> None:
    (line,) = submitted(app, place).cautions
    assert MODEL in line
    assert "127.0.0.1:9" in line


def test_endpoint_that_never_answers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert ask(MODEL)[0] is HubAnswer.UNREACHABLE
    assert TIMEOUT_S <= 5


@pytest.mark.parametrize(
    "endpoint", ["http://nowhere.invalid", "http://127.0.0.1:1/x y", "nonsense", "file:///etc/passwd"]
)
def test_endpoint_that_is_no_endpoint(place: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert ask(MODEL)[0] is not HubAnswer.THERE


@pytest.mark.parametrize("stored", [False, True])
def test_token_is_sent_and_never_shown(app: App, place: Path, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    if stored:
        (place / "hf").mkdir()
        (place / "hf" / "token").write_text(f"{SECRET}\n")
    else:
        monkeypatch.setenv("HF_TOKEN", SECRET)
    with Endpoint(always=403) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(InvalidInput) as refused:
            submitted(app, place)
        assert hub.authorizations == [f"Bearer {SECRET}"]
    assert SECRET not in str(refused.value)


def test_password_of_the_endpoint_is_hidden(app: App, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://me:{SECRET}@127.0.0.1:9")
    (line,) = submitted(app, place).cautions
    assert SECRET not in line


def test_token_follows_no_redirect(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with Endpoint() as other, Endpoint(always=302, headers={"Location": f"{other.url}/there"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert ask(MODEL)[0] is HubAnswer.THERE
        assert len(hub.received) == 1
        assert other.received == []


def test_sweep_asks_the_hub_once(app: App, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "sweep.yaml"
    file.write_text((place / "night.yaml").read_text() + "lq: {matrix: {learning_rate: [1e-5, 2e-5, 3e-5]}}\n")
    with Endpoint() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert len(check_all(app, [file])) == 3
        assert len(hub.received) == 1


def test_layers_of_a_cached_model(app: App, place: Path) -> None:
    cached(place)
    with pytest.raises(InvalidInput, match="num_layers: 3, but the model has 2 layers"):
        check_all(app, [place / "night.yaml"], sets=["num_layers=3"])
    assert json.loads((folder_of(MODEL) or place).joinpath("config.json").read_text())["num_hidden_layers"] == 2
