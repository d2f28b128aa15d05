"""Fixtures of most tests of the orchestrator: a home, its app, and `lq` in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.app import App
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, fill
from tests.unit.orchestrator.job_files import app_of


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give an empty home."""
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


@pytest.fixture
def full_home(home: Home) -> Home:
    """Give a home at NOW with a job in every status."""
    fill(home)
    return home


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the zone of this process to UTC, for golden files with times."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def app(home: Home) -> Iterator[App]:
    """Give the app of that home."""
    with app_of(home) as opened:
        yield opened


@pytest.fixture
def here(home: Home) -> InProcess:
    """Give `lq` in this process, which is much faster than a process for each call."""
    return InProcess(home.path)
