"""Whether a job's disk is there, before it is queued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobs.estimates.disk import Array, SpaceNeed, disk_need, trained_arrays
from jobs.model.errors import InvalidInput
from jobs.model.spec import JobSpec
from orchestrator.core.app import App
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.estimation import disk as budget
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home

MB, GB = 1_000_000, 1_000_000_000


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have 10 GB free."""
    usage = shutil.disk_usage("/")._replace(free=10 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def job_of(megabytes: int, **keys: object) -> SpaceNeed:
    """Return the need of a job whose adapter takes so many MB, a third of its checkpoint."""
    array = Array((megabytes * MB // 4,), 4)
    return disk_need(JobSpec.model_validate(keys), [array], valid_rows=100)


def test_need_is_bounded_by_retention() -> None:
    short, long = job_of(100, iters=1000), job_of(100, iters=1_000_000)
    assert short.checkpoints == long.checkpoints == 8
    assert long.total - short.total < 300 * MB, "only its log grows"
    assert job_of(100, iters=2).checkpoints == 2
    assert job_of(100, adapter_path="/x").adapters == short.adapters + 2
    assert job_of(100, lq={"keep": {"milestones": "0%", "last": 5}}).adapters == 0


@pytest.mark.usefixtures("free")
def test_shortage_names_the_numbers(app: App, home: Home) -> None:
    home.write_settings("disk: {floor: 1GB}\n")
    budget.require_space(app, [(Path("fits.yaml"), job_of(200))])
    said = (
        r"^large\.yaml: the run may take 13\.\d+ GB "
        r"\(8 checkpoints of 1\.2 GB, 10 adapters of 400 MB, logs of .* MB\)"
        r" and 3\.6 GB must stay free, but 10 GB are free; make room \(lq prune --all, lq clean\)"
    )
    with pytest.raises(InvalidInput, match=said) as refusal:
        budget.require_space(app, [(Path("large.yaml"), job_of(400))])
    assert refusal.value.exit_code == 2


@pytest.mark.usefixtures("free")
def test_jobs_queued_together_share_space(app: App, home: Home) -> None:
    home.write_settings("disk: {floor: 1GB}\n")
    one = (Path("one.yaml"), job_of(150))
    budget.require_space(app, [one])
    with pytest.raises(InvalidInput, match=r"1 other jobs may take 5\.") as refusal:
        budget.require_space(app, [one, (Path("two.yaml"), job_of(200))])
    assert str(refusal.value).startswith("two.yaml: ")


@pytest.mark.usefixtures("free")
def test_promised_space_is_not_given_twice(app: App, home: Home) -> None:
    home.write_settings("disk: {floor: 1GB}\n")
    folder = Path(home.queued().job_dir)
    (folder / "provenance.json").write_text(json.dumps({"disk": {"bytes": 6 * GB}}))
    wanted = [(Path("two.yaml"), job_of(150))]
    with pytest.raises(InvalidInput, match=r"\b1 other jobs .* 6 GB"):
        budget.require_space(app, wanted)
    with (folder / "written").open("wb") as file:
        file.truncate(5 * GB)  # most of it is on the disk already, and no longer free
    budget.require_space(app, wanted)


def test_absent_model_is_noted(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/nowhere")
    wanted = budget.need_of(JobSpec(model="org/name"), valid_rows=0)
    assert (wanted.adapter, wanted.checkpoint) == (None, 0)
    assert "not on this machine yet" in (budget.unknown(wanted) or "")
    budget.require_space(app, [(Path("hub.yaml"), wanted)])


def test_model_in_the_hub_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    build_model(tmp_path / "hub" / "models--org--name" / "snapshots" / "abc")
    wanted = budget.need_of(JobSpec(model="org/name", num_layers=-1), valid_rows=0)
    assert wanted.adapter
    assert budget.unknown(wanted) is None


def test_unknown_tensor_names_are_unknown() -> None:
    assert trained_arrays({"encoder.weird.weight": (4, (8, 8))}, JobSpec(), bits={}, usual_bits=4) is None


def test_every_expert_is_counted() -> None:
    stacked = {"model.layers.0.mlp.switch_mlp.up_proj.weight": (2, (8, 32, 16))}
    apart = {f"model.layers.0.mlp.experts.{number}.up_proj.weight": (2, (32, 16)) for number in range(8)}
    sizes = [
        sum(array.nbytes for array in trained_arrays(tensors, JobSpec(num_layers=-1), bits={}, usual_bits=4) or [])
        for tensors in (stacked, apart)
    ]
    assert sizes == [8 * 8 * (32 + 16) * 4] * 2


def test_submit_refuses_and_records_space(home: Home, tmp_path: Path) -> None:
    build_model(tmp_path / "model")
    build_data(tmp_path / "data")
    file = tmp_path / "night.yaml"
    file.write_text("model: model\ndata: data\nnum_layers: -1\n")
    lq = InProcess(home.path)
    home.write_settings("autostart: false\ndisk: {floor: 900000GB}\n")
    for verb in ("submit", "run"):
        answer = lq(verb, file, expect=2)
        assert answer.err.startswith(f"lq: {file}: the run may take ")
        assert answer.err.count("\n") == 1
    home.write_settings("autostart: false\n")
    (job,) = lq.json("submit", file)["jobs"]
    recorded = json.loads((Path(job["job_dir"]) / "provenance.json").read_text())["disk"]
    assert recorded["bytes"] > recorded["checkpoint_bytes"] * recorded["checkpoints"] > 0
