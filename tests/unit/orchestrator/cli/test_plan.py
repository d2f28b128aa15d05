"""`lq plan`: the queue and files behind it, in a home of its own; nothing is trained."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.estimates.estimate import PROGRAM_BYTES
from jobs.model.configuration import fit_key
from jobs.model.job import Fit
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.estimation.memory import MAC_SHARE, recommended_memory
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, Seen, contents
from workers.system import memory

LARGE = {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 128_000,
}
"""What config.json says of a model whose weights nobody wrote."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a small model, data, and what claims to be a large model."""
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
    """Have a job with these settings leave what an attempt leaves in fits."""
    job = home.cancelled("before")
    stored = {"fits": True, "peak_bytes": 2 * 10**8, "it_s": 4.0, "start_s": 10.0, "validation_s": 2.0} | seen
    with own_spec(home, job.id, spec):
        key = fit_key(spec, RunPlan.requested(spec).stages[0])
        home.store.fits.record(key, Fit(job_id=job.id, **stored), 1.0)
    return job.id


@contextmanager
def own_spec(home: Home, job_id: int, spec: JobSpec) -> Iterator[None]:
    """Write what a job was asked to do; `Home.queued` knows one model only."""
    with sqlite3.connect(home.path / "lq.db") as db:
        db.execute("UPDATE jobs SET spec_json = ? WHERE id = ?", (spec.model_dump_json(), job_id))
    yield


def spec_of(path: Path) -> JobSpec:
    from configs.load import load_jobs

    return load_jobs(path)[0].spec


# --- memory ---


def test_a_file_is_planned_and_nothing_is_queued_or_trained(home: Home, shop: Path) -> None:
    before = contents(home.path)
    (one,) = planned(home, file(shop))["jobs"]
    assert (one["id"], one["name"], one["status"], one["verdict"]) == (None, "night", "file", "fits")
    memory = one["memory"]
    assert memory["low_bytes"] < memory["expected_bytes"] < memory["high_bytes"] < one["room_bytes"]
    assert memory["source"] == "formula"
    after = contents(home.path)
    added = {name for name in after if name not in before and not name.endswith(("-shm", "-wal"))}
    assert [name for name in added if not name.startswith("cache")] == []
    same = [name for name in before if not name.endswith(("-shm", "-wal"))]  # SQLite's own, of whoever reads
    assert [after[name] for name in same] == [before[name] for name in same]


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path, shop: Path) -> None:
    lq = InProcess(tmp_path / "none")
    assert len(lq.json("plan", file(shop))["jobs"]) == 1
    out = lq("plan").out
    assert out.endswith("nothing is queued; plan a file: lq plan config.yaml\n")
    assert re.match(r"memory: [\d.]+ GB \(", out)
    assert not (tmp_path / "none").exists()


def test_what_does_not_fit_is_told_with_what_would(home: Home, shop: Path) -> None:
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

    said = text(home, path)
    assert f"large.yaml: {one['verdict']}: " in said
    assert [remedy["by"] for remedy in one["remedies"][:2]] == ["lq"] * 2, "the ladder comes first"
    assert one["remedies"][0]["change"] == "gradient checkpointing on"
    assert " -> " in said


def test_where_nothing_would_fit_that_is_said(home: Home, shop: Path) -> None:
    path = file(shop, "none-fits", model="large", lq={"memory": {"limit": "100MB"}})
    assert "none of these fits for sure" in text(home, path)


def test_the_same_settings_are_believed_and_others_correct_the_estimate(home: Home, shop: Path) -> None:
    path, other = file(shop), file(shop, "other", batch_size=2)
    (bare,) = planned(home, path)["jobs"]
    job = ran(home, spec_of(path), peak_bytes=7 * 10**8)
    same, scaled = planned(home, path, other)["jobs"]
    assert same["memory"]["expected_bytes"] == 7 * 10**8
    assert same["memory"]["because"] == f"measured in job {job}"
    ratio = 7 * 10**8 / bare["memory"]["expected_bytes"]
    assert f"times {ratio:.2f} as measured in job {job}" in scaled["memory"]["because"]
    assert scaled["memory"]["expected_bytes"] > 6 * 10**8


def test_settings_that_ran_out_of_memory_are_planned_as_they_would_run(home: Home, shop: Path) -> None:
    path = file(shop)
    job = ran(home, spec_of(path), fits=False, it_s=None)
    (one,) = planned(home, path)["jobs"]
    assert one["notes"] == [f"out_of_memory in job {job}: batch 4 -> 4, accumulation 1 -> 1, gradient checkpointing on"]
    assert one["verdict"] == "fits"


def test_a_model_that_is_not_here_is_no_number(home: Home, shop: Path) -> None:
    (one,) = planned(home, file(shop, "hub", model="nobody/has-this"))["jobs"]
    assert one["memory"] is None
    assert one["verdict"] is None
    assert any(note.startswith("memory: unknown") for note in one["notes"])
    assert any("estimated from characters" in note for note in one["notes"])


def test_the_limit_of_a_mac_is_what_an_earlier_trainer_told(home: Home) -> None:
    allowed = memory.allowed_memory()
    assert recommended_memory(None, "linux") == (allowed, "what the system allows")
    assert recommended_memory(home.store, "darwin")[0] == int(MAC_SHARE * allowed)
    job = home.running(seen=Seen(iteration=10, train_loss=1.0, val_loss=1.0, it_s=1.0))
    with sqlite3.connect(home.path / "lq.db") as db:
        db.execute("UPDATE progress_points SET limit_bytes = 8500000000")
    told, said = recommended_memory(home.store, "darwin")
    assert told == pytest.approx(10**10)
    assert said == f"as reported by job {job.id}"


# --- time ---


def test_without_an_earlier_run_the_time_is_not_known_and_check_measures_it(home: Home, shop: Path) -> None:
    first, second = file(shop), file(shop, "second")
    one, two = planned(home, first, second)["jobs"]
    assert one["time"] is None
    assert (one["end"], two["start"], two["behind"]) == (None, None, -1)
    said = text(home, first, second)
    assert "night.yaml: its time is unknown; measure it: lq check night.yaml" in said
    assert "not known" in said


def test_the_time_of_the_same_settings_and_the_night_that_follows(home: Home, shop: Path) -> None:
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


def test_a_running_job_teaches_before_it_has_ended(home: Home, shop: Path) -> None:
    path = file(shop)
    job = home.running("night", seen=Seen(iteration=500, train_loss=1.0, val_loss=1.0, it_s=2.0))
    with own_spec(home, job.id, spec_of(path)):
        running, behind = planned(home, path)["jobs"]
    assert (running["id"], running["status"]) == (job.id, "running")
    assert running["time"]["expected_s"] == pytest.approx(500 / 2 + 3 * 0.5)
    assert behind["time"]["because"] == f"job {job.id} with the same settings"
    assert behind["start"] == running["end"]


def test_the_order_of_the_night_is_that_of_the_queue(home: Home, shop: Path) -> None:
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


def test_a_window_and_a_missed_deadline_are_told(home: Home, shop: Path) -> None:
    path = file(shop, "late", iters=2_000_000, lq={"window": "22:00-07:00", "deadline": "07:30"})
    ran(home, spec_of(file(shop)))
    said = text(home, path)
    assert "missed by" in said
    assert "after its deadline" in said
    (one,) = planned(home, path)["jobs"]
    assert len(one["stints"]) > 10
    assert one["late_s"] > 0


# --- how it looks ---


def test_it_fits_80_columns_and_a_pipe_is_plain(home: Home, shop: Path) -> None:
    ran(home, spec_of(file(shop)))
    opened, closes = (datetime.now().astimezone() + timedelta(hours=hours) for hours in (-1, 9))  # so it is first
    window, deadline = f"{opened:%H:%M}-{closes:%H:%M}", f"{closes:%H:%M}"
    files = [
        file(shop, "a-name-that-is-rather-long-for-a-table", lq={"window": window, "deadline": deadline}),
        file(shop, "c", iters=90_000),
        file(shop, "b", model="large", lq={"memory": {"limit": "1GB"}}),
    ]
    said = text(home, *files)
    assert max(map(len, said.splitlines())) <= 80
    assert "\x1b" not in said
    chart = said[said.index("\n\n") + 2 :].split("\n\n")[0].splitlines()
    assert chart[-1].strip() == "| is a deadline"
    bars = [line[13:] for line in chart[1:-1]]
    assert [set(bar) - set(" |") for bar in bars] == [{"="}, {"="}, {"?"}]
    assert "disk:" in said


def test_an_invalid_file_is_exit_code_2(home: Home, shop: Path) -> None:
    path = file(shop, "wrong", grad_accumulation=4)
    answer = InProcess(home.path)("plan", path, expect=2)
    assert "unknown key 'grad_accumulation'" in answer.err
    assert answer.out == ""
    InProcess(home.path)("plan", shop / "nothing.yaml", expect=2)


def test_a_small_run_is_mostly_the_program(home: Home, shop: Path) -> None:
    (one,) = planned(home, file(shop))["jobs"]
    assert PROGRAM_BYTES < one["memory"]["expected_bytes"] < 1.1 * PROGRAM_BYTES


def test_rubbish_in_the_store_and_in_a_model_is_no_traceback(home: Home, shop: Path) -> None:
    job = home.queued("odd")
    with sqlite3.connect(home.path / "lq.db") as db:
        db.execute("UPDATE jobs SET spec_json = '{\"model\": 3}' WHERE id = ?", (job.id,))
    shutil.copytree(shop / "model", shop / "odd", dirs_exist_ok=True)
    config = shop / "odd" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": "wide"}))
    (one,) = planned(home, file(shop, "odd-model", model="odd"))["jobs"]
    assert one["memory"] is None
