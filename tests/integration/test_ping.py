"""The dead-man switch: what a ping says of each kind of service, and that beats neither pile up nor come too often."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from orchestrator.notify import heartbeat as room
from orchestrator.notify.heartbeat import Pinger, ping
from tests.integration.loopback import Endless, Endpoint, address, free_address, hanging_up, listening, until


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    until(lambda: not _pings())


def _pings() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lq-ping"]


def test_each_kind_of_service_is_answered_in_a_word() -> None:
    with Endpoint() as good, Endpoint(404) as gone, hanging_up() as rude, listening() as mute:
        places = {
            f"http://{good.address}/check?x=1": "answered",
            f"http://me:pass%40word@{good.address}/": "answered",
            f"http://{gone.address}/": "answered 404",
            f"http://{rude}/": "failed",
            f"http://{address(mute)}/": "timed out",
            f"http://{free_address()}/": "refused",
            f"https://{good.address}/": "not trusted",
            "http://[": "failed",
            "ftp://127.0.0.1/": "not understood",
            "http://127.0.0.1/with blank": "failed",
        }
        assert {place: ping(SecretStr(place), timeout_s=0.5) for place in places} == places
    assert [path for path, _ in good.received] == ["/check?x=1", "/"]


def test_beats_come_at_most_once_a_minute() -> None:
    with Endpoint() as switch:
        pinger = Pinger()
        for _ in range(5):
            pinger.beat(SecretStr(f"http://{switch.address}/"))
        until(lambda: bool(switch.received) and not _pings())
        pinger.beat(SecretStr(f"http://{switch.address}/"))
        assert len(switch.received) == 1


def test_a_beat_never_waits_and_never_piles_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_PAUSE_S", 0.0)
    with Endless() as switch:
        pinger = Pinger()
        for _ in range(50):
            pinger.beat(SecretStr(f"http://{switch.address}/"))
        assert len(_pings()) == 1


def test_the_log_hears_of_a_change_and_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "LEAST_PAUSE_S", 0.0)
    caplog.set_level(logging.INFO)
    with Endpoint(200, 500, 500, 200) as switch:
        pinger = Pinger()
        for number in range(1, 5):
            pinger.beat(SecretStr(f"http://{switch.address}/hush"))
            until(lambda number=number: len(switch.received) == number and not _pings())  # type: ignore[misc]
    said = [record.getMessage() for record in caplog.records if record.name == "lq.ping"]
    assert said == ["the ping: answered 500", "the ping: answered"]
