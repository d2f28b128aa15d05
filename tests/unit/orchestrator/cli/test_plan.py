"""`lq plan`: the queue and files behind it. Nothing is trained."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len

from jobs.estimates.estimate import PROGRAM_BYTES, MemoryEstimate, MemoryParts, Source, TimeEstimate
from jobs.model.configuration import fit_key
from jobs.model.job import Fit
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.scheduling.timeline import JobTimes
from orchestrator.cli.views.plan import queue_chart, render
from orchestrator.cli.views.terminal import UNCUT
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.estimation.memory import MAC_SHARE, recommended_memory
from orchestrator.planning.plan import FitStep, JobPlan, QueuePlan
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import NOW, Home, Seen, contents
from tests.unit.orchestrator.rendering import assert_view, text_of
from workers.system.memory import allowed_memory

LARGE = {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 128_000,
}
"""config.json of a large model without weights."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a small model, data, and the config of a large model."""
    folder = tmp_path_factory.mktemp("shop")
    build_model(folder / "model")
    build_data(folder / "data", train=60, valid=8, test=0)
    shutil.copytree(folder / "model", folder / "large")
    config = json.loads((folder / "large" / "config.json").read_text())
    (folder / "large" / "config.json").write_text(json.dumps(config | LARGE))
    return folder


def file(shop: Path, name: str = "night", **keys: Any) -> Path:
    path = shop / f"{name}.yaml"
    usual = {"model": "model", "data": "data", "num_layers": -1, "iters": 1000}
    path.write_text(yaml.safe_dump(usual | keys))
    return path


def planned(home: Home, *files: Path) -> dict[str, Any]:
    return InProcess(home.path).json("plan", *files)


def text(home: Home, *files: Path) -> str:
    """Return what `lq plan` prints into a pipe at 80 columns."""
    with chdir(files[0].parent):
        return InProcess(home.path, COLUMNS="80")("plan", *files).out


def ran(home: Home, spec: JobSpec, **seen: Any) -> int:
    """Store the fit that an attempt with these settings would have stored; return its job."""
    job = home.cancelled("before")
    stored = {"fits": True, "peak_bytes": 2 * 10**8, "it_s": 4.0, "start_s": 10.0, "validation_s": 2.0} | seen
    with own_spec(home, job.id, spec):
        key = fit_key(spec, RunPlan.requested(spec).stages[0])
        home.store.fits.record(key, Fit(job_id=job.id, **stored), 1.0)
    return job.id


@contextmanager
def own_spec(home: Home, job_id: int, spec: JobSpec) -> Iterator[None]:
    """Replace the settings of a job; `Home.queued` has one model only."""
    with sqlite3.connect(home.path / "lq.db") as db:
        db.execute("UPDATE jobs SET spec_json = ? WHERE id = ?", (spec.model_dump_json(), job_id))
    yield


def spec_of(path: Path) -> JobSpec:
    from configs.load import load_jobs

    return load_jobs(path)[0].spec


# --- memory ---


def test_plan_of_a_file_queues_nothing(home: Home, shop: Path) -> None:
    before = contents(home.path)
    (one,) = planned(home, file(shop))["jobs"]
    assert (one["id"], one["name"], one["status"], one["verdict"]) == (None, "night", "file", "fits")
    memory = one["memory"]
    assert memory["low_bytes"] < memory["expected_bytes"] < memory["high_bytes"] < one["room_bytes"]
    assert memory["source"] == "formula"
    after = contents(home.path)
    added = {name for name in after if name not in before and not name.endswith(("-shm", "-wal"))}
    assert [name for name in added if not name.startswith("cache")] == []
    same = [name for name in before if not name.endswith(("-shm", "-wal"))]  # SQLite's own files
    assert [after[name] for name in same] == [before[name] for name in same]


def test_plan_makes_no_home(tmp_path: Path, shop: Path) -> None:
    lq = InProcess(tmp_path / "none")
    assert len(lq.json("plan", file(shop))["jobs"]) == 1
    out = lq("plan").out
    assert out.endswith("plan a file: lq plan config.yaml\n")
    assert re.match(r"memory: [\d.]+ GB \(", out)
    assert not (tmp_path / "none").exists()


def test_plan_lists_steps_that_make_it_fit(home: Home, shop: Path) -> None:
    path = file(shop, "large", model="large", batch_size=8, max_seq_length=2048, lq={"memory": {"limit": "1.2GB"}})
    (one,) = planned(home, path)["jobs"]
    assert one["verdict"] in ("tight", "does not fit")
    parts = one["memory"]["parts"]
    longest = 8 * 64  # rows of at most 64 tokens, and one to predict
    assert parts["logits"] == pytest.approx(4.2 * longest * 128_000 * 4, rel=0.01)
    sizes = [remedy["memory"]["expected_bytes"] for remedy in one["remedies"]]
    assert sizes
    assert all(size < one["memory"]["expected_bytes"] for size in sizes)
    firsts = [remedy["first"] for remedy in one["remedies"]]
    assert firsts == [False] * (len(firsts) - 1) + [True]
    assert one["remedies"][-1]["memory"]["high_bytes"] <= one["room_bytes"]
    assert [remedy["by"] for remedy in one["remedies"][:2]] == ["lq"] * 2
    assert one["remedies"][0]["change"] == "gradient checkpointing on"


def test_no_step_fits_a_tiny_limit(home: Home, shop: Path) -> None:
    (one,) = planned(home, file(shop, "none-fits", model="large", lq={"memory": {"limit": "100MB"}}))["jobs"]
    assert not any(remedy["first"] for remedy in one["remedies"])


def test_earlier_runs_correct_the_estimate(home: Home, shop: Path) -> None:
    path, other = file(shop), file(shop, "other", batch_size=2)
    (bare,) = planned(home, path)["jobs"]
    job = ran(home, spec_of(path), peak_bytes=7 * 10**8)
    same, scaled = planned(home, path, other)["jobs"]
    assert same["memory"]["expected_bytes"] == 7 * 10**8
    assert same["memory"]["because"] == f"measured in job {job}"
    ratio = 7 * 10**8 / bare["memory"]["expected_bytes"]
    assert f"times {ratio:.2f} as measured in job {job}" in scaled["memory"]["because"]
    assert scaled["memory"]["expected_bytes"] > 6 * 10**8


def test_out_of_memory_plan_uses_the_ladder(home: Home, shop: Path) -> None:
    path = file(shop)
    job = ran(home, spec_of(path), fits=False, it_s=None)
    (one,) = planned(home, path)["jobs"]
    (note,) = one["notes"]
    reason, steps = note.split(": ")
    assert reason == f"out_of_memory in job {job}"
    assert steps.split(", ") == ["batch 4 -> 4", "accumulation 1 -> 1", "gradient checkpointing on"]
    assert one["verdict"] == "fits"


def test_missing_model_has_no_estimate(home: Home, shop: Path) -> None:
    (one,) = planned(home, file(shop, "hub", model="nobody/has-this"))["jobs"]
    assert one["memory"] is None
    assert one["verdict"] is None
    assert any(note.startswith("memory: unknown") for note in one["notes"])
    assert any("estimated from characters" in note for note in one["notes"])


def test_mac_limit_comes_from_an_earlier_run(home: Home) -> None:
    allowed = allowed_memory()
    assert recommended_memory(None, "linux") == (allowed, "what the system allows")
    assert recommended_memory(home.store, "darwin")[0] == int(MAC_SHARE * allowed)
    job = home.running(seen=Seen(iteration=10, train_loss=1.0, val_loss=1.0, it_s=1.0))
    with sqlite3.connect(home.path / "lq.db") as db:
        db.execute("UPDATE progress_points SET limit_bytes = 8500000000")
    size, source = recommended_memory(home.store, "darwin")
    assert size == pytest.approx(10**10)
    assert source == f"as reported by job {job.id}"


# --- time ---


def test_time_is_unknown_without_earlier_run(home: Home, shop: Path) -> None:
    first, second = file(shop), file(shop, "second")
    one, two = planned(home, first, second)["jobs"]
    assert one["time"] is None
    assert (one["end"], two["start"], two["behind"]) == (None, None, -1)
    assert "lq check night.yaml" in text(home, first, second)


def test_time_comes_from_the_same_settings(home: Home, shop: Path) -> None:
    path = file(shop, "timed", lq={"deadline": "2030-01-01 00:00"})
    other = file(shop, "other", batch_size=8)
    job = ran(home, spec_of(path))
    one, two = planned(home, path, other)["jobs"]
    assert one["time"]["because"] == f"job {job} with the same settings"
    assert one["time"]["expected_s"] == pytest.approx(10 + 1000 / 4 + 6 * 2)
    assert one["end"] - one["start"] == pytest.approx(one["time"]["expected_s"])
    assert one["late_s"] == one["end"] - one["deadline"] < 0
    assert two["start"] == one["end"]
    assert two["time"]["expected_s"] > one["time"]["expected_s"]
    assert two["time"]["high_s"] / two["time"]["low_s"] > 2 * one["time"]["high_s"] / one["time"]["low_s"]


def test_running_job_gives_estimates(home: Home, shop: Path) -> None:
    path = file(shop)
    job = home.running("night", seen=Seen(iteration=500, train_loss=1.0, val_loss=1.0, it_s=2.0))
    with own_spec(home, job.id, spec_of(path)):
        running, behind = planned(home, path)["jobs"]
    assert (running["id"], running["status"]) == (job.id, "running")
    assert running["time"]["expected_s"] == pytest.approx(500 / 2 + 3 * 0.5)
    assert behind["time"]["because"] == f"job {job.id} with the same settings"
    assert behind["start"] == running["end"]


def test_plan_order_is_the_queue_order(home: Home, shop: Path) -> None:
    path = file(shop)
    ran(home, spec_of(path))
    made: dict[str, int] = {}
    for name, lq in (("low", {}), ("high", {"priority": 5}), ("after", {"priority": 9, "after": ["low"]})):
        job = home.queued(name)
        changed = spec_of(path).model_copy(update={"lq": spec_of(path).lq.model_validate({"name": name} | lq)})
        with own_spec(home, job.id, changed), sqlite3.connect(home.path / "lq.db") as db:
            db.execute("UPDATE jobs SET priority = ? WHERE id = ?", (changed.lq.priority, job.id))
            for other in changed.lq.after:
                db.execute("INSERT INTO dependencies VALUES (?, ?, 0)", (job.id, made[str(other)]))
        made[name] = job.id
    home.store.jobs.hold(home.queued("held").id, "by the user", 1.0)
    found = {one["name"]: one for one in planned(home)["jobs"]}
    assert found["high"]["end"] == found["low"]["start"]
    assert found["low"]["end"] == found["after"]["start"]
    assert found["held"]["start"] is None
    assert found["held"]["behind"] == found["held"]["id"]


def test_window_can_cause_a_missed_deadline(home: Home, shop: Path) -> None:
    path = file(shop, "late", iters=2_000_000, lq={"window": "22:00-07:00", "deadline": "07:30"})
    ran(home, spec_of(file(shop)))
    (one,) = planned(home, path)["jobs"]
    assert len(one["stints"]) > 10
    assert one["late_s"] > 0


# --- the view ---


HOUR_S = 3600.0
PARTS = MemoryParts(weights=10**9, trained=10**8, activations=10**9, logits=10**9, gradients=10**8)


def memory(expected: int) -> MemoryEstimate:
    return MemoryEstimate(
        low=expected * 9 // 10,
        expected=expected,
        high=expected * 12 // 10,
        parts=PARTS,
        source=Source.FORMULA,
        because="estimated from the model's shape",
    )


def duration(hours: float) -> TimeEstimate:
    return TimeEstimate(
        iterations=1000, validations=6, checkpoints=10, starts=1, start_s=0.0, train_s=hours * HOUR_S,
        validation_s=0.0, checkpoint_s=0.0, test_s=0.0, spread=1.1, source=Source.SAME_SETTINGS, because="job 1",
    )  # fmt: skip


def job_plan(job_id: int | None, start: float | None, end: float | None, **fields: Any) -> JobPlan:
    """Return a job of a plan; start and end in hours from NOW."""
    first, last = (None if hours is None else NOW + hours * HOUR_S for hours in (start, end))
    usual: dict[str, Any] = {
        "name": "qwen-lora-rank16",
        "source": None,
        "status": "queued",
        "memory": memory(7 * 10**9),
        "limit": 10**10,
        "verdict": "fits",
        "time": duration(1),
        "deadline": None,
        "steps": (),
        "disk": None,
        "notes": (),
        "times": JobTimes(id=job_id or -1, start=first, end=last, stints=() if first is None else ((first, last),)),
    }
    return JobPlan(id=job_id, **usual | fields)


def queue_plan() -> QueuePlan:
    """Return a plan with a running job, one that misses its deadline, one that does not fit, and a held one."""
    start, end = NOW + HOUR_S, NOW + 12 * HOUR_S
    late = JobTimes(id=2, start=start, end=end, stints=((start, end),), late_s=6000.0)
    steps = (
        FitStep(by="lq", text="gradient checkpointing on", memory=memory(11 * 10**9), verdict="tight", first=False),
        FitStep(by="user", text="max_seq_length: 1024", memory=memory(6 * 10**9), verdict="fits", first=True),
    )
    jobs = (
        job_plan(1, 0, 1, status="running"),
        job_plan(2, 1, 12, times=late, time=duration(11), deadline=end - 6000),
        job_plan(
            None, 12, None, name="a-name-that-is-rather-long-for-a-table", source=Path("large.yaml"), status="file",
            memory=memory(13 * 10**9), verdict="does not fit", time=None, steps=steps, notes=("no validation set",),
        ),
        job_plan(4, None, None, status="held", times=JobTimes(id=4, start=None, end=None, stints=(), behind=4)),
    )  # fmt: skip
    return QueuePlan(
        now=NOW, jobs=jobs, recommended=12 * 10**9, recommended_by="as reported by job 1", disk_free=10**11,
        disk_need=10**9, disk_floor=5 * 10**9, queue_paused=True,
    )  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120, UNCUT])
def test_plan_view_matches_golden(utc: None, width: int) -> None:
    name = "pipe" if width == UNCUT else str(width)
    assert_view(render(queue_plan()), f"plan_{name}", width)


def test_plan_view_fits_the_terminal() -> None:
    assert max(map(cell_len, text_of(render(queue_plan()), 80).splitlines())) <= 80


def test_plan_chart_has_one_bar_per_job() -> None:
    lines = list(queue_chart(queue_plan().jobs, now=NOW, width=80, plain=True))
    bars = [set(line[13:]) - set(" |") for line in lines if line.startswith(("job", "large"))]
    assert bars == [{"="}, {"="}, {"?"}]


def test_plan_of_an_invalid_file_exits_2(home: Home, shop: Path) -> None:
    path = file(shop, "wrong", grad_accumulation=4)
    answer = InProcess(home.path)("plan", path, expect=2)
    assert "unknown key 'grad_accumulation'" in answer.err
    assert answer.out == ""
    InProcess(home.path)("plan", shop / "nothing.yaml", expect=2)


def test_small_run_is_mostly_the_program(home: Home, shop: Path) -> None:
    (one,) = planned(home, file(shop))["jobs"]
    assert PROGRAM_BYTES < one["memory"]["expected_bytes"] < 1.1 * PROGRAM_BYTES


def test_plan_survives_damaged_settings(home: Home, shop: Path) -> None:
    job = home.queued("odd")
    with sqlite3.connect(home.path / "lq.db") as db:
        db.execute("UPDATE jobs SET spec_json = '{\"model\": 3}' WHERE id = ?", (job.id,))
    shutil.copytree(shop / "model", shop / "odd", dirs_exist_ok=True)
    config = shop / "odd" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": "wide"}))
    (one,) = planned(home, file(shop, "odd-model", model="odd"))["jobs"]
    assert one["memory"] is None
