"""The order of the queue, and which jobs may start."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.model.errors import NotAllowed
from jobs.model.job import Job, NewMessage
from jobs.model.states import Status
from jobs.policies.decision import Decision
from jobs.scheduling.obstacles import Reading, Why
from orchestrator.core.app import App
from orchestrator.core.paths import Home as HomeFolder
from orchestrator.scheduling import eligibility
from orchestrator.store.store import Store
from tests.unit.orchestrator.cli_homes import WORKER


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(HomeFolder(tmp_path)) as opened:
        yield opened


@pytest.fixture
def store(app: App) -> Store:
    return app.store


def add(
    store: Store, *, priority: int = 0, name: str = "n", after: Sequence[tuple[int, bool]] = (), lq: str = ""
) -> Job:
    return store.jobs.submit(
        name=name,
        priority=priority,
        iters=10,
        spec_json=f'{{"lq": {{{lq}}}}}',
        prepare=lambda _: Path("/x"),
        now=1.0,
        after=after,
    )


def ids(store: Store) -> list[int]:
    return [one.job.id for one in store.queue.waiting()]


def end(store: Store, job: Job, status: Status) -> None:
    claimed = store.leases.claim(WORKER, time.time(), only=job.id)
    assert claimed is not None
    store.leases.settle(job.id, Decision(status=status, reason=None, detail="as the test wants"), owner=WORKER, now=2.0)


def test_highest_priority_is_first(store: Store) -> None:
    a, b, c = add(store), add(store, priority=5), add(store)
    assert ids(store) == [b.id, a.id, c.id]
    claimed = store.leases.claim(WORKER, 2.0)
    assert claimed is not None
    assert claimed.id == b.id
    assert ids(store) == [a.id, c.id]


def test_moved_job_takes_the_priority(store: Store) -> None:
    a, b, c, d = (add(store, priority=priority) for priority in (0, 5, 0, 0))
    assert store.queue.move(d.id).priority == 5
    assert ids(store) == [d.id, b.id, a.id, c.id]
    store.queue.move(b.id, after=a.id)
    assert ids(store) == [d.id, a.id, b.id, c.id]
    store.queue.move(c.id, before=a.id)
    assert ids(store) == [d.id, c.id, a.id, b.id]
    store.queue.move(d.id, last=True)
    assert ids(store) == [c.id, a.id, b.id, d.id]
    assert {one.job.priority for one in store.queue.waiting()} == {0}
    later = add(store)
    assert ids(store)[-1] == later.id, "who comes later stands behind those that were moved"
    store.queue.set_priority(later.id, 3)
    assert ids(store)[0] == later.id
    claimed = store.leases.claim(WORKER, 2.0)
    assert claimed is not None
    assert claimed.id == later.id


def test_only_queued_jobs_can_be_moved(store: Store) -> None:
    running, other = add(store, priority=1), add(store)
    store.leases.claim(WORKER, 2.0)
    with pytest.raises(NotAllowed, match="job 1 is running"):
        store.queue.move(running.id)
    with pytest.raises(NotAllowed, match="job 1 is running"):
        store.queue.move(other.id, before=running.id)
    with pytest.raises(NotAllowed, match="before or after itself"):
        store.queue.move(other.id, before=other.id)
    assert store.queue.move(other.id, last=True).priority == 0, "a job alone keeps its place"


# every move is on the disk before the next: thirty lists of up to seventy are enough to wait for
@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["before", "after"])), max_size=70))
def test_repeated_moves_keep_the_order(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int, str]]
) -> None:
    with Store.open(tmp_path_factory.mktemp("line") / "lq.db") as store:
        expected = [add(store).id for _ in range(5)]
        for who, beside, where in moves:
            mover, other = expected[who], expected[beside]
            if mover == other:
                continue
            if where == "before":
                store.queue.move(mover, before=other)
            else:
                store.queue.move(mover, after=other)
            expected.remove(mover)
            expected.insert(expected.index(other) + (where == "after"), mover)
            assert ids(store) == expected


def texts(app: App) -> dict[int, str | None]:
    turns = eligibility.turns(app, slots=1, now=5.0, read=lambda _: Reading())
    return {turn.job.id: turn.obstacle.text if turn.obstacle is not None else None for turn in turns}


def reasons(app: App) -> dict[int, Why | None]:
    turns = eligibility.turns(app, slots=1, now=5.0, read=lambda _: Reading())
    return {turn.job.id: turn.obstacle.why if turn.obstacle is not None else None for turn in turns}


def test_job_starts_after_its_predecessors(app: App, store: Store) -> None:
    first = add(store)
    second = add(store, after=[(first.id, False)])
    assert texts(app) == {first.id: None, second.id: "job 1 must succeed first"}
    end(store, first, Status.SUCCEEDED)
    assert texts(app) == {second.id: None}


def test_jobs_after_a_failed_one_are_skipped(app: App, store: Store) -> None:
    first = add(store)
    second = add(store, after=[(first.id, False)])
    third = add(store, after=[(second.id, False)])
    whatever = add(store, after=[(third.id, True)])
    end(store, first, Status.FAILED)
    assert reasons(app)[second.id] is Why.AFTER
    assert str(texts(app)[second.id]).endswith("it will be skipped")
    notified: list[int] = []

    def tell(job: Job) -> list[NewMessage]:
        notified.append(job.id)
        return []

    skipped = store.queue.enqueue_due(9.0, tell)
    assert [(job.id, job.status, job.reason, job.ended_at) for job in skipped] == [
        (second.id, Status.SKIPPED, "dependency_failed", 9.0),
        (third.id, Status.SKIPPED, "dependency_failed", 9.0),
    ]
    details = [str(job.detail).split(", ") for job in skipped]
    assert [(words[0], words[-1]) for words in details] == [("job 1", "failed"), ("job 2", "was skipped")]
    assert notified == [second.id, third.id]
    assert texts(app) == {whatever.id: None}
    assert store.queue.enqueue_due(9.0, lambda _: []) == [], "once"


def test_strict_job_blocks_jobs_behind_it(app: App, store: Store) -> None:
    running = add(store, priority=9)
    store.leases.claim(WORKER, 2.0)
    add(store, name="big", after=[(running.id, False)], lq='"strict": true')
    add(store)
    before = add(store, priority=5)
    assert reasons(app) == {before.id: None, 2: Why.AFTER, 3: Why.BEHIND}
    assert str(texts(app)[3]).startswith("job 2 (big) ")


def test_name_refers_to_its_newest_job(store: Store) -> None:
    add(store, name="prepare")
    newest = add(store, name="prepare")
    assert store.jobs.ids_called("prepare") == [newest.id]
    assert store.jobs.ids_called("nothing") == []


def test_paused_queue_keeps_every_job(app: App, store: Store) -> None:
    first = add(store)
    second = add(store, after=[(first.id, False)])
    store.queue.pause("as the user wants", 1.0, [])
    assert texts(app) == {first.id: "the queue is paused", second.id: "job 1 must succeed first"}
