"""Files of the drop folder from outside: how they look, whose they are, under which name one is put away."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from jobs.policies import inbox as drops
from jobs.policies.inbox import Looks

ERROR = ".error.txt"
"""What the name of the file with the error ends in, behind that of the rejected one."""

CLAIMS = ".claimed"
"""The folder, inside the drop folder, with one folder for each file that is being taken in."""

_LONGEST_NAME = 255  # bytes, of the file systems people have


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting:
    """What a drop folder holds that is to be submitted."""

    files: int  # claimed ones too
    because: str | None  # why nothing is taken from it at all; None where things are


def waiting_in(folder: Path) -> Waiting:
    """Look into a drop folder; nothing is changed, and one that is not there holds nothing."""
    if not os.path.lexists(folder):
        return Waiting(files=0, because=None)
    fault = fault_of_folder(folder)
    try:
        return Waiting(files=len([*candidates(folder), *left_over(folder)]), because=fault)
    except OSError as error:
        return Waiting(files=0, because=fault or _unreadable(error))


def left_over(folder: Path) -> Iterator[Path]:
    """Yield the files of a drop folder that were claimed and not brought to an end."""
    for claim in entries(folder / CLAIMS):
        yield from entries(claim)


def look_at(path: Path) -> Looks | None:
    """Return how a file looks, None where it has gone; links are not followed, and nothing is opened."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return Looks(
        identity=(found.st_dev, found.st_ino),
        mode=found.st_mode,
        owner=found.st_uid,
        private_group=_is_private_group(found.st_gid),
        names=found.st_nlink,
        size=found.st_size,
        changed_ns=found.st_mtime_ns,
    )


def fault_of_folder(folder: Path, *, make: bool = False) -> str | None:
    """Return why nothing is taken from a drop folder, None where things are.

    Args:
        folder: the drop folder.
        make: make it where it is not there.
    """
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
        looks = look_at(folder)
    except OSError as error:
        return _unreadable(error)
    return "is not there" if looks is None else drops.fault_of_folder(looks, me=os.getuid())


def _unreadable(error: OSError) -> str:
    return f"cannot be looked into: {(error.strerror or type(error).__name__).lower()}"


def _is_private_group(group: int) -> bool:
    """Say whether a group is its owner's alone, as many Linux systems make one for every user."""
    try:
        me, found = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == me.pw_gid and found.gr_name == me.pw_name and set(found.gr_mem) <= {me.pw_name}


def candidates(folder: Path) -> list[Path]:
    """Return the files of a drop folder that are meant to be submitted."""
    return [path for path in entries(folder) if drops.is_job_file_name(path.name) and _is_wanted(path)]


def _is_wanted(path: Path) -> bool:
    looks = look_at(path)
    return looks is not None and drops.is_wanted(looks)


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name; nothing where there is no folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def made(folder: Path) -> Path:
    """Return a folder, made where it is not there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def free(path: Path) -> Path:
    """Return this path, or one with a number, where nothing lies yet; short enough for its error file's name too."""
    room = _LONGEST_NAME - len(os.fsencode(f".-1000{path.suffix}{ERROR}.partial"))
    stem = path.stem
    if len(os.fsencode(stem)) > room:
        stem = os.fsencode(stem)[:room].decode(errors="ignore")
    names = [path.name if stem == path.stem else f"{stem}{path.suffix}"]
    while os.path.lexists(path.with_name(names[-1])):
        names.append(f"{stem}-{len(names) + 1}{path.suffix}")
    return path.with_name(names[-1])
