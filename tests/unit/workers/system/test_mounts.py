"""Which file system a folder lies on: this machine's own, and what others print."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workers.system import mounts
from workers.system.mounts import Mount

MOUNTINFO = r"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 27 0:27 / /home rw - nfs4 server:/export rw
32 31 0:28 / /home/me/a\040disk rw shared:1 master:2 - fuse.sshfs me@host: rw
33 27 0:29 / /data rw - ext4 /dev/vdb rw
34 27 0:30 / /data rw - tmpfs over rw
a line that is none
"""

# as macOS 14 prints it, by its manual page and users' reports; not seen on a Mac
MAC = """/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@nas._smb._tcp.local/share on /Volumes/my share (smbfs, nodev, nosuid, mounted by me)
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/root/.local/share/lq", "ext4"),
        ("/home/me/lq", "nfs4"),
        ("/home/me/a disk/lq", "fuse.sshfs"),
        ("/home/me/a diskette", "nfs4"),
        ("/data/x", "tmpfs"),
    ],
)
def test_the_deepest_mount_counts_and_of_those_at_one_place_the_last(folder: str, kind: str) -> None:
    found = mounts.nearest(Path(folder), mounts.from_mountinfo(MOUNTINFO))
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(("folder", "kind"), [("/Users/me/lq", "apfs"), ("/Volumes/my share/lq", "smbfs")])
def test_what_macos_prints_is_read(folder: str, kind: str) -> None:
    found = mounts.nearest(Path(folder), mounts.from_mount(MAC))
    assert found is not None
    assert found.kind == kind


def test_nothing_is_known_of_rubbish() -> None:
    assert mounts.nearest(Path("/x"), mounts.from_mountinfo("rubbish\n - \n")) is None
    assert mounts.nearest(Path("/x"), mounts.from_mount("rubbish\n")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux says it")
def test_this_machine_says_where_a_folder_lies(tmp_path: Path) -> None:
    assert mounts.mount_of(Path("/proc")) == Mount(kind="proc", place="/proc")
    assert mounts.mount_of(Path("/dev/shm/nothing/here")) == Mount(kind="tmpfs", place="/dev/shm")
    link = tmp_path / "link"
    link.symlink_to("/dev/shm")
    found = mounts.mount_of(link / "lq")
    assert found is not None
    assert found.kind == "tmpfs", "a link leads where it leads"


def test_a_mac_is_asked_with_its_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mount").write_text(f"#!/bin/sh\ncat <<'END'\n{MAC}END\n")
    (tmp_path / "mount").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert mounts.mount_of(Path("/Volumes/my share/lq")) == Mount(kind="smbfs", place="/Volumes/my share")
    (tmp_path / "mount").write_text("#!/bin/sh\nexit 1\n")
    assert mounts.mount_of(Path("/Volumes/my share/lq")) is None
