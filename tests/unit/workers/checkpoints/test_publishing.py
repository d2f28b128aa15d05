"""Publishing to adapter_path without losing the files of other runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.model.job_dir import JobDir
from workers.checkpoints import publishing
from workers.checkpoints.publishing import ABOUT, AGREED, BEST, CONFIG, FINAL, NAMES, copy_to, sha256_of
from workers.files.atomic import write_json


class FinishedJob:
    """A job with a finished adapter, and its adapter_path."""

    def __init__(self, folder: Path, job_id: int = 7) -> None:
        self.id = job_id
        self.job_dir = JobDir(folder / f"job-{job_id}")
        self.job_dir.adapters.mkdir(parents=True)
        self.target = folder / "published"
        self.finish("first")

    def finish(self, content: str) -> None:
        """Write the adapter in the job's folder."""
        for name in (BEST, FINAL, CONFIG):
            (self.job_dir.adapters / name).write_text(f"{content} {name}")
        files = {name: sha256_of(self.job_dir.adapters / name) for name in (BEST, FINAL, CONFIG)}
        about = {"job": self.id, "job_dir": str(self.job_dir.path), "files": files}
        write_json(self.job_dir.adapters / ABOUT, about)

    def agree(self) -> None:
        """Allow lq to replace the present files of the target, as `lq submit --overwrite` does."""
        agreed = {path.name: sha256_of(path) for path in publishing.in_the_way(self.target)}
        write_json(self.job_dir.provenance, {AGREED: agreed})

    def publish(self) -> Path | None:
        return copy_to(self.target, self.job_dir, job_id=self.id)

    def foreign(self, *names: str, text: str = "theirs") -> None:
        self.target.mkdir(exist_ok=True)
        for name in names:
            (self.target / name).write_text(f"{text} {name}")


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def job(tmp_path: Path) -> FinishedJob:
    """Create a finished job."""
    return FinishedJob(tmp_path)


def test_same_job_replaces_its_files(job: FinishedJob) -> None:
    assert job.publish() is None
    job.finish("second")
    assert job.publish() is None
    assert content(job.target) == content(job.job_dir.adapters)
    assert [path.name for path in job.target.iterdir() if path.is_dir()] == []


def test_foreign_adapter_is_moved(job: FinishedJob) -> None:
    job.foreign(BEST, CONFIG)
    assert job.publish() == job.target / "before-job-7"
    assert content(job.target / "before-job-7") == {BEST: f"theirs {BEST}", CONFIG: f"theirs {CONFIG}"}
    assert content(job.target) == content(job.job_dir.adapters)


def test_overwrite_replaces_listed_files(job: FinishedJob) -> None:
    job.foreign(*NAMES)
    job.agree()
    assert job.publish() is None
    assert content(job.target) == content(job.job_dir.adapters)


def test_overwrite_keeps_changed_files(job: FinishedJob) -> None:
    job.foreign(*NAMES)
    job.agree()
    (job.target / BEST).write_text("trained again by hand")
    aside = job.publish()
    assert aside is not None
    assert (aside / BEST).read_text() == "trained again by hand"
    assert content(job.target) == content(job.job_dir.adapters)


def test_changed_published_file_is_moved(job: FinishedJob) -> None:
    job.publish()
    (job.target / BEST).write_text("fused by hand")
    job.finish("second")
    aside = job.publish()
    assert aside is not None
    assert (aside / BEST).read_text() == "fused by hand"


def test_moved_files_are_not_overwritten(job: FinishedJob) -> None:
    for text in ("one", "two", "three"):
        job.foreign(BEST, text=text)
        job.publish()
    kept = sorted(path.read_text() for path in job.target.glob("before-job-7*/" + BEST))
    assert kept == [f"{text} {BEST}" for text in ("one", "three", "two")]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["folder", "dangling link"])
def test_unreadable_file_is_moved(job: FinishedJob, make: Any) -> None:
    job.target.mkdir()
    make(job.target / BEST)
    aside = job.publish()
    assert aside is not None
    assert os.path.lexists(aside / BEST)
    assert content(job.target) == content(job.job_dir.adapters)


def test_concurrent_file_is_not_overwritten(job: FinishedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def just_before(source: Any, path: Any) -> None:
        if Path(path).name == BEST and not os.path.lexists(path) and not list(job.target.glob("before-*")):
            Path(path).write_text("from another program")
        link(source, path)

    monkeypatch.setattr(os, "link", just_before)
    aside = job.publish()
    assert aside is not None
    assert (aside / BEST).read_text() == "from another program"
    assert (job.target / BEST).read_text() == f"first {BEST}"


def test_publish_without_hard_links(job: FinishedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    job.foreign(BEST)
    assert job.publish() is not None
    assert content(job.target) == content(job.job_dir.adapters)


def test_adapter_without_hashes_is_moved(job: FinishedJob) -> None:
    job.foreign(BEST)
    (job.target / ABOUT).write_text(json.dumps({"job": 7, "job_dir": str(job.job_dir.path)}))
    assert job.publish() is not None
