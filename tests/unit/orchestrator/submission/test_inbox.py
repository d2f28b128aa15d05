"""The inbox: which files are submitted, where they end, and what the worker after a killed one does."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import time
from pathlib import Path

import pytest
import yaml

from jobs.model.job import Message
from jobs.model.states import Status
from jobs.policies.inbox import REST_S
from orchestrator.core.app import App
from orchestrator.submission import inbox as inboxes
from orchestrator.submission.inbox import Inbox
from orchestrator.submission.inbox_files import InboxContents, state_of_inbox
from orchestrator.submission.submit import check_all, enqueue_all
from tests.harness import Workshop, until
from tests.unit.orchestrator.cli_homes import Home

LISTENS = "notify: {services: [{url: 'json://127.0.0.1:9/', name: phone, on: [needs_you, submitted]}]}\n"


@dataclasses.dataclass
class Place:
    """An inbox whose clock a test sets."""

    app: App
    home: Home
    folder: Path
    context: Path  # a job file that can be submitted
    now: float = 100.0

    def __post_init__(self) -> None:
        """Look into it."""
        self.inbox = self.next_worker()

    def next_worker(self) -> Inbox:
        """Look into it as a worker does that knows nothing yet."""
        self.inbox = Inbox(self.app, awake=lambda: self.now)
        return self.inbox

    def settle(self) -> None:
        """Look twice, with a rest between."""
        self.inbox.look()
        self.now += REST_S
        self.inbox.look()

    def drop(self, name: str = "night.yaml", text: str | None = None) -> Path:
        """Put a job file there."""
        path = self.folder / name
        path.write_text(self.context.read_text() if text is None else text)
        path.chmod(0o600)
        return path

    def job(self, **changes: object) -> str:
        """Return the text of a job file."""
        return yaml.safe_dump(yaml.safe_load(self.context.read_text()) | changes)

    def lying(self) -> set[str]:
        """Return all that lies there."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir()}

    def error(self, name: str = "night.yaml") -> str:
        """Return the first line of an error file."""
        return (self.folder / "rejected" / f"{name}.error.txt").read_text().splitlines()[0]

    def messages(self) -> list[Message]:
        """Return the outbox."""
        return self.home.store.outbox.messages()


@pytest.fixture
def place(app: App, home: Home, workshop: Workshop, tmp_path: Path) -> Place:
    app.home.ensure()
    home.write_settings(f"autostart: false\n{LISTENS}")
    return Place(app, home, home.path / "inbox", workshop.job_file(tmp_path / "outside.yaml"))


def names(place: Place) -> list[tuple[int, str]]:
    return [(job.id, job.name) for job in sorted(place.home.store.jobs.overview(), key=lambda job: job.id)]


# --- taken in ---


def test_file_is_submitted_and_accepted(place: Place) -> None:
    text = place.drop().read_text()
    place.settle()
    assert names(place) == [(1, "night")]
    assert place.lying() == {"accepted/night.yaml"}
    assert (place.folder / "accepted" / "night.yaml").read_text() == text
    assert [message.event for message in place.messages()] == ["submitted"]


def test_file_must_settle_first(place: Place) -> None:
    path = place.drop(text="model: half")
    assert place.inbox.look()  # soon again
    place.now += REST_S - 0.1
    path.write_text(place.job())
    assert place.inbox.look()
    place.now += REST_S - 0.1
    assert place.inbox.look()
    assert names(place) == []
    place.now += 0.1
    assert not place.inbox.look()
    assert names(place) == [(1, "night")]


@pytest.mark.parametrize("how", ["moved", "saved as editors do"])
def test_moved_or_saved_file_is_submitted(place: Place, how: str) -> None:
    if how == "moved":
        place.context.rename(place.folder / "night.yml")
    else:
        place.drop(".night.yaml.tmp").rename(place.folder / "night.yml")
    place.settle()
    assert names(place) == [(1, "night")]


def test_several_files_are_several_jobs(place: Place) -> None:
    for seed in (3, 1, 2):
        place.drop(f"seed{seed}.yaml", place.job(seed=seed))
    place.settle()
    assert names(place) == [(1, "seed1"), (2, "seed2"), (3, "seed3")]


def test_other_files_are_ignored(place: Place) -> None:
    for name in (".hidden.yaml", "night.yaml~", "night.yaml.swp", "#night.yaml#", "night.yaml.part", "notes.txt"):
        place.drop(name)
    (place.folder / "folder.yaml").mkdir()
    os.mkfifo(place.folder / "pipe.yaml")
    (place.folder / "empty.yaml").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(place.folder / "socket.yaml"))
        before = place.lying()
        place.settle()
        assert not place.inbox.look()
        assert place.lying() == before
    assert names(place) == []
    assert place.messages() == []
    assert state_of_inbox(place.folder) == InboxContents(files=0, because=None)


def test_same_name_gets_a_number(place: Place) -> None:
    for seed in (1, 2, 3):
        place.drop(text=place.job(seed=seed))
        place.settle()
    assert place.lying() == {"accepted/night.yaml", "accepted/night-2.yaml", "accepted/night-3.yaml"}


def test_longest_name_is_handled(place: Place) -> None:
    name = "é" * 125 + ".yaml"
    for text in ("models: x", "models: y", place.job(seed=1), place.job(seed=2)):
        place.drop(name, text)
        place.settle()
    assert len(place.home.store.jobs.overview()) == 2
    assert len(list((place.folder / "rejected").glob("*.error.txt"))) == 2
    assert len(list((place.folder / "accepted").iterdir())) == 2


# --- refused ---


def test_invalid_file_is_rejected(place: Place) -> None:
    place.drop(text=place.job() + "grad_accumulation: 4\n")
    place.settle()
    line = len(place.job().splitlines()) + 1
    expected = f"night.yaml:{line}: unknown key 'grad_accumulation'; remove it, 'grad_accumulation_steps' is given"
    assert place.error() == expected
    assert place.lying() == {"rejected/night.yaml", "rejected/night.yaml.error.txt"}
    assert names(place) == []
    (message,) = place.messages()
    assert (message.event, message.title) == ("needs_you", "lq: night.yaml was not submitted")
    assert message.body.startswith(expected)
    assert "rejected" in message.body


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"data": "./data"}, "data: './data' is relative"),
        ({"data": "data"}, "data: 'data' is relative"),
        ({"model": "../model"}, "model: '../model' is relative"),
        ({"adapter_path": "out/adapter"}, "adapter_path: 'out/adapter' is relative"),
        ({"resume_adapter_file": "a/b.safetensors"}, "resume_adapter_file: 'a/b.safetensors' is relative"),
        ({"hf_dataset": {"path": "./rows"}}, "hf_dataset.path: './rows' is relative"),
        ({"matrix": {"data": ["/a", "b"]}}, "matrix.data[1]: 'b' is relative"),
        ({"lq": {"matrix": {"model": ["org/name", "./m"]}}}, "lq.matrix.model[1]: './m' is relative"),
    ],
)
def test_relative_path_is_rejected(place: Place, keys: dict[str, object], said: str) -> None:
    place.drop(text=place.job(**keys))
    place.settle()
    assert said in place.error()
    assert place.error().startswith("night.yaml:")
    assert "absolute path" in place.error()


def test_hub_name_and_home_path_are_absolute(place: Place, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workshop.data.parent))
    place.drop(text=place.job(model="org/name", data="~/data"))
    place.settle()
    assert names(place) == [(1, "night")]


def test_error_has_three_lines_and_no_folder(place: Place) -> None:
    for text in ("[1, 2]", "a: [", "model: /no/such", place.job(data="/no/such"), "\0", "", "{}", "lq: {name: x\n"):
        place.drop("wrong.yaml", text)
        place.settle()
        place.now += inboxes.TRY_AGAIN_S
    errors = list((place.folder / "rejected").glob("*.error.txt"))
    assert len(errors) == 7  # all but the empty one
    for error in errors:
        said = error.read_text()
        assert str(place.folder) not in said.splitlines()[0]
        assert len(said.splitlines()) == 3
    assert names(place) == []


def test_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    (place.folder / "night.yaml").symlink_to(place.context)
    place.settle()
    assert "links are not followed" in place.error()
    assert (place.folder / "rejected" / "night.yaml").is_symlink()
    assert place.context.exists()
    assert names(place) == []


@pytest.mark.parametrize(("mode", "word"), [(0o666, "all users"), (0o602, "all users")])
def test_file_others_can_write_is_rejected(place: Place, mode: int, word: str) -> None:
    place.drop().chmod(mode)
    place.settle()
    assert word in place.error()
    assert names(place) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_file_of_others_is_rejected(place: Place) -> None:
    os.chown(place.drop("other.yaml"), 12345, -1)
    shared = place.drop("shared.yaml")
    os.chown(shared, -1, 54321)
    shared.chmod(0o660)
    place.settle()
    assert "another user (id 12345)" in place.error("other.yaml")
    assert "its group" in place.error("shared.yaml")
    assert names(place) == []


def test_unsafe_folder_is_reported_once(place: Place) -> None:
    place.drop()
    place.folder.chmod(0o777)
    place.settle()
    place.settle()
    assert names(place) == []
    assert place.lying() == {"night.yaml"}
    (message,) = place.messages()
    assert (message.event, message.key[:10]) == ("needs_you", "inbox-shut")
    place.folder.chmod(0o700)
    place.settle()
    assert names(place) == [(1, "night")]


def test_linked_folder_is_not_followed(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    place.folder.rename(elsewhere)
    place.folder.symlink_to(elsewhere)
    (elsewhere / "night.yaml").write_text(place.job())
    place.app.home.ensure()
    place.settle()
    assert names(place) == []
    place.folder.unlink()
    place.settle()
    assert place.folder.is_dir()  # a new one


# --- once ---


def test_repeated_content_is_rejected(place: Place) -> None:
    place.drop()
    place.drop("zweimal.yaml")
    place.settle()
    assert names(place) == [(1, "night")]
    said = "already submitted as job 1 (queued); to submit it again use lq submit"
    assert place.error("zweimal.yaml") == f"zweimal.yaml: {said}"
    assert "needs_you" not in {message.event for message in place.messages()}
    place.drop()
    place.settle()
    assert place.error() == f"night.yaml: {said}"


def test_repeated_cancelled_job_names_retry(place: Place) -> None:
    place.drop()
    place.settle()
    place.home.store.jobs.cancel(1, time.time())
    place.drop()
    place.settle()
    assert "job 1 (cancelled); lq retry 1" in place.error()


def test_fixed_file_is_submitted(place: Place) -> None:
    place.drop(text=place.job(iters=-1))
    place.settle()
    rejected = place.folder / "rejected" / "night.yaml"
    rejected.write_text(place.job())
    rejected.rename(place.folder / "night.yaml")
    place.settle()
    assert names(place) == [(1, "night")]


# --- killed at any instant: what each instant leaves, as the next worker finds it ---


def test_killed_after_submit_is_not_repeated(place: Place, tmp_path: Path) -> None:
    text = place.job(adapter_path=str(tmp_path / "out"))  # its own job would be in the way of a second one
    path = place.drop(text=text)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    enqueue_all(place.app, check_all(place.app, [path]), inbox_sha256=sha256)
    place.next_worker()
    place.settle()
    assert names(place) == [(1, "night")]
    assert place.lying() == {"accepted/night.yaml"}
    assert [job.id for job in place.home.store.jobs.from_inbox_file(sha256)] == [1]


def test_kill_after_the_error_notifies_once(place: Place) -> None:
    path = place.drop(text="models: x\n")
    place.settle()
    (place.folder / "rejected" / "night.yaml").rename(path)
    place.next_worker()
    place.settle()
    assert place.lying() == {"rejected/night.yaml", "rejected/night.yaml.error.txt"}
    assert len(place.messages()) == 1


# --- not the file's fault ---


def test_file_waits_for_valid_settings(place: Place) -> None:
    place.home.write_settings("autostarts: true\n")
    place.drop()
    place.settle()
    assert place.lying() == {"night.yaml"}
    place.home.write_settings("autostart: false\n")
    place.now += inboxes.TRY_AGAIN_S
    place.settle()
    assert names(place) == [(1, "night")]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_file_waits_for_writable_jobs_folder(place: Place) -> None:
    place.home.jobs.chmod(0o500)
    place.drop()
    place.settle()
    place.home.jobs.chmod(0o700)
    assert names(place) == []
    place.now += inboxes.TRY_AGAIN_S
    place.settle()
    assert names(place) == [(1, "night")]


def test_file_waits_for_a_jobs_folder(place: Place) -> None:
    place.home.jobs.rmdir()
    place.home.jobs.touch()
    place.drop()
    place.settle()
    assert names(place) == []
    assert place.lying() == {"night.yaml"}
    place.home.jobs.unlink()
    place.home.jobs.mkdir()
    place.now += inboxes.TRY_AGAIN_S
    place.settle()
    assert names(place) == [(1, "night")]
    assert place.lying() == {"accepted/night.yaml"}


def test_nothing_is_submitted_at_shutdown(place: Place) -> None:
    place.drop()
    place.inbox.look()
    place.inbox.stopping.set()
    place.now += REST_S
    place.inbox.look()
    assert names(place) == []
    assert place.lying() == {"night.yaml"}


def test_inbox_thread_submits_and_stops(place: Place) -> None:
    begun = time.monotonic()
    thread = inboxes.InboxThread(Inbox(place.app))
    with thread:
        place.drop()
        until(lambda: names(place), "the job")
        until(lambda: place.lying() == {"accepted/night.yaml"}, "the file in accepted/")
    assert not thread.is_alive()
    assert time.monotonic() - begun >= REST_S
    assert place.home.store.jobs.get(1).status is Status.QUEUED
