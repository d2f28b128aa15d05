"""The laws of the drop folder: which names are looked at, what is refused unread, when a file is at rest. Pure."""

from __future__ import annotations

import dataclasses
import stat

REST_S = 1.5
"""A file whose size and time of change have not moved for so long is taken to be written."""

LARGEST_BYTES = 1024 * 1024
"""A job file is a page of text."""

_SUFFIXES = (".yaml", ".yml")
_UNFINISHED = (".", "~", "#")
"""How hidden files, and what editors and office programs keep beside a file, begin. Their other marks (.swp, .part,
.tmp, .crdownload, a last ~) come behind .yaml, so such names end otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looks:
    """A file of the drop folder from outside, without following a link."""

    identity: tuple[int, int]  # device and inode: the same under another name
    mode: int  # as stat gives it: kind and permissions
    owner: int  # user id
    private_group: bool  # its group has no member but its owner
    names: int  # hard links
    size: int  # bytes
    changed_ns: int  # time of its last change

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file; folders, pipes and devices are not."""
        return stat.S_ISREG(self.mode)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sighting:
    """How a file looked, and since when."""

    size: int  # bytes
    changed_ns: int
    since: float  # seconds, of the clock that the caller keeps

    def rested(self, now: float) -> bool:
        """Return whether it has looked so for long enough."""
        return now - self.since >= REST_S


def is_job_file_name(name: str) -> bool:
    """Return whether a file of this name is meant to be submitted."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith(_UNFINISHED)


def is_wanted(looks: Looks) -> bool:
    """Return whether a file is looked at at all.

    Folders, pipes and devices stay where they are, and so does an empty file: somebody made it to write into it.
    """
    return looks.is_link or (looks.is_file and looks.size > 0)


def sighted(before: Sighting | None, looks: Looks, now: float) -> Sighting:
    """Return what is known of a file after one more look.

    Args:
        before: what was known; None where it is new.
        looks: how it looks now.
        now: seconds.
    """
    if before is not None and (before.size, before.changed_ns) == (looks.size, looks.changed_ns):
        return before
    return Sighting(size=looks.size, changed_ns=looks.changed_ns, since=now)


def fault_of(looks: Looks, *, me: int) -> str | None:
    """Return why a file is not read, None where it may be.

    Args:
        looks: the file.
        me: the user id of the worker.
    """
    if looks.is_link:
        return "is a link, and links are not followed; copy the file itself"
    if not looks.is_file:
        return "is not a file"
    if looks.names > 1:
        return f"has {looks.names} names (hard links), so it can be changed from elsewhere; copy it instead"
    if looks.size > LARGEST_BYTES:
        return f"is larger than {LARGEST_BYTES // 1024**2} MB; this is not a YAML file people write"
    return whose(looks, me=me)


def fault_of_folder(looks: Looks, *, me: int) -> str | None:
    """Return why nothing is taken from a drop folder, None where things are."""
    if not stat.S_ISDIR(looks.mode):
        return "is not a folder (links are not followed); remove it, and the worker makes a new one"
    return whose(looks, me=me)


def whose(looks: Looks, *, me: int) -> str | None:
    """Return what is wrong with owner and mode: nobody else may say what this user trains."""
    if looks.owner != me:
        return f"belongs to another user (id {looks.owner}); copy it as yourself"
    if looks.mode & stat.S_IWOTH:
        return "can be written by everybody; chmod go-w it"
    if looks.mode & stat.S_IWGRP and not looks.private_group:
        return "can be written by its group; chmod go-w it"
    return None
