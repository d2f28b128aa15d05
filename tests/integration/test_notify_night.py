"""A night of messages, told to real services: counted, held back, told in the digest, and never lost on the way."""

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
from orchestrator.notify import apprise_sender
from orchestrator.notify.apprise_sender import Notifier
from orchestrator.notify.delivery import Moment, deliver
from orchestrator.store.store import Store
from tests.integration.loopback import Endpoint, free_address, until

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = time_windows.parse_window("23:00-07:00")
NIGHT_OF_25_HOURS = date(2026, 10, 25)


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    until(lambda: not any(thread.name == "lq-notify" for thread in threading.enumerate()))


def at(text: str, day: date = NIGHT_OF_25_HOURS) -> float:
    """Return the moment of a wall clock in Berlin."""
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
        """Put a message into it."""
        about = None if event == "digest" else self.job_id
        title = f"lq: n (job 1) {event}"
        new = NewMessage(job_id=about, event=event, key=f"{event}-{moment}", title=title, body=body or event)
        row = self.store.outbox.add(new, moment)
        assert row is not None
        return row

    def deliver(self, moment: float) -> None:
        """Deliver what is due at a moment, as the worker's tick has it."""
        when = Moment(now=moment, jitter=0.0, quiet=self.quiet, zone=BERLIN)
        for row in self.store.outbox.due(moment):
            deliver(row.id, store=self.store, notifier=Notifier(self.services, timeout_s=5.0), when=when)

    def settled(self) -> list[tuple[str, str | None, dict[str, str]]]:
        """Return what became of each message."""
        return [
            (row.event, row.settled, {one.service: one.last_result for one in row.services})
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
    return [document["title"] for document in endpoint.documents]


def test_a_job_that_dies_again_and_again_is_told_at_once_and_then_counted(outbox: Outbox) -> None:
    with Endpoint() as phone:
        outbox.services = (service(phone, "phone"),)
        for minute in (10, 14, 18, 22):
            outbox.write("recovered", at(f"04:{minute}"), f"death of {minute}")
            outbox.deliver(at(f"04:{minute}"))
        outbox.deliver(at("04:24"))
        assert titles(phone) == ["lq: n (job 1) recovered"]
        outbox.deliver(at("04:25"))
        outbox.deliver(at("05:30"))
        assert titles(phone)[1:] == ["lq: n (job 1) recovered (4 times since 04:10)"]
        lines = phone.documents[1]["message"].splitlines()
        assert lines == ["death of 22", "before that:", "04:18 death of 18", "04:14 death of 14", "04:10 death of 10"]
        outbox.write("recovered", at("05:31"))
        outbox.deliver(at("05:31"))
        assert titles(phone)[2:] == ["lq: n (job 1) recovered"], "an hour later it is told at once"
    assert [settled for _, settled, _ in outbox.settled()] == [
        "delivered",
        "folded",
        "folded",
        "delivered",
        "delivered",
    ]


def test_hours_without_a_network_end_with_one_message_of_each_kind(outbox: Outbox) -> None:
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
    assert sorted(titles(phone)) == ["lq: n (job 1) needs_you", "lq: n (job 1) recovered (3 times since 01:00)"]


def test_what_was_on_the_way_is_not_told_after_the_end(outbox: Outbox) -> None:
    with Endpoint() as phone, Endpoint() as log:
        outbox.services = (service(phone, "phone"), service(log, "log", on=("recovered",)))
        for minute in (10, 12):
            outbox.write("recovered", at(f"04:{minute}"))
            outbox.deliver(at(f"04:{minute}"))
        outbox.write("finished", at("04:15"))
        outbox.deliver(at("04:15"))
        outbox.deliver(at("04:30"))
    assert titles(phone) == ["lq: n (job 1) recovered", "lq: n (job 1) finished"]
    assert titles(log) == ["lq: n (job 1) recovered", "lq: n (job 1) recovered (2 times since 04:10)"]
    assert outbox.settled()[1] == (
        "recovered",
        "delivered",
        {"phone": "included in the final message", "log": "delivered"},
    )


def test_at_night_only_what_is_urgent_is_sent_and_the_rest_in_the_morning(outbox: Outbox) -> None:
    outbox.quiet = NIGHT
    with Endpoint() as phone:
        outbox.services = (service(phone, "phone"),)
        for event, hour in (("recovered", "23:30"), ("failed", "23:40"), ("needs_you", "23:50")):
            outbox.write(event, at(hour, date(2026, 10, 24)))
            outbox.deliver(at(hour, date(2026, 10, 24)))
        outbox.write("recovered", at("02:30"))
        outbox.deliver(at("02:30"))
        outbox.deliver(at("06:59"))
        assert titles(phone) == ["lq: n (job 1) needs_you"]
        held = [row.next_try_at for row in outbox.store.outbox.messages() if row.settled is None]
        assert held == [at("07:00")] * 3, "the night in which the clocks went back"
        outbox.deliver(at("07:00"))
    # the end of the job tells of the death before it; the death after it is told for itself
    assert titles(phone)[1:] == ["lq: n (job 1) failed", "lq: n (job 1) recovered"]


def test_the_digest_tells_what_the_night_held_back_to_whoever_hears_it(outbox: Outbox) -> None:
    outbox.quiet = NIGHT
    with Endpoint() as phone, Endpoint() as mail:
        outbox.services = (service(phone, "phone"), service(mail, "mail", on=("finished",)))
        outbox.write("recovered", at("02:10"))
        outbox.write("finished", at("05:00"))
        outbox.deliver(at("05:00"))
        outbox.write("digest", at("07:00"))
        outbox.deliver(at("07:00"))
    assert titles(phone) == ["lq: n (job 1) digest"], "one message in the morning"
    assert titles(mail) == ["lq: n (job 1) finished"]
    assert outbox.settled() == [
        ("recovered", "folded", {"phone": "included in the final message"}),
        ("finished", "delivered", {"phone": "included in the digest", "mail": "delivered"}),
        ("digest", "delivered", {"phone": "delivered"}),
    ]


def test_the_digest_comes_at_its_hour_even_where_that_is_quiet(outbox: Outbox) -> None:
    outbox.quiet = NIGHT
    with Endpoint() as phone:
        outbox.services = (service(phone, "phone"),)
        outbox.write("digest", at("06:30"))
        outbox.deliver(at("06:30"))
        assert len(phone.received) == 1


def test_a_day_of_tries_begins_when_the_quiet_hours_end(outbox: Outbox) -> None:
    outbox.quiet = time_windows.parse_window("08:00-07:00")
    outbox.services = (service(free_address(), "phone"),)
    outbox.write("finished", at("08:30"))
    moment, rows = at("08:30"), outbox.store.outbox.messages()
    while rows[0].settled is None:
        outbox.deliver(moment)
        rows = outbox.store.outbox.messages()
        moment = rows[0].next_try_at or moment
    assert rows[0].settled == "gave_up"
    # it could be sent for an hour in the morning, all of which it tried, and the last time when the day was over
    assert moment == at("07:00", date(2026, 10, 27))
    assert rows[0].services[0].tries > 5


def test_only_the_service_that_failed_is_tried_again_and_nothing_is_counted_twice(outbox: Outbox) -> None:
    with Endpoint() as phone, Endpoint(500, 500, 200) as mail:
        outbox.services = (service(phone, "phone"), service(mail, "mail"))
        outbox.write("recovered", at("04:00"), "first")
        outbox.deliver(at("04:00"))
        outbox.write("recovered", at("05:00"), "second")
        outbox.deliver(at("05:00"))
        outbox.deliver(at("05:30"))
    assert titles(phone) == ["lq: n (job 1) recovered"] * 2
    assert [document["message"] for document in mail.documents] == ["first", "first", "second", "first"]


def test_a_secret_of_the_keyring_is_put_in_when_it_is_sent(tmp_path: Path) -> None:
    import keyring
    from keyrings.alt.file import PlaintextKeyring

    backend = PlaintextKeyring()  # type: ignore[no-untyped-call]
    backend.file_path = str(tmp_path / "keyring.cfg")
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        with Endpoint() as phone:
            keyring.set_password("lq", "phone", phone.address)
            found = Service(url=SecretStr("json://${keyring:lq/phone}/hook"), name="phone")
            missing = Service(url=SecretStr("json://${keyring:lq/hush}/hook"), name="mail")
            results = apprise_sender.test_services(Notifier([found, missing]))
    finally:
        keyring.set_keyring(before)
    assert [(one.service, one.last_result) for one in results] == [
        ("phone", "delivered"),
        ("mail", "its secret is not in the keyring"),
    ]
    assert phone.received[0][0] == "/hook"


@pytest.mark.skipif(sys.platform == "darwin", reason="a stand-in for notify-send; that for osascript is a unit test's")
def test_the_desktop_is_one_more_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "notify-send"
    said = tmp_path / "said.json"
    command.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(said)!r}, 'w'))\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    screen = Service(url=SecretStr("desktop://"), name="desktop", tags=("desktop",))
    (result,) = apprise_sender.test_services(Notifier([screen]))
    assert (result.service, result.last_result) == ("desktop", "delivered")
    assert json.loads(said.read_text())[-2:] == [
        "lq: test",
        "This is what a notification from lq looks like. Nothing has happened.",
    ]
    command.unlink()
    (result,) = apprise_sender.test_services(Notifier([screen]))
    assert (result.delivered, result.last_result) == (False, "notify-send is not installed")
