"""What a child is asked by signals, in a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHILD = """
import signal, sys
from workers.process.stop_requests import Requests, StopAsked
requests = Requests()
requests.listen()
def say(text): print(text, flush=True)
def told(): return sys.stdin.readline().strip()
try:
    {body}
except StopAsked:
    say("stopped at once")
say(f"stop={{requests.stop}} snapshot={{requests.snapshot}}")
"""


@contextmanager
def child(body: str) -> Iterator[subprocess.Popen[str]]:
    """A process that listens and runs `body`."""
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
    """Let it go on, and return what it says until its end."""
    out, _ = process.communicate("go\n", timeout=30)
    assert process.returncode == 0
    return out.split("\n")[:-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_training_waits_for_the_next_iteration(number: signal.Signals) -> None:
    with child("say('training'); told()") as process:
        assert heard(process) == "training"
        process.send_signal(number)
        assert rest(process) == ["stop=True snapshot=False"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_model_loads_takes_effect_at_once(number: signal.Signals) -> None:
    with child("with requests.nothing_to_lose():\n    say('loading'); signal.pause(); say('not reached')") as process:
        assert heard(process) == "loading"
        process.send_signal(number)
        assert rest(process) == ["stopped at once", "stop=True snapshot=False"]


def test_a_stop_from_before_takes_effect_where_loading_begins() -> None:
    body = "say('training'); told()\nwith requests.nothing_to_lose(): say('not reached')"
    with child(body) as process:
        assert heard(process) == "training"
        process.send_signal(signal.SIGTERM)
        assert rest(process) == ["stopped at once", "stop=True snapshot=False"]


def test_after_loading_a_stop_waits_again() -> None:
    body = "with requests.nothing_to_lose(): pass\nsay('training'); told(); say('reached')"
    with child(body) as process:
        assert heard(process) == "training"
        process.send_signal(signal.SIGTERM)
        assert rest(process) == ["reached", "stop=True snapshot=False"]


def test_usr1_asks_for_a_snapshot_and_stops_nothing() -> None:
    with child("with requests.nothing_to_lose():\n    say('loading'); told(); say('reached')") as process:
        assert heard(process) == "loading"
        process.send_signal(signal.SIGUSR1)
        assert rest(process) == ["reached", "stop=False snapshot=True"]


def test_a_closed_terminal_changes_nothing() -> None:
    with child("say('training'); told(); say('reached')") as process:
        assert heard(process) == "training"
        process.send_signal(signal.SIGHUP)
        assert rest(process) == ["reached", "stop=False snapshot=False"]


def test_when_all_is_said_a_late_stop_changes_nothing() -> None:
    with child("requests.nothing_more(); say('done'); told(); say('reached')") as process:
        assert heard(process) == "done"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            process.send_signal(number)
        assert rest(process) == ["reached", "stop=False snapshot=False"]
