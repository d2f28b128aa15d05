"""A job file copied into the inbox becomes an adapter, also if the worker is killed in between."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from orchestrator.store.store import Store
from tests.harness import Lq, Workshop, kill, until

pytestmark = [pytest.mark.timeout(240, func_only=True), pytest.mark.usefixtures("undisturbed")]

WITHIN_S = 15.0
"""From the copy to the job, of which 1.5 s are the rest; a busy machine takes its time."""


def names(lq: Lq) -> list[str]:
    with Store.open(lq.home / "lq.db") as store:
        return sorted(job.name for job in store.jobs.overview(all_jobs=True))


def test_file_in_the_inbox_is_trained(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(tmp_path / "night.yaml", iters=8)
    lq.start_worker()
    begun = time.monotonic()
    shutil.copy(file, lq.home / "inbox")
    until(lambda: names(lq) == ["night"], "the job", seconds=WITHIN_S)
    assert time.monotonic() - begun >= 1.5
    lq("wait", 1, "--timeout", 90, seconds=100)
    (job,) = lq.look("status")["jobs"]
    assert (job["status"], job["name"]) == ("succeeded", "night")
    until(lambda: (lq.home / "inbox" / "accepted" / "night.yaml").exists(), "the file in accepted/")


@pytest.mark.slow
def test_status_counts_waiting_files(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    file = workshop.job_file(tmp_path / "night.yaml", iters=8)
    lq("pause", "--queue")
    shutil.copy(file, lq.home / "inbox")
    assert "inbox: 1 file waits" in lq("status").out
    assert lq.look("status")["inbox"] == {"waiting": 1, "because": None}
    lq.start_worker()
    until(lambda: names(lq) == ["night"], "the job", seconds=WITHIN_S)
    until(lambda: lq.look("status")["inbox"]["waiting"] == 0, "the file out of the inbox")


@pytest.mark.slow
@pytest.mark.longest
def test_each_file_is_one_job_despite_kills(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 chooses instants
    lq("pause", "--queue")
    inbox = lq.home / "inbox"
    text = yaml.safe_load(workshop.job_file(tmp_path / "night.yaml", iters=8).read_text())
    worker = lq.start_worker()
    wanted: set[str] = set()
    for number in range(6):
        for part in range(3):
            name = f"night-{number}-{part}"
            wanted.add(name)
            (inbox / f".{name}").write_text(yaml.safe_dump(text | {"seed": 3 * number + part}))
            (inbox / f".{name}").rename(inbox / f"{name}.yaml")
        (inbox / f"again-{number}.yaml").write_text(yaml.safe_dump(text | {"seed": 3 * number}))
        (inbox / f"wrong-{number}.yaml").write_text(f"model: x\nwrong{number}: 1\n")
        until(partial(_has_more_jobs, lq, 3 * number), "a job of this round", every=0, seconds=30)
        instant = time.monotonic() + chance.uniform(0, 0.1)
        until(partial(_is_past, instant), "the instant", every=0)
        kill(worker)
        worker = lq.start_worker()
    until(lambda: not list(inbox.glob("*.yaml")), "an empty inbox", seconds=60)

    with Store.open(lq.home / "lq.db") as store:
        jobs, messages = store.jobs.overview(all_jobs=True), store.outbox.messages()
    seeds = [yaml.safe_load((Path(job.job_dir) / "config.yaml").read_text())["seed"] for job in jobs]
    assert sorted(seeds) == list(range(18))  # none lost, none twice
    ended = [path.name for folder in ("accepted", "rejected") for path in (inbox / folder).glob("*.yaml")]
    more = (f"{word}-{number}.yaml" for word, number in itertools.product(("again", "wrong"), range(6)))
    assert sorted(ended) == sorted([*(f"{name}.yaml" for name in wanted), *more])
    for path in (inbox / "rejected").glob("*.yaml"):
        assert path.with_name(f"{path.name}.error.txt").exists()
    assert {path.name for path in (inbox / "rejected").glob("wrong*.yaml")} == {f"wrong-{n}.yaml" for n in range(6)}
    assert messages == []  # no service is configured


def _is_past(instant: float) -> bool:
    return time.monotonic() >= instant


def _has_more_jobs(lq: Lq, count: int) -> bool:
    return len(names(lq)) > count
