"""Which file system a folder lies on: /proc/self/mountinfo on Linux, the command `mount` on macOS."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mount:
    """The file system a folder lies on."""

    kind: str  # as the system calls it: ext4, apfs, nfs4, fuse.sshfs
    place: str  # where it is mounted


_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_MAC_LINE = re.compile(r".* on (?P<place>/.*) \((?P<kind>\w+)[,)]")
_TIMEOUT_S = 2.0


def mount_of(folder: Path) -> Mount | None:
    """Return the file system of a folder, or of the nearest folder around it that exists; None where unknown."""
    try:
        if sys.platform == "darwin":
            asked = subprocess.run(["mount"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
            return nearest(folder.resolve(), from_mount(asked.stdout))
        return nearest(folder.resolve(), from_mountinfo(_MOUNTINFO.read_text()))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def nearest(folder: Path, mounts: Iterator[Mount]) -> Mount | None:
    """Return the mount that a folder lies on: the deepest above it, and of those at one place the last."""
    around = {str(place): len(place.parts) for place in (folder, *folder.parents)}
    return max(
        (one for one in reversed(list(mounts)) if one.place in around),
        key=lambda one: around[one.place],
        default=None,
    )


def from_mountinfo(text: str) -> Iterator[Mount]:
    """Read /proc/self/mountinfo (man 5 proc): the fifth field is the place, the first after the dash the kind."""
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) > 4 and after:
            place = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
            yield Mount(kind=after.split(" ", 1)[0], place=place)


def from_mount(text: str) -> Iterator[Mount]:
    """Read what macOS's `mount` prints: `/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled)`."""
    for line in text.splitlines():
        found = _MAC_LINE.fullmatch(line) or _MAC_LINE.match(line)
        if found is not None:
            yield Mount(kind=found["kind"], place=found["place"])
