"""The files of the inbox from outside: their state, which are candidates, under which name one is put away."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import pwd
from pathlib import Path

from jobs.policies import inbox
from jobs.policies.inbox import FileState

ERROR = ".error.txt"  # the name of a rejected file with this suffix is the file with its error

_LONGEST_STEM = 200  # bytes of a stem, so that a number, ERROR and the suffix of a partial file still fit into a name


@dataclasses.dataclass(frozen=True, kw_only=True)
class InboxContents:
    """What an inbox holds."""

    files: int  # to be submitted
    because: str | None  # why no file is taken from it; None if files are


def state_of_inbox(folder: Path) -> InboxContents:
    """Look into an inbox; nothing is changed, and one that does not exist holds nothing."""
    if not os.path.lexists(folder):
        return InboxContents(files=0, because=None)
    fault = fault_of_folder(folder)
    try:
        return InboxContents(files=len(candidates(folder)), because=fault)
    except OSError as error:
        return InboxContents(files=0, because=fault or _unreadable(error))


def file_state(path: Path) -> FileState | None:
    """Return the state of a file; None if it does not exist. Links are not followed, and nothing is opened."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return FileState(
        identity=(status.st_dev, status.st_ino),
        mode=status.st_mode,
        owner=status.st_uid,
        private_group=_is_private_group(status.st_gid),
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        arrived=status.st_ctime,
    )


def fault_of_folder(folder: Path, *, make: bool = False) -> str | None:
    """Return why no file is taken from an inbox; None if files are. `make` makes a missing folder."""
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        state = file_state(folder)
    except OSError as error:
        return _unreadable(error)
    return "does not exist" if state is None else inbox.fault_of(state, me=os.getuid(), folder=True)


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or type(error).__name__).lower()}"


def _is_private_group(group: int) -> bool:
    """Return whether a group is its owner's alone, as many Linux systems make one for every user."""
    try:
        me, members = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == me.pw_gid and members.gr_name == me.pw_name and set(members.gr_mem) <= {me.pw_name}


def candidates(folder: Path) -> list[Path]:
    """Return the files of an inbox that are to be submitted, by name."""
    named = [path for path in sorted(folder.iterdir()) if inbox.is_job_file_name(path.name)]
    return [path for path in named if (state := file_state(path)) is not None and state.is_candidate]


def free_name(path: Path) -> Path:
    """Return this path if it is free, else one with a number; a stem that is too long is cut."""
    stem = os.fsencode(path.stem)[:_LONGEST_STEM].decode(errors="ignore")
    name, number = f"{stem}{path.suffix}", 1
    while os.path.lexists(path.with_name(name)):
        number += 1
        name = f"{stem}-{number}{path.suffix}"
    return path.with_name(name)
