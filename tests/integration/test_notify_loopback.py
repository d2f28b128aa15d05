"""Notifications over real sockets: content, retries, and no leak of URLs."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiosmtpd.controller import Controller
from pydantic import SecretStr

from configs.settings import Service
from jobs.model.job import Message, NewMessage, ServiceResult
from jobs.model.spec import JobSpec, NotifyEvent
from orchestrator.notify import apprise_sender
from orchestrator.notify.apprise_sender import Notifier
from orchestrator.notify.outbox_worker import DeliveryTime, deliver
from orchestrator.store.store import Store
from tests.harness import until
from tests.integration.loopback import Endpoint, Mailbox, address, free_address, hanging_up, listening

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
NOON = 1_800_000_000.0
DAY_S = 24 * 3600.0
SECRETS = ("hush-user", "hush-word", "hush-path", "hush-header", "hush-topic", "hush-scheme", "127.0.0.1")


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    until(lambda: not any(thread.name == "lq-notify" for thread in threading.enumerate()), "the threads to end")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "lq.db") as opened:
        yield opened


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "loss, 100%?.png"
    path.write_bytes(PNG)
    return path


def service(url: str, *, name: str | None = None, on: tuple[NotifyEvent, ...] | None = None) -> Service:
    return Service(url=SecretStr(url), name=name, tags=(), on=on)


def message(*, attachment: Path | None = None, event: str = "finished") -> Message:
    return Message(
        id=1,
        job_id=None,
        event=event,
        key="k",
        title="job 1 <tiny> finished",
        body="val loss 1.25\nreport: /tmp/a_b_c.md",
        attachment=None if attachment is None else str(attachment),
        tags=None,
        created_at=NOON,
        next_try_at=NOON,
        settled=None,
        services=(),
    )


def posted(store: Store, *, key: str = "1-finished", event: str = "finished", job_id: int | None = None) -> int:
    new = NewMessage(job_id=job_id, event=event, key=key, title="job 1 finished", body="val loss 1.25")
    row = store.outbox.add(new, NOON)
    assert row is not None
    return row.id


def submitted(store: Store, tmp_path: Path, **lq_notify: Any) -> int:
    spec = JobSpec.model_validate({"lq": {"notify": lq_notify}})
    job = store.jobs.submit(
        name="tiny",
        priority=0,
        iters=10,
        spec_json=spec.model_dump_json(),
        prepare=lambda job_id: tmp_path / str(job_id),
        now=NOON,
    )
    return job.id


def deliver_at(store: Store, message_id: int, now: float, *services: Service, timeout_s: float = 10.0) -> Message:
    notifier = Notifier(services, timeout_s=timeout_s)
    return deliver(message_id, store=store, notifier=notifier, when=DeliveryTime(now=now, jitter=0))


def last_results(row: Message) -> dict[str, str]:
    return {result.service: result.last_result for result in row.services}


def test_json_message_has_all_parts(picture: Path) -> None:
    with Endpoint() as endpoint:
        notifier = Notifier([service(f"json://{endpoint.address}/hook")])
        results = notifier.send(message(attachment=picture), ["json 1"])
    assert results == (ServiceResult(service="json 1", delivered=True, tries=1, last_result="delivered"),)
    (document,) = endpoint.documents
    assert document["title"] == "job 1 <tiny> finished"
    assert document["message"] == "val loss 1.25\nreport: /tmp/a_b_c.md"
    assert document["type"] == "success"
    (attachment,) = document["attachments"]
    assert attachment["filename"] == picture.name
    assert base64.b64decode(attachment["base64"]) == PNG


def test_form_and_ntfy_get_the_picture(picture: Path) -> None:
    with Endpoint() as form, Endpoint() as ntfy:
        notifier = Notifier([service(f"form://{form.address}/"), service(f"ntfy://{ntfy.address}/night")])
        results = notifier.send(message(attachment=picture), ["form 1", "ntfy 2"])
    assert [result.delivered for result in results] == [True, True]
    assert b"val loss 1.25" in form.received[0][1]
    assert PNG in form.received[0][1]
    path, body = ntfy.received[0]
    assert path.startswith("/night?")
    assert body == PNG


def test_mail_has_text_and_picture(picture: Path) -> None:
    mailbox = Mailbox()
    port = free_address().rpartition(":")[2]
    controller = Controller(mailbox, hostname="127.0.0.1", port=int(port))
    controller.start()
    try:
        url = f"mailto://127.0.0.1:{port}/?from=lq@example.com&to=me@example.com&mode=insecure"
        results = Notifier([service(url)]).send(message(attachment=picture), ["mailto 1"])
    finally:
        controller.stop()
    assert [result.last_result for result in results] == ["delivered"]
    (mail,) = mailbox.mails
    assert mail["Subject"] == "job 1 <tiny> finished"
    text = mail.get_body(("plain",))
    assert text is not None
    assert text.get_content().splitlines()[:2] == ["val loss 1.25", "report: /tmp/a_b_c.md"]
    (attached,) = mail.iter_attachments()
    assert attached.get_content_type() == "image/png"
    assert attached.get_content() == PNG


@pytest.mark.parametrize("size", [None, 0, 5 * 1024 * 1024])
def test_unusable_picture_is_left_out(tmp_path: Path, size: int | None) -> None:
    picture = tmp_path / "loss.png"
    if size is not None:
        picture.write_bytes(bytes(size))
    with Endpoint() as endpoint:
        results = Notifier([service(f"json://{endpoint.address}")]).send(message(attachment=picture), ["json 1"])
    assert results[0].delivered
    assert endpoint.documents[0]["attachments"] == []


def test_failing_services() -> None:
    with Endpoint(500) as broken, hanging_up() as rude, Endpoint(401) as locked:
        places = {
            f"json://{free_address()}": "connection refused",
            f"json://{broken.address}": "HTTP status 500",
            f"json://{rude}": "connection closed",
            f"ntfy://{locked.address}/topic": "HTTP status 401",
            f"ntfy://{free_address()}/topic": "connection refused",
            f"jsons://{locked.address}": "certificate not trusted",
            "form://name.invalid/": "host name not found",
            f"mailto://{free_address()}/?from=a@example.com&to=b@example.com&mode=insecure": "connection refused",
        }
        notifier = Notifier([service(url, name=url.replace("://", " ")) for url in places])
        results = notifier.send(message(), [url.replace("://", " ") for url in places])
    assert [(result.delivered, result.last_result) for result in results] == [(False, one) for one in places.values()]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ntyf://x", "not understood: no service ntyf://; did you mean ntfy://?"),
        ("tgrm://x", "not understood: no service tgrm://; did you mean tgram://?"),
        ("qqqqqqqq://x", "not understood: no service qqqqqqqq://"),
        ("mailto://hush-user:hush-word@", "not understood: the part after mailto:// is not valid for this service"),
    ],
)
def test_unknown_service_suggests_one(url: str, reason: str) -> None:
    (result,) = apprise_sender.send_test(Notifier([service(url)]))
    assert (result.delivered, result.last_result) == (False, reason)


def test_picture_is_closed_after_failure(picture: Path) -> None:
    with hanging_up() as rude:
        Notifier([service(f"ntfy://{rude}/night")]).send(message(attachment=picture), ["ntfy 1"])
    assert str(picture) not in [file.path for file in psutil.Process().open_files()]


def test_optional_service_counts_as_failed() -> None:
    results = Notifier([service(f"json://{free_address()}/?optional=yes")]).send(message(), ["json 1"])
    assert results[0].last_result == "connection refused"


@pytest.mark.parametrize("kind", ["json", "mailto"])
def test_silent_server_times_out(kind: str) -> None:
    with listening() as mute, Endpoint() as endpoint:
        options = "?from=lq@example.com&to=me@example.com&mode=insecure" if kind == "mailto" else ""
        services = [service(f"{kind}://{address(mute)}/{options}"), service(f"json://{endpoint.address}")]
        results = Notifier(services, timeout_s=1.0).send(message(), [f"{kind} 1", "json 2"])
    assert [result.last_result for result in results] == ["timed out", "delivered"]


def test_only_named_services_are_sent() -> None:
    with Endpoint() as first, Endpoint() as second:
        services = [service(f"json://{first.address}", name="desk"), service(f"json://{second.address}", name="phone")]
        results = Notifier(services).send(message(), ["phone", "nobody"])
    assert [result.service for result in results] == ["phone"]
    assert first.received == []
    assert len(second.received) == 1


def test_send_test_reaches_every_service() -> None:
    with Endpoint() as endpoint:
        services = [service(f"json://{endpoint.address}", on=("failed",)), service("nonsense://")]
        results = apprise_sender.send_test(Notifier(services))
    assert [(result.service, result.last_result) for result in results] == [
        ("json 1", "delivered"),
        ("nonsense 2", "not understood: no service nonsense://"),
    ]
    assert endpoint.documents[0]["title"] == "lq: test"


def test_only_failed_service_is_tried_again(store: Store) -> None:
    row_id = posted(store)
    with Endpoint(500, 503) as flaky, Endpoint() as good:
        services = (service(f"json://{flaky.address}"), service(f"json://{good.address}"))
        first = deliver_at(store, row_id, NOON, *services)
        assert (first.settled, first.next_try_at) == (None, NOON + 30)
        assert last_results(first) == {"json 1": "HTTP status 500", "json 2": "delivered"}
        second = deliver_at(store, row_id, NOON + 30, *services)
        assert (second.settled, second.next_try_at) == (None, NOON + 30 + 60)
        third = deliver_at(store, row_id, NOON + 90, *services)
    assert (third.settled, third.next_try_at) == ("delivered", None)
    assert {result.service: result.tries for result in third.services} == {"json 1": 3, "json 2": 1}
    assert (len(flaky.received), len(good.received)) == (3, 1)


def test_early_delivery_sends_nothing(store: Store) -> None:
    row_id = posted(store)
    with Endpoint(500) as endpoint:
        target = service(f"json://{endpoint.address}")
        deliver_at(store, row_id, NOON, target)
        deliver_at(store, row_id, NOON + 29, target)
        assert len(endpoint.received) == 1
        deliver_at(store, row_id, NOON + 30, target)
        deliver_at(store, row_id, NOON + 3000, target)
    assert len(endpoint.received) == 2


def test_concurrent_deliveries_send_once(store: Store) -> None:
    row_id = posted(store)
    with Endpoint() as endpoint:
        notifier = Notifier([service(f"json://{endpoint.address}")])
        tasks = [
            threading.Thread(
                target=deliver,
                args=(row_id,),
                kwargs={"store": store, "notifier": notifier, "when": DeliveryTime(now=NOON, jitter=0)},
            )
            for _ in range(4)
        ]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
    assert len(endpoint.received) == 1
    assert store.outbox.get(row_id).settled == "delivered"


def test_message_without_audience_is_settled(store: Store) -> None:
    row = deliver_at(store, posted(store), NOON, service("json://127.0.0.1:9", on=("failed",)))
    assert (row.settled, row.next_try_at, row.services) == ("nobody", None, ())


def test_gives_up_after_a_day(store: Store) -> None:
    row_id = posted(store)
    gone = service(f"json://{free_address()}")
    now, row = NOON, store.outbox.get(row_id)
    while row.settled is None:
        row = deliver_at(store, row_id, now, gone)
        now = row.next_try_at or now
    assert row.settled == "gave_up"
    assert now == NOON + DAY_S
    assert row.services[0].tries > 24


def test_message_is_sent_after_days_of_sleep(store: Store) -> None:
    row_id = posted(store)
    with Endpoint() as endpoint:
        row = deliver_at(store, row_id, NOON + 5 * DAY_S, service(f"json://{endpoint.address}"))
    assert row.settled == "delivered"


def test_removed_service_is_settled(store: Store) -> None:
    row_id = posted(store)
    with Endpoint() as endpoint:
        good = service(f"json://{endpoint.address}", name="desk")
        deliver_at(store, row_id, NOON, good, service(f"json://{free_address()}", name="phone"))
        row = deliver_at(store, row_id, NOON + 30, good)
    assert row.settled == "delivered"
    assert last_results(row) == {"desk": "delivered", "phone": "no longer configured"}


def test_corrected_url_gets_the_message(store: Store) -> None:
    row_id = posted(store)
    row = deliver_at(store, row_id, NOON, service("jsn://127.0.0.1", name="desk"))
    assert last_results(row) == {"desk": "not understood: no service jsn://; did you mean json://?"}
    with Endpoint() as endpoint:
        row = deliver_at(store, row_id, NOON + 30, service(f"json://{endpoint.address}", name="desk"))
    assert row.settled == "delivered"
    assert row.services[0].tries == 2


def test_started_message_on_request(store: Store, tmp_path: Path) -> None:
    asking, silent = submitted(store, tmp_path, on=["started"]), submitted(store, tmp_path)
    with Endpoint() as endpoint:
        target = service(f"json://{endpoint.address}")
        sent = deliver_at(store, posted(store, key="a", event="started", job_id=asking), NOON, target)
        unsent = deliver_at(store, posted(store, key="b", event="started", job_id=silent), NOON, target)
    assert (sent.settled, unsent.settled) == ("delivered", "nobody")
    assert endpoint.documents[0]["type"] == "info"


def test_urls_stay_secret(
    store: Store,
    picture: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(1)
    new = NewMessage(
        job_id=None, event="finished", key="k", title="job 1 finished", body="done", attachment=str(picture)
    )
    row = store.outbox.add(new, NOON)
    assert row is not None
    with Endpoint(500) as broken, Endpoint() as good, hanging_up() as rude, listening() as mute:
        urls = [
            f"json://hush-user:hush-word@{broken.address}/hush-path?+X-Token=hush-header",
            f"ntfy://hush-user:hush-word@{good.address}/hush-topic",
            f"form://hush-user:hush-word@{rude}/hush-path",
            f"ntfy://{address(mute)}/hush-topic",
            f"json://hush-user:hush-word@{free_address()}/hush-path",
            "hush-scheme://hush-user:hush-word@127.0.0.1/hush-path",
            "mailto://hush-user:hush-word@",
        ]
        notifier = Notifier([service(url) for url in urls], timeout_s=1.0)
        row = deliver(row.id, store=store, notifier=notifier, when=DeliveryTime(now=NOON, jitter=0))
    assert [one.partition(":")[0] for one in last_results(row).values()] == [
        "HTTP status 500", "delivered", "connection closed", "timed out", "connection refused", "not understood",
        "not understood",
    ]  # fmt: skip
    until(lambda: not any(thread.name == "lq-notify" for thread in threading.enumerate()), "the threads to end")
    logged = "\n".join(f"{record.name} {record.getMessage()} {record.args}" for record in caplog.records)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("lq.db*")).decode(errors="replace")
    written = "".join(capfd.readouterr())
    for text in (logged, stored, written, repr(row), repr(notifier), repr(notifier.services)):
        assert [secret for secret in SECRETS if secret in text] == []


def test_libraries_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    with Endpoint() as endpoint:
        Notifier([service(f"json://{endpoint.address}/hush-path")]).send(message(), ["json 1"])
    assert len(endpoint.received) == 1
    loud = [record.name for record in caplog.records if record.name.split(".")[0] in ("apprise", "urllib3", "requests")]
    assert loud == []
    assert not logging.getLogger("apprise").isEnabledFor(logging.CRITICAL)
