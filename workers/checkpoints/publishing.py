"""The finished adapter, copied to `adapter_path`: what lies there and is not this job's is never lost. No mlx.

A file there is this job's own where lq.json, which lies beside it, names the job's folder and the file's sha256. The
user may have agreed at submit that others go (`--overwrite`): those, by sha256, and no file that came later. Whatever
else is in the way is moved aside.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.model.job_dir import JobDir
from workers.files.atomic import fsync_file

BEST, FINAL, CONFIG, ABOUT = "adapters.safetensors", "final_adapters.safetensors", "adapter_config.json", "lq.json"
NAMES = (FINAL, BEST, CONFIG, ABOUT)
"""What is published; lq.json last, because it vouches for the others."""

AGREED = "overwrites"
"""In provenance.json: the sha256, by name, of the files in adapter_path that may be overwritten."""

_TRIES = 5


def in_the_way(target: Path) -> list[Path]:
    """Return what lies where a new job would publish.

    Args:
        target: adapter_path.
    """
    return [target / name for name in NAMES if os.path.lexists(target / name)]


def origin(target: Path) -> Mapping[str, Any]:
    """Return what lq.json in a folder says of the adapter there: job, job_dir, files; empty where there is none."""
    try:
        content = json.loads((target / ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256_of(path: Path) -> str | None:
    """Return a file's sha256, None where there is no file that can be read."""
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def copy_to(target: Path, job_dir: JobDir, *, job_id: int) -> Path | None:
    """Copy the finished adapter there; doing it twice changes nothing.

    Args:
        target: adapter_path; made where it is not there.
        job_dir: the job's folder, whose adapters/ is complete.
        job_id: names the folder for what is moved aside.

    Returns:
        Where what lay there went, None where nothing had to go.
    """
    target.mkdir(parents=True, exist_ok=True)
    coming = {name: sha256_of(job_dir.adapters / name) for name in NAMES}
    may_go = _own(target, job_dir) | _agreed(job_dir)
    aside: Path | None = None
    for name in NAMES:
        if coming[name] == sha256_of(target / name):
            continue  # published before
        partial = target / f".{name}.partial"
        partial.unlink(missing_ok=True)
        shutil.copyfile(job_dir.adapters / name, partial)
        fsync_file(partial)
        for _ in range(_TRIES):
            if not _may_go(target / name, may_go):
                aside = _make_room(target, job_id, coming, may_go) or aside
            if _named(partial, target / name, may_go):
                break
        partial.unlink(missing_ok=True)
    fsync_file(target)
    return aside


def _own(target: Path, job_dir: JobDir) -> set[tuple[str, str]]:
    """Return (name, sha256) of what this job published there before."""
    about = origin(target)
    if about.get("job_dir") != str(job_dir.path):
        return set()
    files = about.get("files")
    named = {(str(name), str(sha256)) for name, sha256 in files.items()} if isinstance(files, dict) else set()
    itself = sha256_of(target / ABOUT)
    return named | ({(ABOUT, itself)} if itself is not None else set())


def _agreed(job_dir: JobDir) -> set[tuple[str, str]]:
    """Return (name, sha256) of what the user said at submit may be overwritten."""
    try:
        content = json.loads(job_dir.provenance.read_text())[AGREED]
        return {(str(name), str(sha256)) for name, sha256 in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _may_go(path: Path, may_go: set[tuple[str, str]]) -> bool:
    return not os.path.lexists(path) or (path.name, sha256_of(path) or "") in may_go


def _named(partial: Path, path: Path, may_go: set[tuple[str, str]]) -> bool:
    """Give a file its name; False where something came there meanwhile that must not be overwritten."""
    if os.path.lexists(path):
        if not _may_go(path, may_go):
            return False
        partial.replace(path)
        return True
    try:
        os.link(partial, path)  # unlike a rename it never overwrites
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        partial.replace(path)  # a file system without hard links
    return True


def _make_room(
    target: Path, job_id: int, coming: Mapping[str, str | None], may_go: set[tuple[str, str]]
) -> Path | None:
    """Move an adapter that is not this job's aside, whole: weights are worth little without their configuration."""
    present = [name for name in NAMES if os.path.lexists(target / name)]
    moving = [name for name in present if (there := sha256_of(target / name)) is None or there != coming[name]]
    if all(_may_go(target / name, may_go) for name in moving):
        return None
    aside = _free_name(target, job_id, moving)
    aside.mkdir(exist_ok=True)
    for name in moving:
        (target / name).replace(aside / name)
    fsync_file(aside)
    return aside


def _free_name(target: Path, job_id: int, moving: list[str]) -> Path:
    """Return a folder that has none of these names: what was moved there before stays."""
    number = 1
    while True:
        aside = target / (f"before-job-{job_id}" if number == 1 else f"before-job-{job_id}-{number}")
        if not any(os.path.lexists(aside / name) for name in moving):
            return aside
        number += 1
