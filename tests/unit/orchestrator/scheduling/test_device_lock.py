"""The device's lock: who holds it, and who gets it next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.model.errors import NotAllowed
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.states import Status
from jobs.policies.decision import Decision
from jobs.scheduling.obstacles import Why
from orchestrator.cli.verbs import run
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home as HomeFolder
from orchestrator.scheduling import device_lock, eligibility
from orchestrator.scheduling.device_lock import Beside
from orchestrator.worker.dispatcher import Dispatcher
from tests.harness import until
from tests.unit.orchestrator.cli_homes import WORKER, Home
from workers.process.lock import LockFile
from workers.system import processes


@pytest.fixture
def folder(home: Home) -> HomeFolder:
    """Give the home as the app knows it."""
    return HomeFolder(home.path)


@contextmanager
def in_use(folder: HomeFolder, *, waits: bool = False) -> Iterator[None]:
    """Have the device, as `lq chat 3` of another process would."""
    lock = LockFile.take(folder.device_lock)
    lock.write(processes.identity(), verb="chat", job=3, waits=waits)
    try:
        yield
    finally:
        lock.release()


def nothing(_: str) -> None:
    """Print nothing."""


def test_lock_names_its_user(app: App, folder: HomeFolder) -> None:
    with device_lock.used(app, "fuse", 7, beside=Beside.REFUSE, tell=nothing):
        found = device_lock.obstacle(folder)
        assert found is not None
        assert found.why is Why.IN_USE
        assert found.text.endswith("used by lq fuse 7")
    assert device_lock.user(folder) is None
    with in_use(folder, waits=True):
        found = device_lock.obstacle(folder)
        assert found is not None
        assert found.why is Why.IN_USE
        assert found.text.startswith("lq chat 3 waits ")


def test_second_verb_is_refused_or_shares(app: App, folder: HomeFolder) -> None:
    with in_use(folder):
        with (
            pytest.raises(NotAllowed, match=r"chat 3 \(pid \d+\); .*--queue, .*--anyway"),
            device_lock.used(app, "test", 1, beside=Beside.REFUSE, tell=nothing),
        ):
            raise AssertionError("it is in use")
        with device_lock.used(app, "test", 1, beside=Beside.ANYWAY, tell=nothing):
            present = device_lock.user(folder)
            assert present is not None
            assert present.verb == "chat"


def test_lock_without_a_name_is_awaited(app: App, folder: HomeFolder) -> None:
    lock = LockFile.take(folder.device_lock)  # as a worker has it while it claims
    threading.Timer(0.5, lock.release).start()
    with device_lock.used(app, "test", 1, beside=Beside.REFUSE, tell=nothing):
        assert device_lock.user(folder) is not None


def test_verb_is_refused_while_a_job_trains(app: App, home: Home, folder: HomeFolder) -> None:
    home.running("night", child=processes.identity())
    remedies = r"job 1 \(night\) is training; wait .* --queue, stop it for now with lq pause 1, or share .*--anyway"
    with (
        pytest.raises(NotAllowed, match=remedies),
        device_lock.used(app, "chat", 1, beside=Beside.REFUSE, tell=nothing),
    ):
        raise AssertionError("a job trains")
    assert device_lock.user(folder) is None
    with device_lock.used(app, "chat", 1, beside=Beside.ANYWAY, tell=nothing):
        assert device_lock.user(folder) is not None, "no further job starts"


def test_verb_waits_until_no_job_trains(app: App, home: Home, folder: HomeFolder) -> None:
    job = home.running("night", child=processes.identity())
    notes: list[str] = []
    had = threading.Event()

    def chat() -> None:
        with App(folder) as own, device_lock.used(own, "chat", 1, beside=Beside.WAIT, tell=notes.append):
            had.set()

    thread = threading.Thread(target=chat)
    thread.start()
    until(lambda: (present := device_lock.user(folder)) is not None and present.waits, "it to wait")
    assert not had.is_set()
    assert len(notes) == 1
    with device_lock.kept_free(folder) as free:
        assert not free
    app.store.jobs.cancel(job.id, 1.0)
    _close_attempt(home, job.id)
    thread.join()
    assert had.is_set()
    assert len(notes) == 2


def _close_attempt(home: Home, job_id: int) -> None:
    """Let the running attempt end and its job be settled."""
    attempt = home.store.attempts.of(job_id)[-1]
    ending = Ending(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail="as asked")
    home.store.attempts.end(attempt.id, ending=ending, exit_code=75, signal=None, now=2.0)
    decision = Decision(status=Status.CANCELLED, reason=Reason.STOPPED_BY_USER, detail="as asked")
    home.store.leases.settle(job_id, decision, owner=WORKER, now=2.0)


def test_waiting_verb_goes_before_the_worker(app: App, home: Home) -> None:
    home.queued("next")
    shift = Dispatcher(WorkerContext(app=app, owner=processes.identity()), slots=1)
    with in_use(app.home):
        assert shift._next() is None
        waiting = eligibility.kept_by_device(app)
        assert waiting is not None
        assert waiting.name == "next"
    assert shift._next() is None, "a verb that waits for the device looks more often than a worker"
    job = shift._next()
    assert job is not None
    assert job.name == "next"
    assert eligibility.kept_by_device(app) is None


def test_verb_between_look_and_claim_wins(app: App, home: Home) -> None:
    home.queued("next")
    shift = Dispatcher(WorkerContext(app=app, owner=processes.identity()), slots=1)
    with in_use(app.home):
        assert shift._claim_one(1, 1.0) is None
    assert shift._claim_one(1, 1.0) is not None


def test_paused_queue_does_not_wait_for_it(app: App, home: Home) -> None:
    home.queued("next")
    app.store.queue.pause("as the user wants", 1.0, [])
    with in_use(app.home):
        assert eligibility.kept_by_device(app) is None


def test_status_names_the_device_user(
    home: Home, folder: HomeFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.queued("next")
    monkeypatch.setenv("LQ_HOME", str(home.path))
    with in_use(folder):
        assert run(["status"]) == 0
    assert "used by lq chat 3" in capsys.readouterr().out


def test_damaged_lock_file_names_no_user(folder: HomeFolder) -> None:
    lock = LockFile.take(folder.device_lock)
    Path(folder.device_lock).write_text("{}")
    try:
        assert device_lock.user(folder) is None
        lock.write(processes.identity())  # of another version
        assert device_lock.user(folder) is None
    finally:
        lock.release()
