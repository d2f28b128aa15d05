"""The line: who is next, who is moved, who waits for whom and is skipped."""

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
from jobs.scheduling.obstacles import Reading
from orchestrator.scheduling import eligibility
from orchestrator.store.store import Store
from tests.unit.orchestrator.cli_homes import WORKER


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "lq.db") as opened:
        yield opened


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


def test_the_highest_priority_is_first_and_equal_ones_stand_as_they_came(store: Store) -> None:
    a, b, c = add(store), add(store, priority=5), add(store)
    assert ids(store) == [b.id, a.id, c.id]
    claimed = store.leases.claim(WORKER, 2.0)
    assert claimed is not None
    assert claimed.id == b.id
    assert ids(store) == [a.id, c.id]


def test_a_job_is_moved_and_takes_the_priority_that_holds_there(store: Store) -> None:
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


def test_only_jobs_in_the_line_can_be_moved_and_none_beside_itself(store: Store) -> None:
    running, other = add(store, priority=1), add(store)
    store.leases.claim(WORKER, 2.0)
    with pytest.raises(NotAllowed, match="job 1 is running; only jobs that wait for their turn"):
        store.queue.move(running.id)
    with pytest.raises(NotAllowed, match="job 1 is running"):
        store.queue.move(other.id, before=running.id)
    with pytest.raises(NotAllowed, match="before or after itself"):
        store.queue.move(other.id, before=other.id)
    assert store.queue.move(other.id, last=True).priority == 0, "alone it stays where it is"


# every move is on the disk before the next: thirty lists of up to seventy are enough to wait for
@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["before", "after"])), max_size=70))
def test_however_often_jobs_are_moved_they_stand_where_they_were_put(
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


def turns(store: Store) -> dict[int, str | None]:
    found = eligibility.turns(store, now=5.0, zone=None, read=lambda _: Reading())
    return {turn.job.id: turn.obstacle.text if turn.obstacle is not None else None for turn in found}


def test_a_job_starts_when_those_it_comes_after_have_succeeded(store: Store) -> None:
    first = add(store)
    second = add(store, after=[(first.id, False)])
    assert turns(store) == {first.id: None, second.id: "job 1 must succeed first"}
    end(store, first, Status.SUCCEEDED)
    assert turns(store) == {second.id: None}


def test_where_one_fails_those_after_it_are_skipped_and_those_after_them_and_each_is_told(store: Store) -> None:
    first = add(store)
    second = add(store, after=[(first.id, False)])
    third = add(store, after=[(second.id, False)])
    whatever = add(store, after=[(third.id, True)])
    end(store, first, Status.FAILED)
    assert turns(store)[second.id] == "job 1, which must succeed first, is failed; it will be skipped"
    told: list[int] = []

    def tell(job: Job) -> list[NewMessage]:
        told.append(job.id)
        return []

    skipped = store.queue.enqueue_due(9.0, tell)
    assert [(job.id, job.status, job.reason, job.ended_at) for job in skipped] == [
        (second.id, Status.SKIPPED, "dependency_failed", 9.0),
        (third.id, Status.SKIPPED, "dependency_failed", 9.0),
    ]
    assert skipped[0].detail == "job 1, which must succeed first, failed"
    assert skipped[1].detail == "job 2, which must succeed first, was skipped"
    assert told == [second.id, third.id]
    assert turns(store) == {whatever.id: None}
    assert store.queue.enqueue_due(9.0, lambda _: []) == [], "once"


def test_a_strict_job_that_may_not_start_keeps_those_behind_it(store: Store) -> None:
    running = add(store, priority=9)
    store.leases.claim(WORKER, 2.0)
    add(store, name="big", after=[(running.id, False)], lq='"strict": true')
    add(store)
    before = add(store, priority=5)
    assert turns(store) == {
        before.id: None,
        2: "job 1 must succeed first",
        3: "job 2 (big) comes before it, and is strict",
    }


def test_a_name_stands_for_its_newest_job(store: Store) -> None:
    add(store, name="prepare")
    newest = add(store, name="prepare")
    assert store.jobs.ids_called("prepare") == [newest.id]
    assert store.jobs.ids_called("nothing") == []
