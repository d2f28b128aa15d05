"""Messages, digest and heartbeat of a real worker, also after a crash and with slow services."""

from __future__ import annotations

import datetime
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.model.job import NewMessage
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.store.store import Store
from tests.harness import PATIENCE_S, Lq, kill, until
from tests.integration.loopback import Endless, Endpoint, address, free_address, listening
from tests.unit.orchestrator.cli_homes import Home

SECRETS = ("hush-word", "hush-path", "hush-ping", "hush-ring", "hush-service", "hush-user")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    created = Home(tmp_path / "home")
    yield created
    created.store.close()


@pytest.fixture
def lq(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lq]:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    created = Lq(home.path)
    yield created
    created.leave()


def write(home: Home, event: str = "failed", key: str = "k") -> int:
    """Put a message into the outbox without a delivery request."""
    new = NewMessage(job_id=None, event=event, key=key, title=f"lq: {key}", body="b")
    row = home.store.outbox.add(new, time.time())
    assert row is not None
    return row.id


def settled(store: Store, message_id: int) -> Callable[[], bool]:
    return lambda: store.outbox.get(message_id).settled is not None


def settings(home: Home, **notify: Any) -> None:
    home.write_settings(yaml.safe_dump({"autostart": False, "notify": notify}))


def test_next_worker_sends_after_kill(home: Home, lq: Lq) -> None:
    message_id = write(home)
    with listening() as mute, Endpoint() as phone:
        settings(home, services=[{"url": f"json://{address(mute)}/", "name": "phone"}])
        first = lq.start_worker()
        mute.settimeout(30)
        connection, _ = mute.accept()  # the worker is sending
        with closing(connection):
            kill(first)
        assert home.store.outbox.get(message_id).services == ()
        settings(home, services=[{"url": f"json://{phone.address}/", "name": "phone"}])
        lq.start_worker()
        until(settled(home.store, message_id), "the message to be delivered")
    assert [document["title"] for document in phone.documents] == ["lq: k"]


def test_hanging_ping_does_not_block(home: Home, lq: Lq) -> None:
    message_id = write(home)
    with Endless() as switch, Endpoint() as phone:
        ping = f"http://{switch.address}/hush-ping"
        settings(home, services=[{"url": f"json://{phone.address}/", "name": "phone"}], ping=ping)
        lq.start_worker()
        assert switch.asked.wait(PATIENCE_S)
        until(settled(home.store, message_id), "the message to be delivered")
        lq("worker", "stop", "--timeout", 60)
        assert switch.request.startswith(b"GET /hush-ping HTTP")


def test_digest_is_one_message(home: Home, lq: Lq) -> None:
    done = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="night")
    now = time.time()
    with home.store.database.writing() as db:
        row = (now - 7200, now - 3600, done.id)
        db.exec_driver_sql("UPDATE jobs SET submitted_at = ?, ended_at = ? WHERE id = ?", row)
    hour = datetime.datetime.fromtimestamp(now - 120).astimezone()
    with Endpoint() as phone:
        settings(home, services=[{"url": f"json://{phone.address}/"}], digest=f"{hour:%H:%M}")
        lq.start_worker()
        until(lambda: phone.received, "the digest")
    assert phone.documents[0]["title"] == "lq: 1 finished"
    assert "- night (job 1): finished" in phone.documents[0]["message"]


def test_invalid_settings_keep_messages(home: Home, lq: Lq) -> None:
    settings(home)
    lq.start_worker()
    with Endpoint() as phone:
        home.write_settings("notify: [")
        lq.command("python", "-c", _REQUEST_DELIVERY.format(home=str(home.path), message=write(home)))
        until(lambda: "wait until settings.yaml is fixed" in (home.path / "worker.log").read_text(), "the log")
        settings(home, services=[{"url": f"json://{phone.address}/"}])
        lq.command("python", "-c", _REQUEST_DELIVERY.format(home=str(home.path), message=1))
        until(settled(home.store, 1), "the message to be delivered")
    assert len(phone.received) == 1


_REQUEST_DELIVERY = """
from pathlib import Path
from orchestrator.core.app import App
from orchestrator.core.paths import Home
with App(Home(Path({home!r}))) as app:
    app.wakeup.wake_for_delivery({message})
"""


def test_undelivered_messages_are_listed(home: Home, lq: Lq) -> None:
    job = home.ended(Status.FAILED, Reason.CRASHED)
    new = NewMessage(job_id=job.id, event="failed", key="f", title="t", body="b")
    gone = home.store.outbox.add(new, time.time() - 90_000)
    assert gone is not None
    settings(home, services=[{"url": f"json://{free_address()}/", "name": "phone"}], quiet="23:00-07:00", desktop=True)
    home.write_settings((home.path / "settings.yaml").read_text().replace("quiet", "# quiet"))
    lq.start_worker()
    until(settled(home.store, gone.id), "the message to be given up")
    status = lq("status")
    assert "messages: 1 given up" in status.out
    assert lq.look("status")["messages"] == {"waiting": 0, "gave_up": 1}
    listed = lq("notify", "list").out.splitlines()
    events = ["recovered", "spike_handled", "needs_you", "deadline", "failed", "finished", "digest"]
    assert re.findall(r"\w+", listed[0])[: len(events) + 1] == ["phone", *events]
    assert listed[1].endswith("; tags: desktop")
    assert listed[2].startswith("not delivered: failed of job 1, ")
    assert ": given up after a day: phone" in listed[2]
    assert [row["settled"] for row in lq.look("notify", "list")["undelivered"]] == ["gave_up"]
    assert "given up after a day: phone" in " ".join(lq("show", job.id).out.split())


def test_ping_and_keyring_stay_secret(home: Home, lq: Lq, tmp_path: Path) -> None:
    with Endpoint() as phone, Endpoint(500, 500, 500) as switch:
        code = "import keyring; keyring.set_password('hush-service', 'hush-user', 'hush-ring')"
        lq.command("python", "-c", code)
        services = [
            {"url": f"json://${{keyring:hush-service/hush-user}}:hush-word@{phone.address}/hush-path", "name": "phone"},
            {"url": "json://${keyring:hush-service/nobody}@127.0.0.1:9/hush-path", "name": "lost"},
        ]
        settings(home, services=services, ping=f"http://hush-word:x@{switch.address}/hush-ping?hush-ring")
        write(home)
        lq.start_worker()
        tested = lq("notify", "test", expect=6)
        phone_line, lost_line, ping_line = tested.out.splitlines()
        assert (phone_line, ping_line) == ("phone: delivered", "ping: HTTP status 500")
        assert re.fullmatch("lost: .* keyring", lost_line)
        until(lambda: home.store.outbox.get(1).services, "the message to be tried")
        until(lambda: "the ping: HTTP status 500" in (home.path / "worker.log").read_text(), "the ping")
        answers = [tested, lq("notify", "list"), lq("--debug", "notify", "test", "--json", expect=6), lq("status")]
        assert "services" in answers[2].out
        lq("worker", "stop")
        (home.path / "settings.yaml").chmod(0o644)
        answers.append(lq("--debug", "notify", "list", expect=2))
    texts = {str(number): f"{answer.out}{answer.err}".encode() for number, answer in enumerate(answers)}
    texts |= {
        str(path): path.read_bytes() for path in home.path.rglob("*") if path.is_file() and path.name != "settings.yaml"
    }
    assert {"lq.db", "queue.db", "worker.log"} <= {Path(name).name for name in texts}
    leaks = [(name, secret) for name, text in texts.items() for secret in SECRETS if secret.encode() in text]
    assert leaks == []
    assert phone.received[0][0] == "/hush-path"
    assert stat.S_IMODE((home.path / "lq.db").stat().st_mode) == 0o600
