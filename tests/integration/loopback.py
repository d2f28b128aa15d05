"""Servers on 127.0.0.1 that answer, refuse, do not answer, do not end, hang up, or receive mail."""

from __future__ import annotations

import contextlib
import email
import email.message
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.policy import default as modern
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """A web server that records requests and answers with the given status codes, then `always`."""

    def __init__(self, *answers: int, always: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.answers = list(answers)
        self.authorizations: list[str | None] = []  # header of each request
        self.received: list[tuple[str, bytes]] = []  # path with query, body
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                endpoint.received.append((self.path, body))
                endpoint.authorizations.append(self.headers.get("Authorization"))
                self.send_response(endpoint.answers.pop(0) if endpoint.answers else always)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_HEAD = do_POST  # noqa: N815 - the names http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name http.server calls
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Run a server that accepts connections and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


class Endless:
    """A server that sends one answer byte by byte and never completes its first line.

    No time limit between two bytes ends such a request: the client waits until the test hangs up, on any machine.
    """

    def __init__(self) -> None:
        self.request = b""
        self.asked = threading.Event()
        self._over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._answer, name="lq-test-endless")
        self.address = address(self._server)

    def _answer(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone, or none connected
            connection, _ = self._server.accept()
            with connection:
                self.request = connection.recv(1000)
                self.asked.set()
                connection.sendall(b"HTTP/1.1 ")
                while not self._over.wait(0.1):
                    connection.sendall(b"a")

    def hang_up(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):  # called before
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def __enter__(self) -> Endless:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._server.close()


@contextmanager
def hanging_up() -> Iterator[str]:
    """Run a server that closes every connection immediately."""

    def close_all(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.close()

    with listening() as server:
        thread = threading.Thread(target=close_all, args=(server,))
        thread.start()
        try:
            yield address(server)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


class Mailbox:
    """A mail server that records mails."""

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        mail = email.message_from_bytes(envelope.content, policy=modern)
        assert isinstance(mail, email.message.EmailMessage)
        self.mails.append(mail)
        return "250 OK"


def address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def free_address() -> str:
    with listening() as server:
        return address(server)
