"""The rules of the inbox: names, ownership, when a file is settled."""

from __future__ import annotations

import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.policies import inbox
from jobs.policies.inbox import FileState, Sighting

ME = 501


def state(**changes: Any) -> FileState:
    usual: dict[str, Any] = {
        "identity": (1, 2),
        "mode": stat.S_IFREG | 0o644,
        "owner": ME,
        "private_group": False,
        "size": 100,
        "modified_ns": 5,
        "arrived": 1.0,
    }
    return FileState(**usual | changes)


@pytest.mark.parametrize(
    "name", ["night.yaml", "night.yml", "NIGHT.YAML", "my night.yaml", "a.b.yml", "-x.yaml", "é.yaml"]
)
def test_job_file_names_are_accepted(name: str) -> None:
    assert inbox.is_job_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            ".night.yaml",
            ".night.yaml.swp",
            "night.yaml~",
            ".#night.yaml",
            "#night.yaml#",
            "._night.yaml",
            "~$night.yaml",
        ),
        *("night.yaml.part", "night.yaml.crdownload", "night.yaml.tmp", "night.yaml.download", "night.yaml.error.txt"),
        *("night.json", "night", "yaml", ".yaml", "night.yaml.partial", "4913"),
    ],
)
def test_temporary_names_are_ignored(name: str) -> None:
    assert not inbox.is_job_file_name(name)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR])
def test_pipes_and_folders_are_ignored(kind: int) -> None:
    assert not state(mode=kind | 0o600).is_candidate


def test_empty_file_is_ignored() -> None:
    assert not state(size=0).is_candidate
    assert state(size=1).is_candidate


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mode": stat.S_IFLNK | 0o777, "size": 0}, "link"),
        ({"owner": 0}, "another user (id 0)"),
        ({"mode": stat.S_IFREG | 0o666}, "all users"),
        ({"mode": stat.S_IFREG | 0o602, "private_group": True}, "all users"),
        ({"mode": stat.S_IFREG | 0o664}, "its group"),
    ],
)
def test_files_others_can_write_are_rejected(changes: dict[str, Any], word: str) -> None:
    fault = inbox.fault_of(state(**changes), me=ME)
    assert fault is not None
    assert word in fault


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o755, 0o664])
def test_own_file_is_accepted(mode: int) -> None:
    assert inbox.fault_of(state(mode=stat.S_IFREG | mode, private_group=True), me=ME) is None


def test_folder_must_be_private() -> None:
    assert inbox.fault_of(state(mode=stat.S_IFDIR | 0o700), me=ME, folder=True) is None
    for wrong in (stat.S_IFLNK | 0o777, stat.S_IFREG | 0o600, stat.S_IFDIR | 0o777, stat.S_IFDIR | 0o770):
        assert inbox.fault_of(state(mode=wrong), me=ME, folder=True) is not None
    assert inbox.fault_of(state(mode=stat.S_IFDIR | 0o700, owner=0), me=ME, folder=True) is not None


@given(st.lists(st.tuples(st.floats(0.01, 2), st.booleans()), min_size=1, max_size=30))
def test_file_settles_after_its_last_change(
    steps: list[tuple[float, bool]],
) -> None:
    now, changed, last_change = 0.0, 0, 0.0
    sighting = inbox.sighted(None, state(modified_ns=changed), now)
    for passed, written in steps:
        now += passed
        if written:
            changed, last_change = changed + 1, now
        sighting = inbox.sighted(sighting, state(modified_ns=changed), now)
        assert sighting == Sighting(size=100, modified_ns=changed, since=last_change)
        assert sighting.settled(now) == (now - last_change >= inbox.REST_S)


def test_growing_file_does_not_settle() -> None:
    first = inbox.sighted(None, state(size=100), 0.0)
    assert inbox.sighted(first, state(size=101), 9.0).since == 9.0
