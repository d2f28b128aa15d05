"""Who hears an event, what services are called, and when a message is tried again."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from configs.settings import Service
from jobs.model.job import ServiceResult
from jobs.model.spec import NotifyEvent
from jobs.policies.delivery import GIVE_UP_AFTER_S, NO_LONGER_CONFIGURED, next_try
from orchestrator.notify import apprise_sender, routing

DAY_S = 24 * 3600.0


def service(
    url: str = "json://127.0.0.1",
    *,
    name: str | None = None,
    tags: tuple[str, ...] = (),
    on: tuple[NotifyEvent, ...] | None = None,
) -> Service:
    return Service(url=SecretStr(url), name=name, tags=tags, on=on)


def result(*, delivered: bool = False, tries: int = 1, last: str = "failed", name: str = "json 1") -> ServiceResult:
    return ServiceResult(service=name, delivered=delivered, tries=tries, last_result=last)


@pytest.mark.parametrize(
    ("service_on", "job_on", "heard"),
    [
        (None, None, {"recovered", "spike_handled", "needs_you", "deadline", "failed", "finished"}),
        (("started", "failed"), None, {"started", "failed"}),
        (None, ("started",), {"started"}),
        (("failed", "finished"), ("started", "finished"), {"finished"}),
        ((), None, set()),
        (None, (), set()),
    ],
)
def test_a_service_hears_what_it_and_the_job_both_want(
    service_on: tuple[NotifyEvent, ...] | None, job_on: tuple[NotifyEvent, ...] | None, heard: set[str]
) -> None:
    services = [service(on=service_on)]
    events = get_args(NotifyEvent)
    assert {event for event in events if routing.wants(services, event, job_on=job_on, job_tags=None)} == heard


@pytest.mark.parametrize(
    ("job_tags", "heard"),
    [
        (None, ["phone", "mail", "wall"]),
        (("phone",), ["phone"]),
        (("phone", "loud"), ["phone", "mail"]),
        (("nowhere",), []),
        ((), []),
    ],
)
def test_a_job_with_tags_reaches_only_services_with_one_of_them(
    job_tags: tuple[str, ...] | None, heard: list[str]
) -> None:
    services = [
        service(name="phone", tags=("phone",)),
        service(name="mail", tags=("mail", "loud")),
        service(name="wall"),
    ]
    assert routing.wants(services, "finished", job_on=None, job_tags=job_tags) == heard


def test_a_nameless_service_is_called_by_its_kind_and_place_only() -> None:
    services = [
        service("ntfys://hush-topic"),
        service("JSON://user:hush-word@hush-host/hush-path?+X=hush"),
        service("hush_word://hush-host"),
        service("mail://hush", name="post"),
        service("ntfy://other"),
    ]
    assert routing.service_names(services) == ("ntfys 1", "json 2", "service 3", "post", "ntfy 5")


def test_two_services_never_share_a_name() -> None:
    services = [service(name="phone"), service(name="phone"), service(name="json 4"), service()]
    names = routing.service_names(services)
    assert len(set(names)) == 4
    assert names[:3] == ("phone", "phone (2)", "json 4")


@pytest.mark.parametrize(("tries", "minutes"), [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (8, 30), (5000, 30)])
def test_the_pause_between_tries_doubles_up_to_half_an_hour(tries: int, minutes: float) -> None:
    then = next_try([result(tries=tries)], first_try=0, now=1000, jitter=0)
    assert then.settled is None
    assert then.at == 1000 + minutes * 60


def test_jitter_spreads_the_next_try_by_up_to_a_tenth() -> None:
    assert next_try([result()], first_try=0, now=0, jitter=1).at == pytest.approx(33)


def test_the_last_try_falls_at_24_hours_and_then_it_gives_up() -> None:
    assert GIVE_UP_AFTER_S == DAY_S
    failed = [result(tries=40)]
    assert next_try(failed, first_try=100, now=100 + DAY_S - 5, jitter=0).at == 100 + DAY_S
    assert next_try(failed, first_try=100, now=100 + DAY_S, jitter=0).settled == "gave_up"


@pytest.mark.parametrize(
    ("results", "settled"),
    [
        ([], "nobody"),
        ([result(last=NO_LONGER_CONFIGURED)], "nobody"),
        ([result(delivered=True, last="delivered")], "delivered"),
        ([result(delivered=True, last="delivered"), result(name="b", last=NO_LONGER_CONFIGURED)], "delivered"),
        ([result(delivered=True, last="delivered"), result(name="b")], None),
    ],
)
def test_a_message_is_settled_when_nobody_is_owed_it(results: list[ServiceResult], settled: str | None) -> None:
    then = next_try(results, first_try=0, now=10, jitter=0)
    assert then.settled == settled
    assert (then.at is None) == (settled is not None)


@given(
    tries=st.integers(1, 10_000),
    age=st.floats(0, 3 * DAY_S),
    jitter=st.floats(0, 1),
)
def test_every_failed_try_leads_to_a_later_one_or_to_an_end(tries: int, age: float, jitter: float) -> None:
    then = next_try([result(tries=tries)], first_try=5e8, now=5e8 + age, jitter=jitter)
    if then.at is None:
        assert then.settled == "gave_up"
        assert age >= DAY_S - 1e-3
    else:
        assert 5e8 + age < then.at <= min(5e8 + DAY_S, 5e8 + age + 1.1 * 1800 + 1e-3)


@settings(deadline=None, max_examples=50)  # the first example loads every plugin
@given(scheme=st.sampled_from(["json", "mailto", "ntfy", "dbus", "windows", "slack", "x"]), rest=st.text(max_size=20))
def test_no_url_however_wrong_raises(scheme: str, rest: str) -> None:
    apprise_sender._target(service(f"{scheme}://{rest}"), 1.0)


def test_importing_the_room_does_not_load_apprise() -> None:
    code = "import sys, orchestrator.notify; sys.exit('apprise' in sys.modules or 'pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
