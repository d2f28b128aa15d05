"""The heartbeat: the result of a ping for each kind of service, and the rate of pings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from orchestrator.notify import heartbeat
from orchestrator.notify.heartbeat import Pinger, ping
from tests.harness import until
from tests.integration.loopback import Endless, Endpoint, address, free_address, hanging_up, listening


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    until(lambda: not _pings(), "the pings to end")


def _pings() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lq-ping"]


def test_ping_results() -> None:
    with Endpoint() as good, Endpoint(404) as gone, hanging_up() as rude, listening() as mute:
        places = {
            f"http://{good.address}/check?x=1": "answered",
            f"http://me:pass%40word@{good.address}/": "answered",
            f"http://{gone.address}/": "HTTP status 404",
            f"http://{rude}/": "connection closed",
            f"http://{address(mute)}/": "timed out",
            f"http://{free_address()}/": "connection refused",
            f"https://{good.address}/": "certificate not trusted",
            "http://name.invalid/": "host name not found",
            "http://[": "failed",
            "ftp://127.0.0.1/": "not understood",
            "http://127.0.0.1/with blank": "failed",
        }
        assert {place: ping(SecretStr(place), timeout_s=0.5) for place in places} == places
    assert [path for path, _ in good.received] == ["/check?x=1", "/"]


def test_redirect_gets_no_password() -> None:
    with Endpoint() as other, Endpoint(302, headers={"Location": f"{other.url}/there"}) as first:
        assert ping(SecretStr(f"http://me:word@{first.address}/")) == "answered"
    assert first.authorizations == ["Basic bWU6d29yZA=="]
    assert other.authorizations == [None]


def test_one_ping_a_minute() -> None:
    with Endpoint() as switch:
        pinger = Pinger()
        for _ in range(5):
            pinger.beat(SecretStr(f"http://{switch.address}/"))
        until(lambda: bool(switch.received) and not _pings(), "the ping to end")
        pinger.beat(SecretStr(f"http://{switch.address}/"))
        assert len(switch.received) == 1


def test_beat_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "LEAST_PAUSE_S", 0.0)
    with Endless() as switch:
        pinger = Pinger()
        for _ in range(50):
            pinger.beat(SecretStr(f"http://{switch.address}/"))
        assert len(_pings()) == 1


def test_only_changes_are_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(heartbeat, "LEAST_PAUSE_S", 0.0)
    caplog.set_level(logging.INFO)
    with Endpoint(200, 500, 500, 200) as switch:
        pinger = Pinger()
        for number in range(1, 5):
            pinger.beat(SecretStr(f"http://{switch.address}/hush"))
            until(lambda: len(switch.received) == number and not _pings(), "the ping to end")  # noqa: B023
    logged = [record.getMessage() for record in caplog.records if record.name == "lq.heartbeat"]
    assert logged == ["the ping: HTTP status 500", "the ping: answered"]
