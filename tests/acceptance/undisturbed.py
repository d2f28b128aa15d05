"""The run that nothing disturbs: what every other run of the same job must come to, and what a user finds after it."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.harness import FIRST_EVER_S, Lq, Result, Training, Workshop, result, until

SECRETS = ("hush-user", "hush-word", "hush-path", "hush-token", "hush-ping")
"""Stand in the URLs of the notification services, and in that of the dead-man switch."""

REFUSED = "/refused"
"""Posts to paths that begin so are answered with 500."""


PROMPT = "What is 2 plus 3?"
"""Answered before and after; it changes nothing of the result."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A run that succeeded, in a home whose worker still lives."""

    lq: Lq
    training: Training
    result: Result
    received: list[dict[str, Any]]  # by the service that takes what it is sent

    def message(self) -> dict[str, Any]:
        """Return the job's message, as soon as both services have been tried."""

        def tried() -> dict[str, Any] | None:
            (message,) = self.training.facts()["messages"]
            found: dict[str, Any] = message
            return found if len(found["services"]) == 2 else None

        return until(tried, "the notification to be tried")


@contextmanager
def lived_through(folder: Path, workshop: Workshop) -> Iterator[Undisturbed]:
    """Run the usual job in a home of its own, with one service that listens and one that refuses."""
    lq = Lq(folder / "home")
    with _inbox() as (port, received):
        phone = f"json://{SECRETS[0]}:{SECRETS[1]}@127.0.0.1:{port}/{SECRETS[2]}?+X-Token={SECRETS[3]}"
        broken = f"json://127.0.0.1:{port}{REFUSED}/{SECRETS[2]}"
        services = [{"url": phone, "name": "phone"}, {"url": broken, "name": "broken"}]
        lq.settings(notify={"services": services, "ping": f"http://127.0.0.1:{port}{REFUSED}/{SECRETS[4]}"})
        try:
            training = lq.submit(workshop.job_file(folder / "usual.yaml", lq={"prompts": [PROMPT]}))
            training.wait(seconds=FIRST_EVER_S)
            yield Undisturbed(lq=lq, training=training, result=result(training), received=received)
        finally:
            lq.leave()


@contextmanager
def _inbox() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Serve an endpoint on the loopback that keeps what it accepts."""
    received: list[dict[str, Any]] = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            refused = self.path.startswith(REFUSED)
            if not refused:
                received.append(document)
            self.send_response(500 if refused else 200)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(500)  # the dead-man switch; what fails is what gets logged
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the name http.server gives it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Inbox)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
