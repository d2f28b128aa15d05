"""Copies the finished adapter to `adapter_path`, without losing files of other runs there. No mlx.

A file there belongs to this job if lq.json in the same folder has the job's folder and the file's sha256. `lq submit
--overwrite` also allows lq to replace the files that were there at submit, by their sha256. lq moves all other files
of the same names to a new folder.
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
"""The published files; lq.json last, because it has the hashes of the others."""

AGREED = "overwrites"
"""Key of provenance.json: the sha256, by name, of the files in adapter_path that may be overwritten."""

_TRIES = 5


def in_the_way(target: Path) -> list[Path]:
    """Return the files in adapter_path that have the names of published files."""
    return [target / name for name in NAMES if os.path.lexists(target / name)]


def origin(target: Path) -> Mapping[str, Any]:
    """Return lq.json of a folder, with job, job_dir and files of the adapter; empty without a readable one."""
    try:
        content = json.loads((target / ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256_of(path: Path) -> str | None:
    """Return a file's sha256; None if it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def copy_to(target: Path, job_dir: JobDir, *, job_id: int) -> Path | None:
    """Copy the finished adapter to `adapter_path`; copying twice changes nothing.

    Returns:
        The folder that other runs' files were moved to; None if there were none.
    """
    target.mkdir(parents=True, exist_ok=True)
    new = {name: sha256_of(job_dir.adapters / name) for name in NAMES}
    may_go = _replaceable(target, job_dir)
    aside: Path | None = None
    for name in NAMES:
        if new[name] == sha256_of(target / name):
            continue  # published already
        partial = target / f".{name}.partial"
        partial.unlink(missing_ok=True)
        shutil.copyfile(job_dir.adapters / name, partial)
        fsync_file(partial)
        for _ in range(_TRIES):
            if not _may_go(target / name, may_go):
                aside = _move_aside(target, job_id, new, may_go) or aside
            if _rename(partial, target / name, may_go):
                break
        partial.unlink(missing_ok=True)
    fsync_file(target)
    return aside


def _replaceable(target: Path, job_dir: JobDir) -> set[tuple[str, str]]:
    """Return (name, sha256) of the files that this job published there before, or that --overwrite allows."""
    about = origin(target)
    hashes: list[Any] = []
    if about.get("job_dir") == str(job_dir.path):
        hashes += [about.get("files"), {ABOUT: sha256_of(target / ABOUT)}]
    with suppress(OSError, ValueError, KeyError, TypeError):
        hashes.append(json.loads(job_dir.provenance.read_text())[AGREED])
    return {(str(name), str(sha256)) for each in hashes if isinstance(each, dict) for name, sha256 in each.items()}


def _may_go(path: Path, may_go: set[tuple[str, str]]) -> bool:
    return not os.path.lexists(path) or (path.name, sha256_of(path) or "") in may_go


def _rename(partial: Path, path: Path, may_go: set[tuple[str, str]]) -> bool:
    """Rename a file; return False if a file that must not be overwritten appeared there meanwhile."""
    if os.path.lexists(path):
        if not _may_go(path, may_go):
            return False
        partial.replace(path)
        return True
    try:
        os.link(partial, path)  # unlike a rename, it never overwrites
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        partial.replace(path)  # a file system without hard links
    return True


def _move_aside(target: Path, job_id: int, new: Mapping[str, str | None], may_go: set[tuple[str, str]]) -> Path | None:
    """Move all files of another run's adapter: weights are useless without their configuration."""
    present = [name for name in NAMES if os.path.lexists(target / name)]
    moving = [name for name in present if (there := sha256_of(target / name)) is None or there != new[name]]
    if all(_may_go(target / name, may_go) for name in moving):
        return None
    folders = (target / f"before-job-{job_id}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 10_000))))
    aside = next(each for each in folders if not any(os.path.lexists(each / name) for name in moving))
    aside.mkdir(exist_ok=True)
    for name in moving:
        (target / name).replace(aside / name)
    fsync_file(aside)
    return aside
