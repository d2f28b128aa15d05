"""Jobs, attempts and leases in a real store."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.model.errors import NoSuchJob, NotAllowed
from jobs.model.job import Incident, Job, NewMessage, ProcessIdentity
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.states import Status
from jobs.policies.decision import Decision, StopRequest
from orchestrator.store.store import Store

OWNER = ProcessIdentity(pid=10, create_time=1700000000.123456, boot_id="boot-1")
OTHER = ProcessIdentity(pid=11, create_time=1700000001.5, boot_id="boot-1")
DONE = Decision(status=Status.SUCCEEDED, reason=Reason.COMPLETED, detail="trained to its last iteration")
BACK = Decision(status=Status.WAITING, reason=Reason.KILLED, detail="ended by SIGKILL", not_before=500.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store."""
    with Store.open(tmp_path / "lq.db") as opened:
        yield opened


def submit(store: Store, name: str = "job", *, priority: int = 0, now: float = 100.0) -> Job:
    """Queue a job of 1000 iterations without a real folder."""
    return store.jobs.submit(
        name=name,
        priority=priority,
        iters=1000,
        spec_json='{"model": "m"}',
        prepare=lambda job_id: Path(f"/home/jobs/{job_id}"),
        now=now,
    )


def claimed(store: Store, owner: ProcessIdentity = OWNER, now: float = 200.0) -> Job:
    """Claim a job; fail if there is none."""
    job = store.leases.claim(owner, now)
    assert job is not None
    return job


def test_submit_queues_job_with_folder(store: Store) -> None:
    job = submit(store, "first", priority=3)
    assert (job.id, job.name, job.status, job.priority, job.iters) == (1, "first", Status.QUEUED, 3, 1000)
    assert (job.job_dir, job.submitted_at, job.attempts, job.iteration) == ("/home/jobs/1", 100.0, 0, 0)
    assert (job.owner, job.child, job.train_loss) == (None, None, None)
    assert store.jobs.get(1) == job
    assert store.jobs.spec_json(1) == '{"model": "m"}'


def test_submit_without_folder_adds_no_job(store: Store) -> None:
    def fails(_: int) -> Path:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.jobs.submit(name="x", priority=0, iters=1, spec_json="{}", prepare=fails, now=1.0)
    assert store.jobs.overview(all_jobs=True) == []
    assert submit(store).id == 1


@pytest.mark.parametrize("question", ["jobs.get", "jobs.spec_json", "events.offset", "attempts.crashes"])
def test_unknown_id_raises_no_such_job(store: Store, question: str) -> None:
    with pytest.raises(NoSuchJob, match="no job 7"):
        operator.attrgetter(question)(store)(7)


def test_claim_order_is_priority_then_id(store: Store) -> None:
    for name, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 5)]:
        submit(store, name, priority=priority)
    assert [claimed(store).name for _ in range(4)] == ["b", "d", "a", "c"]
    assert store.leases.claim(OWNER, 200.0) is None
    assert [job.name for job in store.jobs.running()] == ["a", "b", "c", "d"]


def test_claim_keeps_first_start_time(store: Store) -> None:
    submit(store)
    job = claimed(store, now=200.0)
    assert (job.status, job.owner, job.started_at) == (Status.RUNNING, OWNER, 200.0)
    store.leases.settle(1, BACK, owner=OWNER, now=300.0)
    assert claimed(store, OTHER, now=600.0).started_at == 200.0


def test_claim_respects_not_before(store: Store) -> None:
    submit(store)
    claimed(store)
    waiting = store.leases.settle(1, BACK, owner=OWNER, now=300.0)
    assert (waiting.status, waiting.reason, waiting.not_before, waiting.owner) == ("waiting", "killed", 500.0, None)
    assert store.leases.claim(OWNER, 499.9) is None
    again = claimed(store, now=500.0)
    assert (again.id, again.reason, again.detail, again.not_before) == (1, None, None, None)


def test_take_over_needs_current_owner(store: Store) -> None:
    submit(store)
    claimed(store)
    assert not store.leases.take_over(1, old=OTHER, new=OTHER, now=300.0)
    assert not store.leases.take_over(1, old=None, new=OTHER, now=300.0)
    assert store.leases.take_over(1, old=OWNER, new=OTHER, now=300.0)
    assert store.jobs.get(1).owner == OTHER
    store.leases.heartbeat(1, OWNER, 400.0)  # too late: it changes nothing
    with pytest.raises(NotAllowed, match="job 1 is running"):
        store.leases.settle(1, DONE, owner=OWNER, now=400.0)
    with pytest.raises(NotAllowed):
        store.attempts.begin(1, owner=OWNER, now=400.0)


def test_take_over_needs_running_job(store: Store) -> None:
    submit(store)
    assert not store.leases.take_over(1, old=None, new=OWNER, now=1.0)


def test_settle_writes_everything_at_once(store: Store) -> None:
    submit(store)
    claimed(store)
    evidence = {"n": 1, "x": float("nan")}
    restart = Incident(job_id=1, attempt=None, time=5.0, code="restart", text="t", evidence=evidence)
    finished = NewMessage(job_id=1, event="finished", key="1-finished", title="T", body="B", tags=("phone",))
    job = store.leases.settle(1, DONE, owner=OWNER, now=300.0, incidents=[restart], messages=[finished, finished])
    assert (job.status, job.reason, job.ended_at) == (Status.SUCCEEDED, "completed", 300.0)
    assert (job.owner, job.stop_request) == (None, None)
    assert [(incident.code, incident.evidence) for incident in store.incidents.of(1)] == [
        ("restart", {"n": 1, "x": "nan"})
    ]
    assert [message.key for message in store.outbox.messages(1)] == ["1-finished"]


def test_illegal_settle_changes_nothing(store: Store) -> None:
    submit(store)
    claimed(store)
    message = NewMessage(job_id=1, event="failed", key="k", title="T", body="B")
    skipped = Decision(status=Status.SKIPPED, reason=None, detail="")
    with pytest.raises(NotAllowed, match="cannot become skipped"):
        store.leases.settle(1, skipped, owner=OWNER, now=300.0, messages=[message])
    assert store.jobs.get(1).status is Status.RUNNING
    assert store.outbox.messages() == []


def test_cancel_running_and_queued_jobs(store: Store) -> None:
    submit(store)
    submit(store)
    claimed(store)
    assert store.jobs.cancel(1, 300.0).stop_request == "cancel"
    assert store.jobs.get(1).status is Status.RUNNING
    other = store.jobs.cancel(2, 300.0)
    assert (other.status, other.reason, other.ended_at) == (Status.CANCELLED, "stopped_by_user", 300.0)
    with pytest.raises(NotAllowed, match="job 2 is cancelled"):
        store.jobs.cancel(2, 301.0)


def test_settle_honours_newer_cancel(store: Store) -> None:
    submit(store)
    claimed(store)
    store.jobs.cancel(1, 250.0)
    job = store.leases.settle(1, BACK, owner=OWNER, now=300.0)
    assert (job.status, job.not_before, job.ended_at) == (Status.CANCELLED, None, 300.0)


def test_settle_honours_newer_pause(store: Store) -> None:
    submit(store)
    claimed(store)
    store.jobs.request_stop(1, "pause", 250.0)
    job = store.leases.settle(1, BACK, owner=OWNER, now=300.0)
    assert (job.status, job.not_before) == (Status.PAUSED, None)
    assert str(job.detail).split("; ")[1:] == ["before: ended by SIGKILL"]
    assert store.jobs.release_paused_by_worker(400.0) == []


def test_finished_run_ignores_late_cancel(store: Store) -> None:
    submit(store)
    claimed(store)
    store.jobs.cancel(1, 250.0)
    assert store.leases.settle(1, DONE, owner=OWNER, now=300.0).status is Status.SUCCEEDED


def test_stronger_stop_request_stays(store: Store) -> None:
    submit(store)
    claimed(store)
    assert store.jobs.request_stop(1, "worker_stop", 1.0).stop_request == "worker_stop"
    assert store.jobs.request_stop(1, "pause", 1.0).stop_request == "pause"
    assert store.jobs.request_stop(1, "worker_stop", 1.0).stop_request == "pause"
    assert store.jobs.request_stop(1, "cancel", 1.0).stop_request == "cancel"
    assert store.jobs.request_stop(1, "pause", 1.0).stop_request == "cancel"


def test_stop_request_needs_running_job(store: Store) -> None:
    submit(store)
    with pytest.raises(NotAllowed, match="job 1 is queued, not running"):
        store.jobs.request_stop(1, "pause", 1.0)


def test_worker_start_resumes_its_jobs_only(store: Store) -> None:
    paused = Decision(status=Status.PAUSED, reason=Reason.STOPPED_BY_USER, detail="paused")
    requests: tuple[StopRequest, ...] = ("worker_stop", "pause")
    for stop_request in requests:
        job_id = submit(store).id
        claimed(store)
        store.jobs.request_stop(job_id, stop_request, 1.0)
        assert store.leases.settle(job_id, paused, owner=OWNER, now=2.0).status is Status.PAUSED
    released = store.jobs.release_paused_by_worker(3.0)
    assert [(job.id, job.status, job.reason) for job in released] == [(1, Status.QUEUED, None)]
    assert store.jobs.get(2).status is Status.PAUSED
    assert store.jobs.release_paused_by_worker(4.0) == []


def test_retry_keeps_id_of_failed_job(store: Store) -> None:
    submit(store)
    claimed(store)
    failed = Decision(status=Status.FAILED, reason=Reason.CRASH_LOOP, detail="gave up")
    store.leases.settle(1, failed, owner=OWNER, now=300.0)
    job = store.jobs.retry(1, 400.0)
    assert (job.id, job.status, job.reason, job.detail, job.ended_at) == (1, Status.QUEUED, None, None, None)
    with pytest.raises(NotAllowed, match="job 1 is queued; only "):
        store.jobs.retry(1, 401.0)


def test_overview_order_and_ended_limit(store: Store) -> None:
    for priority in (0, 0, 0, 0, 7, 0):
        submit(store, priority=priority)
    store.jobs.cancel(1, 10.0)
    store.jobs.cancel(2, 20.0)
    assert claimed(store).id == 5
    store.leases.settle(5, BACK, owner=OWNER, now=30.0)
    assert claimed(store).id == 3
    assert [job.id for job in store.jobs.overview()] == [3, 4, 6, 5, 1, 2]
    assert [job.id for job in store.jobs.overview(ended=1)] == [3, 4, 6, 5, 2]
    assert [job.id for job in store.jobs.overview(ended=0, all_jobs=True)] == [3, 4, 6, 5, 1, 2]


def test_job_shows_running_child_only(store: Store) -> None:
    submit(store)
    claimed(store)
    attempt = store.attempts.begin(1, owner=OWNER, now=300.0)
    assert (attempt.number, attempt.child, attempt.started_at) == (1, None, 300.0)
    store.attempts.set_child(attempt.id, OTHER)
    assert (store.jobs.get(1).child, store.jobs.get(1).attempts) == (OTHER, 1)
    crashed = Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="ended by SIGKILL")
    store.attempts.end(attempt.id, ending=crashed, exit_code=None, signal=9, now=310.0)
    assert store.jobs.get(1).child is None
    assert [job.attempts for job in store.jobs.overview()] == [1]


def test_second_end_of_attempt_is_ignored(store: Store) -> None:
    submit(store)
    claimed(store)
    attempt = store.attempts.begin(1, owner=OWNER, now=300.0)
    crashed = Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="first")
    store.attempts.end(attempt.id, ending=crashed, exit_code=None, signal=9, now=310.0)
    done = Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="second")
    store.attempts.end(attempt.id, ending=done, exit_code=0, signal=None, now=320.0)
    [kept] = store.attempts.of(1)
    assert (kept.outcome, kept.detail, kept.signal, kept.exit_code, kept.ended_at) == (
        "crashed",
        "first",
        9,
        None,
        310.0,
    )


def test_one_running_attempt_per_job(store: Store) -> None:
    submit(store)
    claimed(store)
    store.attempts.begin(1, owner=OWNER, now=300.0)
    with pytest.raises(NotAllowed, match="attempt 1 has not ended"):
        store.attempts.begin(1, owner=OWNER, now=301.0)
    assert store.jobs.get(1).attempts == 1


def publishing(store: Store, adapter_path: Path) -> Job:
    """Queue a job that publishes to `adapter_path`."""
    return store.jobs.submit(
        name="job",
        priority=0,
        iters=1000,
        spec_json=json.dumps({"model": "m", "adapter_path": str(adapter_path)}),
        prepare=lambda job_id: Path(f"/home/jobs/{job_id}"),
        now=100.0,
    )


def test_adapter_path_taken_by_live_job(store: Store, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    publishing(store, tmp_path / "real")
    with pytest.raises(NotAllowed, match=r"/link is already taken by job 1"):
        store.jobs.require_free_paths([str(tmp_path / "link")])
    store.jobs.require_free_paths([str(tmp_path / "link")], besides=1)


def test_retry_needs_free_adapter_path(store: Store, tmp_path: Path) -> None:
    store.jobs.cancel(publishing(store, tmp_path / "adapters").id, 200.0)
    second = publishing(store, tmp_path / "adapters")
    with pytest.raises(NotAllowed, match=r"already taken by job 2"):
        store.jobs.retry(1, 300.0)
    store.jobs.cancel(second.id, 400.0)
    assert store.jobs.retry(1, 500.0).status is Status.QUEUED


def test_user_pause_outlives_the_machine(store: Store) -> None:
    """A repaired machine resumes only the queue that was paused for it."""
    assert store.queue.pause("mlx cannot be imported", 1.0, cause="mlx")
    assert not store.queue.pause("mlx cannot be imported", 2.0, cause="mlx")
    assert store.queue.pause("paused by the user", 3.0)
    assert not store.queue.resume(cause="mlx")
    assert (store.queue.state().because, store.queue.state().cause) == ("paused by the user", None)
    assert not store.queue.pause("mlx cannot be imported", 4.0, cause="mlx")
    assert store.queue.resume()
    assert store.queue.pause("mlx cannot be imported", 5.0, cause="mlx")
    assert store.queue.resume(cause="mlx")
    assert store.queue.state().paused_at is None
