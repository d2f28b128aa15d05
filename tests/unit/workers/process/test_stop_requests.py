"""The signals that a trainer handles, in a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHILD = """
import signal, sys
from workers.process.stop_requests import Requests, StopNow
requests = Requests()
requests.listen()
def say(text): print(text, flush=True)
def receive(): return sys.stdin.readline().strip()
try:
    {body}
except StopNow:
    say("stopped at once")
say(f"stop={{requests.stop}} snapshot={{requests.snapshot}}")
"""


@contextmanager
def child(body: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that handles the signals and runs `body`."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(body=body.replace("\n", "\n    "))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def rest(process: subprocess.Popen[str]) -> list[str]:
    """Let the process continue, and return its output."""
    out, _ = process.communicate("go\n", timeout=30)
    assert process.returncode == 0
    return out.split("\n")[:-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_waits_while_training(number: signal.Signals) -> None:
    with child("say('training'); receive()") as process:
        assert heard(process) == "training"
        process.send_signal(number)
        assert rest(process) == ["stop=True snapshot=False"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_loading_is_immediate(number: signal.Signals) -> None:
    with child("with requests.nothing_to_lose():\n    say('loading'); signal.pause(); say('not reached')") as process:
        assert heard(process) == "loading"
        process.send_signal(number)
        assert rest(process) == ["stopped at once", "stop=True snapshot=False"]


def test_earlier_stop_ends_loading() -> None:
    body = "say('training'); receive()\nwith requests.nothing_to_lose(): say('not reached')"
    with child(body) as process:
        assert heard(process) == "training"
        process.send_signal(signal.SIGTERM)
        assert rest(process) == ["stopped at once", "stop=True snapshot=False"]


def test_stop_waits_after_loading() -> None:
    body = "with requests.nothing_to_lose(): pass\nsay('training'); receive(); say('reached')"
    with child(body) as process:
        assert heard(process) == "training"
        process.send_signal(signal.SIGTERM)
        assert rest(process) == ["reached", "stop=True snapshot=False"]


def test_usr1_requests_snapshot() -> None:
    with child("with requests.nothing_to_lose():\n    say('loading'); receive(); say('reached')") as process:
        assert heard(process) == "loading"
        process.send_signal(signal.SIGUSR1)
        assert rest(process) == ["reached", "stop=False snapshot=True"]


def test_hup_is_ignored() -> None:
    with child("say('training'); receive(); say('reached')") as process:
        assert heard(process) == "training"
        process.send_signal(signal.SIGHUP)
        assert rest(process) == ["reached", "stop=False snapshot=False"]


def test_stop_at_exit_is_ignored() -> None:
    with child("requests.ignore_all(); say('done'); receive(); say('reached')") as process:
        assert heard(process) == "done"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            process.send_signal(number)
        assert rest(process) == ["reached", "stop=False snapshot=False"]
