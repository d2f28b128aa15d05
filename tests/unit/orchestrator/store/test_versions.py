"""Opening a store: new, older, newer, damaged, unreadable."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import orchestrator.store
from jobs.model.errors import HomeUnusable, StoreUnusable
from orchestrator.store.database import engine_for
from orchestrator.store.store import Store
from orchestrator.store.versions import MIGRATIONS, Migrations, open_engine, upgrade, version_of

NEXT = f"{int(MIGRATIONS.newest) + 1:04d}"
"""The version after the newest one."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test creates its store."""
    return tmp_path / "lq.db"


def submit(store: Store) -> int:
    """Queue a job."""
    return store.jobs.submit(name="x", priority=0, iters=1, spec_json="{}", prepare=lambda _: Path("/x"), now=1.0).id


def mode(path: Path) -> int:
    """Permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_new_store_is_private(path: Path) -> None:
    with Store.open(path) as store:
        submit(store)
        assert {entry.name: mode(entry) for entry in path.parent.iterdir()} == {
            "lq.db": 0o600,
            "lq.db-wal": 0o600,
            "lq.db-shm": 0o600,
        }
    assert [entry.name for entry in path.parent.iterdir()] == ["lq.db"]


def test_reopened_store_keeps_its_jobs(path: Path) -> None:
    with Store.open(path) as store:
        assert submit(store) == 1
    with Store.open(path) as store:
        assert submit(store) == 2
        assert [job.id for job in store.jobs.overview()] == [1, 2]
        store.check()


def test_connection_pragmas(path: Path) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
    with Store.open(path) as store, store.database.writing() as db:
        found = {name: db.exec_driver_sql(f"PRAGMA {name}").scalar() for name in expected}
    assert found == expected


def test_open_imports_no_alembic(path: Path) -> None:
    Store.open(path).close()
    program = (
        "import sys, pathlib; from orchestrator.store.store import Store;"
        f"Store.open(pathlib.Path({str(path)!r})).close();"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako', 'pydantic')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_revision_equals_metadata(path: Path) -> None:
    Store.open(path).close()
    upgraded = path.with_name("upgraded.db")
    engine = engine_for(upgraded)
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    assert schema(upgraded) == schema(path)


def schema(path: Path) -> list[str]:
    """Return every statement that would create an equal store, including its rows."""
    with closing(sqlite3.connect(path)) as database:
        return sorted(re.sub(r"\s+", " ", line) for line in database.iterdump())


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def _truncated(path: Path) -> None:
    with Store.open(path) as store:
        submit(store)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE music (title TEXT)")


def _stamped(path: Path, version: str) -> None:
    """Create a store and stamp it with a version."""
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
        database.commit()


def _newer(path: Path) -> None:
    _stamped(path, "0999")


def _of_another_alembic(path: Path) -> None:
    _stamped(path, "ae1027a6acf")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_garbage, "the store is damaged"),
        (_truncated, "the store is damaged"),
        (_of_another_program, "not a store of lq"),
        (_of_another_alembic, "not a store of lq"),
        (_newer, f"written by a newer lq (version 0999, this one knows {MIGRATIONS.newest}); update lq"),
    ],
)
def test_unusable_store_is_refused_unchanged(path: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StoreUnusable) as refused:
        Store.open(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["lq.db"]


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_unreleased_version_is_refused(path: Path, version: int) -> None:
    _stamped(path, f"{version:04d}")
    before = path.read_bytes()
    for look in (Store.open, version_of):
        with pytest.raises(StoreUnusable) as refused:
            look(path)
        line = str(refused.value)
        assert f"version {version:04d}" in line
        assert f"move {path.parent} away" in line
        assert "\n" not in line
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["lq.db"]


def test_check_finds_damaged_rows(path: Path) -> None:
    with Store.open(path) as store:
        submit(store)
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "INSERT INTO attempts (job_id, number, started_at, last_seq) VALUES (99, 1, 0.0, 0)"
        )  # foreign keys are off in a bare connection
        database.commit()
    with Store.open(path) as store, pytest.raises(StoreUnusable, match="attempts without its jobs"):
        store.check()


def test_home_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(HomeUnusable, match="set LQ_HOME"):
            Store.open(home / "lq.db")


def test_store_that_is_a_folder(path: Path) -> None:
    path.mkdir()
    with pytest.raises(HomeUnusable, match="set LQ_HOME"):
        Store.open(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("exists", [True, False])
def test_home_without_write_permission(path: Path, exists: bool) -> None:
    if exists:
        Store.open(path).close()
    path.parent.chmod(0o500)
    try:
        with pytest.raises(HomeUnusable, match="set LQ_HOME"):
            Store.open(path)
    finally:
        path.parent.chmod(0o700)


@pytest.fixture
def next_version(tmp_path: Path) -> Migrations:
    """The revisions of a program that is one version ahead; its revision adds a column."""
    here = tmp_path / "migrations"
    shutil.copytree(Path(orchestrator.store.__path__[0]) / "migrations", here)
    (here / "versions" / "vnext.py").write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\n\nrevision = '{NEXT}'\n"
        f"down_revision = '{MIGRATIONS.newest}'\n\n"
        "def upgrade():\n    op.add_column('jobs', sa.Column('colour', sa.String))\n"
    )
    return Migrations(location=str(here), revisions=(*MIGRATIONS.revisions, NEXT))


def test_older_store_is_copied_and_upgraded(path: Path, next_version: Migrations) -> None:
    with Store.open(path) as store:
        submit(store)
    engine = open_engine(path, next_version)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT id, colour FROM jobs").all() == [(1, None)]
    engine.dispose()
    copy = path.with_name(f"lq.db.v{int(MIGRATIONS.newest)}.bak")
    assert mode(copy) == 0o600
    with Store.open(copy) as store:
        assert [job.id for job in store.jobs.overview()] == [1]
    with pytest.raises(StoreUnusable, match="newer lq"):
        Store.open(path)


def test_failed_upgrade_changes_nothing(path: Path, next_version: Migrations) -> None:
    with Store.open(path) as store:
        submit(store)
    broken = Path(next_version.location) / "versions" / "vnext.py"
    broken.write_text(broken.read_text() + "    raise RuntimeError('a bug')\n")
    with pytest.raises(RuntimeError, match="a bug"):
        open_engine(path, next_version)
    with Store.open(path) as store:
        assert [job.id for job in store.jobs.overview()] == [1]
        store.check()


def test_concurrent_first_open(path: Path) -> None:
    program = (
        "import pathlib; from orchestrator.store.store import Store;"
        f"Store.open(pathlib.Path({str(path)!r})).close(); print('opened')"
    )
    several = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=60) for process in several]
    assert outputs == [("opened\n", "")] * 4
