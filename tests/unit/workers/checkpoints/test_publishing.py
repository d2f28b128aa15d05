"""Publishing to adapter_path: what lies there and is not this job's own is never lost."""

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


class Published:
    """A job with a finished adapter, and the folder it is published to."""

    def __init__(self, folder: Path, job_id: int = 7) -> None:
        self.id = job_id
        self.job_dir = JobDir(folder / f"job-{job_id}")
        self.job_dir.adapters.mkdir(parents=True)
        self.target = folder / "published"
        self.finish("first")

    def finish(self, content: str) -> None:
        """Lay out the adapter in the job's own folder."""
        for name in (BEST, FINAL, CONFIG):
            (self.job_dir.adapters / name).write_text(f"{content} {name}")
        files = {name: sha256_of(self.job_dir.adapters / name) for name in (BEST, FINAL, CONFIG)}
        about = {"job": self.id, "job_dir": str(self.job_dir.path), "files": files}
        write_json(self.job_dir.adapters / ABOUT, about)

    def agree(self) -> None:
        """Let what lies in the target now be overwritten, as `lq submit --overwrite` does."""
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
def job(tmp_path: Path) -> Published:
    """A job that has finished."""
    return Published(tmp_path)


def test_a_later_publication_of_the_same_job_takes_the_place_of_the_earlier(job: Published) -> None:
    assert job.publish() is None
    job.finish("second")
    assert job.publish() is None
    assert content(job.target) == content(job.job_dir.adapters)
    assert [path.name for path in job.target.iterdir() if path.is_dir()] == []


def test_what_came_there_meanwhile_is_moved_aside_whole(job: Published) -> None:
    job.foreign(BEST, CONFIG)
    assert job.publish() == job.target / "before-job-7"
    assert content(job.target / "before-job-7") == {BEST: f"theirs {BEST}", CONFIG: f"theirs {CONFIG}"}
    assert content(job.target) == content(job.job_dir.adapters)


def test_what_the_user_agreed_to_is_overwritten(job: Published) -> None:
    job.foreign(*NAMES)
    job.agree()
    assert job.publish() is None
    assert content(job.target) == content(job.job_dir.adapters)


def test_a_file_that_changed_after_the_user_agreed_is_kept(job: Published) -> None:
    job.foreign(*NAMES)
    job.agree()
    (job.target / BEST).write_text("trained again by hand")
    aside = job.publish()
    assert aside is not None
    assert (aside / BEST).read_text() == "trained again by hand"
    assert content(job.target) == content(job.job_dir.adapters)


def test_a_published_file_that_the_user_changed_is_the_users(job: Published) -> None:
    job.publish()
    (job.target / BEST).write_text("fused by hand")
    job.finish("second")
    aside = job.publish()
    assert aside is not None
    assert (aside / BEST).read_text() == "fused by hand"


def test_what_was_moved_aside_before_is_not_overwritten_by_what_is_moved_now(job: Published) -> None:
    for text in ("one", "two", "three"):
        job.foreign(BEST, text=text)
        job.publish()
    kept = sorted(path.read_text() for path in job.target.glob("before-job-7*/" + BEST))
    assert kept == [f"{text} {BEST}" for text in ("one", "three", "two")]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["folder", "dangling link"])
def test_what_cannot_be_read_is_moved_aside_too(job: Published, make: Any) -> None:
    job.target.mkdir()
    make(job.target / BEST)
    aside = job.publish()
    assert aside is not None
    assert os.path.lexists(aside / BEST)
    assert content(job.target) == content(job.job_dir.adapters)


def test_a_file_that_appears_in_the_very_moment_is_not_overwritten(
    job: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_where_the_file_system_has_no_hard_links_it_is_published_all_the_same(
    job: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    job.foreign(BEST)
    assert job.publish() is not None
    assert content(job.target) == content(job.job_dir.adapters)


def test_an_adapter_of_an_lq_without_hashes_is_not_taken_for_its_own(job: Published) -> None:
    job.foreign(BEST)
    (job.target / ABOUT).write_text(json.dumps({"job": 7, "job_dir": str(job.job_dir.path)}))
    assert job.publish() is not None
