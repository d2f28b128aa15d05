"""The drop folder's laws: names, whose a file is, when it is at rest."""

from __future__ import annotations

import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.policies import inbox as drops
from jobs.policies.inbox import Looks, Sighting

ME = 501


def looks(**changes: Any) -> Looks:
    usual: dict[str, Any] = {
        "identity": (1, 2),
        "mode": stat.S_IFREG | 0o644,
        "owner": ME,
        "private_group": False,
        "names": 1,
        "size": 100,
        "changed_ns": 5,
    }
    return Looks(**usual | changes)


@pytest.mark.parametrize(
    "name", ["night.yaml", "night.yml", "NIGHT.YAML", "my night.yaml", "a.b.yml", "-x.yaml", "é.yaml"]
)
def test_job_files_are_taken(name: str) -> None:
    assert drops.is_job_file_name(name)


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
def test_what_editors_and_browsers_leave_beside_a_file_is_not(name: str) -> None:
    assert not drops.is_job_file_name(name)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR])
def test_pipes_devices_and_folders_are_left_where_they_are(kind: int) -> None:
    assert not drops.is_wanted(looks(mode=kind | 0o600))
    assert drops.fault_of(looks(mode=kind | 0o600), me=ME) == "is not a file"


def test_an_empty_file_is_one_that_somebody_is_about_to_write() -> None:
    assert not drops.is_wanted(looks(size=0))
    assert drops.is_wanted(looks(size=1))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mode": stat.S_IFLNK | 0o777, "size": 0}, "link"),
        ({"names": 2}, "2 names"),
        ({"size": drops.LARGEST_BYTES + 1}, "1 MB"),
        ({"owner": 0}, "another user (id 0)"),
        ({"mode": stat.S_IFREG | 0o666}, "everybody"),
        ({"mode": stat.S_IFREG | 0o602, "private_group": True}, "everybody"),
        ({"mode": stat.S_IFREG | 0o664}, "its group"),
    ],
)
def test_what_somebody_else_may_have_written_is_refused(changes: dict[str, Any], word: str) -> None:
    fault = drops.fault_of(looks(**changes), me=ME)
    assert fault is not None
    assert word in fault


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o755, 0o664])
def test_a_file_of_ones_own_is_read(mode: int) -> None:
    assert drops.fault_of(looks(mode=stat.S_IFREG | mode, private_group=True), me=ME) is None


def test_the_folder_must_be_a_folder_of_ones_own() -> None:
    assert drops.fault_of_folder(looks(mode=stat.S_IFDIR | 0o700, names=5), me=ME) is None
    for wrong in (stat.S_IFLNK | 0o777, stat.S_IFREG | 0o600, stat.S_IFDIR | 0o777, stat.S_IFDIR | 0o770):
        assert drops.fault_of_folder(looks(mode=wrong), me=ME) is not None
    assert drops.fault_of_folder(looks(mode=stat.S_IFDIR | 0o700, owner=0), me=ME) is not None


@given(st.lists(st.tuples(st.floats(0.01, 2), st.booleans()), min_size=1, max_size=30))
def test_a_file_rests_when_nothing_has_moved_for_so_long_however_often_it_is_looked_at(
    steps: list[tuple[float, bool]],
) -> None:
    now, changed, last_change = 0.0, 0, 0.0
    sighting = drops.sighted(None, looks(changed_ns=changed), now)
    for passed, written in steps:
        now += passed
        if written:
            changed, last_change = changed + 1, now
        sighting = drops.sighted(sighting, looks(changed_ns=changed), now)
        assert sighting == Sighting(size=100, changed_ns=changed, since=last_change)
        assert sighting.rested(now) == (now - last_change >= drops.REST_S)


def test_one_that_grows_does_not_rest_even_if_its_time_stands_still() -> None:
    first = drops.sighted(None, looks(size=100), 0.0)
    assert drops.sighted(first, looks(size=101), 9.0).since == 9.0
