"""Fixtures of every storey's tests: a home of one's own, and something tiny to train."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import golden, postgres
from tests.harness import Lq, Workshop

# a shell starts what runs in its background deaf to Ctrl-C, and children inherit that; they are to hear it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # no test asks the real hub; nothing listens there

# speed is measured by benchmarks and never in tests: a busy machine is no reason for a property to fail
settings.register_profile("lq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lq")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update-golden."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files instead of comparing them")


def pytest_configure(config: pytest.Config) -> None:
    """Pass --update-golden on to the worker processes of xdist."""
    if config.getoption("--update-golden"):
        os.environ[golden.UPDATE] = "1"


@pytest.fixture
def lq(tmp_path: Path) -> Iterator[Lq]:
    """Give `lq` with a home of its own; nothing of it runs on after the test."""
    driver = Lq(tmp_path / "home")
    try:
        yield driver
    finally:
        driver.leave()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Give a tiny model and its data, built once."""
    return Workshop.built(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """Give a private PostgreSQL server."""
    binaries = postgres.programs()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed; on Debian, as root: make postgresql")
    with postgres.Cluster(binaries) as cluster:
        yield cluster
