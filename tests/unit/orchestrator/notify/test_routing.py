"""Which services receive an event, and their names."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from configs.settings import Service
from jobs.model.spec import NotifyEvent
from orchestrator.notify import apprise_sender, routing


def service(
    url: str = "json://127.0.0.1",
    *,
    name: str | None = None,
    tags: tuple[str, ...] = (),
    on: tuple[NotifyEvent, ...] | None = None,
) -> Service:
    return Service(url=SecretStr(url), name=name, tags=tags, on=on)


@pytest.mark.parametrize(
    ("service_on", "job_on", "received"),
    [
        (None, None, {"recovered", "spike_handled", "needs_you", "deadline", "failed", "finished"}),
        (("started", "failed"), None, {"started", "failed"}),
        (None, ("started",), {"started"}),
        (("failed", "finished"), ("started", "finished"), {"finished"}),
        ((), None, set()),
        (None, (), set()),
    ],
)
def test_audience_by_events(
    service_on: tuple[NotifyEvent, ...] | None, job_on: tuple[NotifyEvent, ...] | None, received: set[str]
) -> None:
    services = [service(on=service_on)]
    events = get_args(NotifyEvent)
    assert {event for event in events if routing.audience(services, event, job_on=job_on, job_tags=None)} == received


@pytest.mark.parametrize(
    ("job_tags", "names"),
    [
        (None, ["phone", "mail", "wall"]),
        (("phone",), ["phone"]),
        (("phone", "loud"), ["phone", "mail"]),
        (("nowhere",), []),
        ((), []),
    ],
)
def test_audience_by_tags(job_tags: tuple[str, ...] | None, names: list[str]) -> None:
    services = [
        service(name="phone", tags=("phone",)),
        service(name="mail", tags=("mail", "loud")),
        service(name="wall"),
    ]
    assert routing.audience(services, "finished", job_on=None, job_tags=job_tags) == names


def test_default_names_hide_urls() -> None:
    services = [
        service("ntfys://hush-topic"),
        service("JSON://user:hush-word@hush-host/hush-path?+X=hush"),
        service("hush_word://hush-host"),
        service("mail://hush", name="post"),
        service("ntfy://other"),
    ]
    assert routing.service_names(services) == ("ntfys 1", "json 2", "service 3", "post", "ntfy 5")


def test_service_names_are_unique() -> None:
    services = [service(name="phone"), service(name="phone"), service(name="json 4"), service()]
    names = routing.service_names(services)
    assert len(set(names)) == 4
    assert names[:3] == ("phone", "phone (2)", "json 4")


@settings(deadline=None, max_examples=50)  # the first example loads every plugin
@given(scheme=st.sampled_from(["json", "mailto", "ntfy", "dbus", "windows", "slack", "x"]), rest=st.text(max_size=20))
def test_invalid_urls_do_not_raise(scheme: str, rest: str) -> None:
    apprise_sender._target(service(f"{scheme}://{rest}"), 1.0, apprise_sender._Listener())
    assert apprise_sender._not_understood(scheme).startswith("not understood: ")


def test_import_does_not_load_apprise() -> None:
    code = "import sys, orchestrator.notify.publisher, orchestrator.notify.apprise_sender"
    subprocess.run([sys.executable, "-c", f"{code}; sys.exit('apprise' in sys.modules)"], check=True)
