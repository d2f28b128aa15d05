"""Messages in a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.model.job import NewMessage, ServiceResult
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store."""
    with Store.open(tmp_path / "lq.db") as opened:
        yield opened


def new(key: str) -> NewMessage:
    """A message that belongs to no job."""
    return NewMessage(job_id=None, event="finished", key=key, title="T", body="B", attachment="/a.png", tags=("x", "y"))


def test_message_is_due_and_unique(store: Store) -> None:
    message = store.outbox.add(new("k"), 10.0)
    assert message is not None
    assert (message.title, message.body, message.attachment, message.tags) == ("T", "B", "/a.png", ("x", "y"))
    assert (message.created_at, message.next_try_at, message.settled, message.services) == (10.0, 10.0, None, ())
    assert store.outbox.add(new("k"), 11.0) is None
    assert store.outbox.due(10.0) == [message] == store.outbox.messages()
    assert store.outbox.due(9.0) == []
    assert store.outbox.messages(1) == []


def test_delivery_is_retried_until_settled(store: Store) -> None:
    message = store.outbox.add(new("k"), 10.0)
    assert message is not None
    failed = ServiceResult(service="json 1", delivered=False, tries=1, last_result="failed")
    store.outbox.record_delivery(message.id, services=(failed,), next_try_at=40.0, settled=None, now=11.0)
    assert store.outbox.due(39.0) == []
    assert store.outbox.due(40.0)[0].services == (failed,)
    delivered = ServiceResult(service="json 1", delivered=True, tries=2, last_result="delivered")
    store.outbox.record_delivery(message.id, services=(delivered,), next_try_at=None, settled="delivered", now=41.0)
    assert store.outbox.due(1e9) == []
    assert (store.outbox.get(message.id).settled, store.outbox.get(message.id).services) == ("delivered", (delivered,))


def test_unknown_message_raises(store: Store) -> None:
    with pytest.raises(LookupError, match="no message 3"):
        store.outbox.get(3)
