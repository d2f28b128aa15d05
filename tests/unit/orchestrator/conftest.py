"""What most tests of the orchestrator begin with: an empty home, and the app of it. A file may have its own instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.app import App
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.job_files import app_of


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give an empty home."""
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


@pytest.fixture
def app(home: Home) -> Iterator[App]:
    """Give the app of that home."""
    with app_of(home) as opened:
        yield opened


@pytest.fixture
def here(home: Home) -> InProcess:
    """Give `lq` within this process: a table of commands would else wait for Python to start a hundred times."""
    return InProcess(home.path)
