"""The rules of the inbox: which names are job files, which files are rejected unread, when a file is settled. Pure."""

from __future__ import annotations

import dataclasses
import stat

REST_S = 1.5
"""A file whose size and modification time have not changed for this long is taken to be complete."""

_SUFFIXES = (".yaml", ".yml")
_TEMPORARY = (".", "~", "#")
"""First characters of hidden files, and of those that editors and office programs keep with a file. Their other
marks (.swp, .part, .tmp, .crdownload, a last ~) follow .yaml, so such names have another suffix."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileState:
    """A file of the inbox as `lstat` sees it."""

    identity: tuple[int, int]  # device and inode: the same under another name
    mode: int  # kind and permissions
    owner: int  # user id
    private_group: bool  # its group has no member but its owner
    size: int  # bytes
    modified_ns: int
    arrived: float  # when it was last written or renamed, in unix seconds

    @property
    def is_candidate(self) -> bool:
        """Whether it may be a job file; folders, pipes, devices and empty files are ignored."""
        return stat.S_ISLNK(self.mode) or (stat.S_ISREG(self.mode) and self.size > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sighting:
    """The size and time of a file, and since when they have not changed."""

    size: int  # bytes
    modified_ns: int
    since: float  # seconds on the caller's clock

    def settled(self, now: float) -> bool:
        """Return whether the file has not changed for long enough."""
        return now - self.since >= REST_S


def is_job_file_name(name: str) -> bool:
    """Return whether a file of this name is meant to be submitted."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith(_TEMPORARY)


def sighted(before: Sighting | None, state: FileState, now: float) -> Sighting:
    """Return the sighting after one more look; `before` is None if the file is new."""
    if before is not None and (before.size, before.modified_ns) == (state.size, state.modified_ns):
        return before
    return Sighting(size=state.size, modified_ns=state.modified_ns, since=now)


def fault_of(state: FileState, *, me: int, folder: bool = False) -> str | None:
    """Return why a file, or every file of a folder, is rejected unread; None if not. `me` is the worker's user id.

    No other user may decide what this one trains.
    """
    if folder and not stat.S_ISDIR(state.mode):
        return "is not a folder (links are not followed); remove it, and the worker makes a new one"
    if not folder and stat.S_ISLNK(state.mode):
        return "is a link, and links are not followed; copy the file itself"
    if state.owner != me:
        return f"belongs to another user (id {state.owner}); copy it as yourself"
    if state.mode & stat.S_IWOTH:
        return "can be written by all users; chmod go-w it"
    if state.mode & stat.S_IWGRP and not state.private_group:
        return "can be written by its group; chmod go-w it"
    return None
