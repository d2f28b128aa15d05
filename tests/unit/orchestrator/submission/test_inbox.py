"""The drop folder: what is taken in, where it ends, and what the worker after one that was killed makes of it."""

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
from orchestrator.submission.inbox_files import Waiting, waiting_in
from tests.harness import Workshop, until
from tests.unit.orchestrator.cli_homes import Home

LISTENS = "notify: {services: [{url: 'json://127.0.0.1:9/', name: phone, on: [needs_you, submitted]}]}\n"


@dataclasses.dataclass
class Place:
    """A drop folder whose clock a test turns."""

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


def test_a_dropped_file_is_submitted_under_its_name_and_lies_in_accepted(place: Place) -> None:
    text = place.drop().read_text()
    place.settle()
    assert names(place) == [(1, "night")]
    assert place.lying() == {"accepted/night.yaml"}
    assert (place.folder / "accepted" / "night.yaml").read_text() == text
    assert [message.event for message in place.messages()] == ["submitted"]
    assert [path.name for path in (place.folder / ".claimed").iterdir()] == []


def test_it_waits_until_the_file_has_rested(place: Place) -> None:
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
def test_however_it_came(place: Place, how: str) -> None:
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


def test_what_is_no_job_file_stays_where_it_is(place: Place) -> None:
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
    assert waiting_in(place.folder) == Waiting(files=0, because=None)


def test_a_file_of_the_same_name_does_not_push_out_the_one_before(place: Place) -> None:
    for seed in (1, 2, 3):
        place.drop(text=place.job(seed=seed))
        place.settle()
    assert place.lying() == {"accepted/night.yaml", "accepted/night-2.yaml", "accepted/night-3.yaml"}


def test_a_name_as_long_as_names_can_be_is_no_trouble(place: Place) -> None:
    name = "é" * 125 + ".yaml"
    for text in ("models: x", "models: y", place.job(seed=1), place.job(seed=2)):
        place.drop(name, text)
        place.settle()
    assert len(place.home.store.jobs.overview()) == 2
    assert len(list((place.folder / "rejected").glob("*.error.txt"))) == 2
    assert len(list((place.folder / "accepted").iterdir())) == 2


# --- refused ---


def test_a_wrong_file_is_rejected_with_the_line_that_submit_would_say(place: Place) -> None:
    place.drop(text=place.job() + "grad_accumulation: 4\n")
    place.settle()
    line = len(place.job().splitlines()) + 1
    expected = f"night.yaml:{line}: unknown key 'grad_accumulation'; did you mean 'grad_accumulation_steps'?"
    assert place.error() == expected
    assert place.lying() == {"rejected/night.yaml", "rejected/night.yaml.error.txt"}
    assert names(place) == []
    (message,) = place.messages()
    assert (message.event, message.title) == ("needs_you", "lq: night.yaml was not submitted")
    assert message.body.startswith(expected)
    assert str(place.folder / "rejected") in message.body


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
def test_a_relative_path_is_refused_since_the_file_has_left_its_folder(
    place: Place, keys: dict[str, object], said: str
) -> None:
    place.drop(text=place.job(**keys))
    place.settle()
    assert said in place.error()
    assert place.error().startswith("night.yaml:")
    assert "write the whole path" in place.error()


def test_a_name_on_the_hub_and_a_path_from_the_home_folder_are_whole(
    place: Place, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(workshop.data.parent))
    place.drop(text=place.job(model="org/name", data="~/data"))
    place.settle()
    assert names(place) == [(1, "night")]


def test_no_error_names_the_place_to_which_the_file_was_claimed(place: Place) -> None:
    for text in ("[1, 2]", "a: [", "model: /no/such", place.job(data="/no/such"), "\0", "", "{}", "lq: {name: x\n"):
        place.drop("wrong.yaml", text)
        place.settle()
        place.now += inboxes.TRY_AGAIN_S
    errors = list((place.folder / "rejected").glob("*.error.txt"))
    assert len(errors) == 7  # all but the empty one
    for error in errors:
        said = error.read_text()
        assert ".claimed" not in said
        assert len(said.splitlines()) == 3
    assert names(place) == []


def test_a_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    (place.folder / "night.yaml").symlink_to(place.context)
    os.link(place.context, place.folder / "hard.yaml")
    place.settle()
    assert "links are not followed" in place.error()
    assert "2 names" in place.error("hard.yaml")
    assert (place.folder / "rejected" / "night.yaml").is_symlink()
    assert place.context.exists()
    assert names(place) == []


@pytest.mark.parametrize(("mode", "word"), [(0o666, "everybody"), (0o602, "everybody")])
def test_a_file_that_others_can_write_is_refused(place: Place, mode: int, word: str) -> None:
    place.drop().chmod(mode)
    place.settle()
    assert word in place.error()
    assert names(place) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_and_one_of_a_group_of_several_are_refused(place: Place) -> None:
    os.chown(place.drop("other.yaml"), 12345, -1)
    shared = place.drop("shared.yaml")
    os.chown(shared, -1, 54321)
    shared.chmod(0o660)
    place.settle()
    assert "another user (id 12345)" in place.error("other.yaml")
    assert "its group" in place.error("shared.yaml")
    assert names(place) == []


def test_a_file_far_too_large_is_not_read(place: Place) -> None:
    place.drop(text="# " + "x" * 1024 * 1024)
    place.settle()
    assert "larger than 1 MB" in place.error()


def test_from_a_folder_that_others_can_write_nothing_is_taken_and_that_is_told_once(place: Place) -> None:
    place.drop()
    place.folder.chmod(0o777)
    place.settle()
    place.settle()
    assert names(place) == []
    assert place.lying() == {"night.yaml"}
    (message,) = place.messages()
    assert (message.event, message.title) == ("needs_you", "lq: nothing is taken from the drop folder")
    place.folder.chmod(0o700)
    place.settle()
    assert names(place) == [(1, "night")]


def test_a_folder_that_is_a_link_is_not_followed_and_breaks_nothing_else(place: Place, tmp_path: Path) -> None:
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


def test_the_same_content_again_is_told_apart_whatever_its_name(place: Place) -> None:
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


def test_one_that_was_cancelled_can_be_retried(place: Place) -> None:
    place.drop()
    place.settle()
    place.home.store.jobs.cancel(1, time.time())
    place.drop()
    place.settle()
    assert "job 1 (cancelled); lq retry 1 lets it go on" in place.error()


def test_a_mended_file_is_another_one(place: Place) -> None:
    place.drop(text=place.job(iters=-1))
    place.settle()
    rejected = place.folder / "rejected" / "night.yaml"
    rejected.write_text(place.job())
    rejected.rename(place.folder / "night.yaml")
    place.settle()
    assert names(place) == [(1, "night")]


# --- killed at any instant: what each instant leaves, seen by the next worker ---


def claimed(place: Place, name: str = "night.yaml") -> Path:
    folder = place.folder / ".claimed" / "1700000000-abc"
    folder.mkdir(parents=True)
    return place.drop().rename(folder / name)


def test_killed_after_the_claim_the_file_is_submitted(place: Place) -> None:
    claimed(place)
    assert waiting_in(place.folder).files == 1
    place.settle()
    assert names(place) == [(1, "night")]
    assert place.lying() == {"accepted/night.yaml"}


def test_killed_after_the_submit_the_file_is_not_submitted_again(place: Place, tmp_path: Path) -> None:
    text = place.job(adapter_path=str(tmp_path / "out"))  # its own job would stand in its way
    place.drop(text=text)
    place.settle()
    (place.folder / ".claimed" / "1-x").mkdir(parents=True)
    (place.folder / "accepted" / "night.yaml").rename(place.folder / ".claimed" / "1-x" / "night.yaml")
    place.next_worker()
    place.settle()
    assert names(place) == [(1, "night")]
    assert place.lying() == {"accepted/night.yaml"}
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert [job.id for job in place.home.store.jobs.from_inbox_file(sha256)] == [1]


def test_killed_after_the_error_was_written_it_is_told_once(place: Place) -> None:
    file = claimed(place)
    file.write_text("models: x\n")
    place.settle()
    moved = place.folder / "rejected" / "night.yaml"
    file.parent.mkdir()
    moved.rename(file)
    place.next_worker()
    place.settle()
    assert place.lying() == {"rejected/night.yaml", "rejected/night.yaml.error.txt"}
    assert len(place.messages()) == 1


def test_killed_before_the_claim_an_empty_claim_goes(place: Place) -> None:
    claimed(place).unlink()
    place.settle()
    assert list((place.folder / ".claimed").iterdir()) == []


def test_a_file_written_after_its_claim_has_to_rest_again(place: Place) -> None:
    file = claimed(place)
    place.inbox.look()
    place.now += 1.0
    file.write_text(place.job(seed=9))
    place.inbox.look()
    place.now += 1.0
    place.inbox.look()
    assert names(place) == []
    place.now += 1.0
    place.inbox.look()
    assert place.home.store.jobs.spec_json(1).count('"seed":9') == 1


# --- not the file's fault ---


def test_while_settings_are_broken_a_file_waits(place: Place) -> None:
    place.home.write_settings("autostarts: true\n")
    place.drop()
    place.settle()
    assert place.lying() == {"night.yaml"}
    place.home.write_settings("autostart: false\n")
    place.now += inboxes.TRY_AGAIN_S
    place.settle()
    assert names(place) == [(1, "night")]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_while_the_jobs_folder_cannot_be_written_a_file_waits(place: Place) -> None:
    place.home.jobs.chmod(0o500)
    place.drop()
    place.settle()
    place.home.jobs.chmod(0o700)
    assert names(place) == []
    place.now += inboxes.TRY_AGAIN_S
    place.settle()
    assert names(place) == [(1, "night")]


def test_while_a_file_stands_where_the_jobs_go_a_dropped_one_waits(place: Place) -> None:
    place.home.jobs.rmdir()
    place.home.jobs.touch()
    place.drop()
    place.settle()
    assert names(place) == []
    assert [path.name for path in (place.folder / ".claimed").glob("*/*")] == ["night.yaml"]
    place.home.jobs.unlink()
    place.home.jobs.mkdir()
    place.now += inboxes.TRY_AGAIN_S
    place.settle()
    assert names(place) == [(1, "night")]
    assert place.lying() == {"accepted/night.yaml"}


def test_when_the_worker_goes_home_nothing_more_is_taken(place: Place) -> None:
    place.drop()
    place.inbox.look()
    place.inbox.over.set()
    place.now += REST_S
    place.inbox.look()
    assert names(place) == []
    assert place.lying() == {"night.yaml"}


def test_the_porter_hears_of_a_file_and_goes_when_told(place: Place) -> None:
    begun = time.monotonic()
    porter = inboxes.Porter(Inbox(place.app))
    with porter:
        place.drop()
        until(lambda: names(place), "the job")
        until(lambda: place.lying() == {"accepted/night.yaml"}, "the file in accepted/")
    assert not porter.is_alive()
    assert time.monotonic() - begun >= REST_S
    assert place.home.store.jobs.get(1).status is Status.QUEUED
