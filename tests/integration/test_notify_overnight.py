"""Messages of one night to real services: merged, held in quiet hours, replaced by the digest, never lost."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from configs.settings import Service
from jobs.model import time_windows
from jobs.model.job import Message, NewMessage
from jobs.model.spec import JobSpec
from jobs.policies.delivery import INCLUDED_AT_END, INCLUDED_IN_DIGEST
from orchestrator.notify import apprise_sender
from orchestrator.notify.apprise_sender import Notifier
from orchestrator.notify.outbox_worker import DeliveryTime, deliver
from orchestrator.store.store import Store
from tests.harness import until
from tests.integration.loopback import Endpoint, free_address

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = time_windows.parse_window("23:00-07:00")
NIGHT_OF_25_HOURS = date(2026, 10, 25)
JOB = "lq: n (job 1) "


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    until(lambda: not any(thread.name == "lq-notify" for thread in threading.enumerate()), "the threads to end")


def at(text: str, day: date = NIGHT_OF_25_HOURS) -> float:
    """Return the unix seconds of a time in Berlin."""
    clock = datetime.fromisoformat(f"{day} {text}" if len(text) < 9 else text)
    return clock.replace(tzinfo=BERLIN).timestamp()


class Outbox:
    """The outbox of a job, and the services it is delivered to."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        spec = JobSpec().model_dump_json()
        job = store.jobs.submit(name="n", priority=0, iters=1, spec_json=spec, prepare=lambda _: folder, now=0.0)
        self.job_id = job.id
        self.services: tuple[Service, ...] = ()
        self.quiet: time_windows.TimeWindow | None = None

    def write(self, event: str, moment: float, body: str = "") -> Message:
        """Put a message into the outbox."""
        about = None if event == "digest" else self.job_id
        title = f"{JOB}{event}"
        new = NewMessage(job_id=about, event=event, key=f"{event}-{moment}", title=title, body=body or event)
        row = self.store.outbox.add(new, moment)
        assert row is not None
        return row

    def deliver(self, moment: float) -> None:
        """Deliver the messages that are due at a time."""
        when = DeliveryTime(now=moment, jitter=0.0, quiet=self.quiet, zone=BERLIN)
        for row in self.store.outbox.due(moment):
            deliver(row.id, store=self.store, notifier=Notifier(self.services, timeout_s=5.0), when=when)

    def settled(self) -> list[tuple[str, str | None, dict[str, str]]]:
        """Return event, settlement and results of each message."""
        return [
            (row.event, row.settled, {result.service: result.last_result for result in row.services})
            for row in self.store.outbox.messages()
        ]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Store.open(tmp_path / "lq.db") as store:
        yield Outbox(store, tmp_path)


def service(endpoint: Endpoint | str, name: str, **more: Any) -> Service:
    address = endpoint if isinstance(endpoint, str) else endpoint.address
    return Service(url=SecretStr(f"json://{address}/"), name=name, **more)


def titles(endpoint: Endpoint) -> list[str]:
    """Return the titles of the messages a service got, without the job they all begin with."""
    every = [document["title"] for document in endpoint.documents]
    assert all(title.startswith(JOB) for title in every)
    return [title.removeprefix(JOB) for title in every]


def test_repeated_crashes_are_merged(outbox: Outbox) -> None:
    with Endpoint() as phone:
        outbox.services = (service(phone, "phone"),)
        for minute in (10, 14, 18, 22):
            outbox.write("recovered", at(f"04:{minute}"), f"crash at {minute}")
            outbox.deliver(at(f"04:{minute}"))
        outbox.deliver(at("04:24"))
        assert titles(phone) == ["recovered"]
        outbox.deliver(at("04:25"))
        outbox.deliver(at("05:30"))
        assert titles(phone)[1:] == ["recovered (4 times since 04:10)"]
        lines = phone.documents[1]["message"].splitlines()
        assert lines == ["crash at 22", "before that:", "04:18 crash at 18", "04:14 crash at 14", "04:10 crash at 10"]
        outbox.write("recovered", at("05:31"))
        outbox.deliver(at("05:31"))
        assert titles(phone)[2:] == ["recovered"], "an hour later it is sent immediately"
    assert [settled for _, settled, _ in outbox.settled()] == [
        "delivered",
        "folded",
        "folded",
        "delivered",
        "delivered",
    ]


def test_offline_hours_send_one_of_each_kind(outbox: Outbox) -> None:
    nowhere = service(free_address(), "phone")
    outbox.services = (nowhere,)
    for hour in ("01:00", "03:30", "05:00"):
        outbox.write("recovered", at(hour), f"at {hour}")
        outbox.deliver(at(hour))
    outbox.write("needs_you", at("05:10"))
    outbox.deliver(at("05:10"))
    with Endpoint() as phone:
        outbox.services = (service(phone, "phone"),)
        outbox.deliver(at("06:30"))
        outbox.deliver(at("07:30"))
    assert sorted(titles(phone)) == ["needs_you", "recovered (3 times since 01:00)"]


def test_end_replaces_earlier_messages(outbox: Outbox) -> None:
    with Endpoint() as phone, Endpoint() as log:
        outbox.services = (service(phone, "phone"), service(log, "log", on=("recovered",)))
        for minute in (10, 12):
            outbox.write("recovered", at(f"04:{minute}"))
            outbox.deliver(at(f"04:{minute}"))
        outbox.write("finished", at("04:15"))
        outbox.deliver(at("04:15"))
        outbox.deliver(at("04:30"))
    assert titles(phone) == ["recovered", "finished"]
    assert titles(log) == ["recovered", "recovered (2 times since 04:10)"]
    assert outbox.settled()[1] == ("recovered", "delivered", {"phone": INCLUDED_AT_END, "log": "delivered"})


def test_quiet_hours_hold_all_but_urgent(outbox: Outbox) -> None:
    outbox.quiet = NIGHT
    with Endpoint() as phone:
        outbox.services = (service(phone, "phone"),)
        for event, hour in (("recovered", "23:30"), ("failed", "23:40"), ("needs_you", "23:50")):
            outbox.write(event, at(hour, date(2026, 10, 24)))
            outbox.deliver(at(hour, date(2026, 10, 24)))
        outbox.write("recovered", at("02:30"))
        outbox.deliver(at("02:30"))
        outbox.deliver(at("06:59"))
        assert titles(phone) == ["needs_you"]
        held = [row.next_try_at for row in outbox.store.outbox.messages() if row.settled is None]
        assert held == [at("07:00")] * 3, "daylight saving time ends in this night"
        outbox.deliver(at("07:00"))
    # the end replaces the crash before it, but not the crash after it
    assert titles(phone)[1:] == ["failed", "recovered"]


def test_digest_replaces_by_service(outbox: Outbox) -> None:
    outbox.quiet = NIGHT
    with Endpoint() as phone, Endpoint() as mail:
        outbox.services = (service(phone, "phone"), service(mail, "mail", on=("finished",)))
        outbox.write("recovered", at("02:10"))
        outbox.write("finished", at("05:00"))
        outbox.deliver(at("05:00"))
        outbox.write("digest", at("07:00"))
        outbox.deliver(at("07:00"))
    assert titles(phone) == ["digest"], "only the digest"
    assert titles(mail) == ["finished"]
    assert outbox.settled() == [
        ("recovered", "folded", {"phone": INCLUDED_AT_END}),
        ("finished", "delivered", {"phone": INCLUDED_IN_DIGEST, "mail": "delivered"}),
        ("digest", "delivered", {"phone": "delivered"}),
    ]


def test_digest_ignores_quiet_hours(outbox: Outbox) -> None:
    outbox.quiet = NIGHT
    with Endpoint() as phone:
        outbox.services = (service(phone, "phone"),)
        outbox.write("digest", at("06:30"))
        outbox.deliver(at("06:30"))
        assert len(phone.received) == 1


def test_tries_start_after_quiet_hours(outbox: Outbox) -> None:
    outbox.quiet = time_windows.parse_window("08:00-07:00")
    outbox.services = (service(free_address(), "phone"),)
    outbox.write("finished", at("08:30"))
    moment, rows = at("08:30"), outbox.store.outbox.messages()
    while rows[0].settled is None:
        outbox.deliver(moment)
        rows = outbox.store.outbox.messages()
        moment = rows[0].next_try_at or moment
    assert rows[0].settled == "gave_up"
    # tried during the hour between the quiet hours, and a last time when the day was over
    assert moment == at("07:00", date(2026, 10, 27))
    assert rows[0].services[0].tries > 5


def test_failed_service_is_tried_alone(outbox: Outbox) -> None:
    with Endpoint() as phone, Endpoint(500, 500, 200) as mail:
        outbox.services = (service(phone, "phone"), service(mail, "mail"))
        outbox.write("recovered", at("04:00"), "first")
        outbox.deliver(at("04:00"))
        outbox.write("recovered", at("05:00"), "second")
        outbox.deliver(at("05:00"))
        outbox.deliver(at("05:30"))
    assert titles(phone) == ["recovered"] * 2
    assert [document["message"] for document in mail.documents] == ["first", "first", "second", "first"]


def test_keyring_secret_is_filled_in(tmp_path: Path) -> None:
    import keyring
    from keyrings.alt.file import PlaintextKeyring

    backend = PlaintextKeyring()  # type: ignore[no-untyped-call]
    backend.file_path = str(tmp_path / "keyring.cfg")
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        with Endpoint() as phone:
            keyring.set_password("lq", "phone", phone.address)
            present = Service(url=SecretStr("json://${keyring:lq/phone}/hook"), name="phone")
            missing = Service(url=SecretStr("json://${keyring:lq/hush}/hook"), name="mail")
            results = apprise_sender.send_test(Notifier([present, missing]))
    finally:
        keyring.set_keyring(before)
    assert [(result.service, result.delivered) for result in results] == [("phone", True), ("mail", False)]
    assert "keyring" in results[1].last_result
    assert phone.received[0][0] == "/hook"


@pytest.mark.skipif(sys.platform == "darwin", reason="a stand-in for notify-send")
def test_desktop_is_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "notify-send"
    recorded = tmp_path / "recorded.json"
    command.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(recorded)!r}, 'w'))\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    screen = Service(url=SecretStr("desktop://"), name="desktop", tags=("desktop",))
    (result,) = apprise_sender.send_test(Notifier([screen]))
    assert (result.service, result.last_result) == ("desktop", "delivered")
    assert json.loads(recorded.read_text())[-2] == "lq: test"
    command.unlink()
    (result,) = apprise_sender.send_test(Notifier([screen]))
    assert (result.delivered, result.last_result) == (False, "notify-send is not installed")
