"""Checkpoints: written atomically, and used only if they are valid. No mlx: the trainer writes the contents.

A checkpoint is a folder `step-0000500` with adapters.safetensors, optimizer.safetensors, state.json and manifest.json.
lq fills the folder under a temporary name, writes the manifest (sizes and sha256) last, and then renames the folder.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import re
import shutil
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.model.errors import CheckpointInvalid, CheckpointOfAnotherVersion
from jobs.model.run_plan import RunPlan
from workers.checkpoints import tensor_files
from workers.checkpoints.state import CheckpointState
from workers.files.atomic import fsync_file

VERSION = 1
ADAPTERS, OPTIMIZER, STATE, MANIFEST = "adapters.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
WHY = "why.txt"
"""File of a checkpoint that was set aside: what is wrong with it, who set it aside, and when."""

_CONTENT = (ADAPTERS, OPTIMIZER, STATE)
_NAME = re.compile(r"step-(\d{7,})")
_LEFTOVERS = (".step-*.partial", ".step-*.replaced", ".step-*.pruned")
_BAD_NAME = re.compile(r"step-(\d{7,})\.bad")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint's folder."""

    path: Path
    iteration: int  # completed iterations

    @property
    def adapters(self) -> Path:
        """The trained weights."""
        return self.path / ADAPTERS

    @property
    def optimizer(self) -> Path:
        """The optimizer's moments, step count and learning rate."""
        return self.path / OPTIMIZER

    def sha256(self, name: str) -> str:
        """Return the sha256 of a file from the manifest.

        Raises:
            CheckpointInvalid: the manifest cannot be read.
        """
        return _entries(self.path / MANIFEST)[name][1]

    def state(self) -> CheckpointState:
        """Return the contents of state.json.

        Raises:
            CheckpointInvalid: it cannot be read, or another version wrote it.
        """
        path = self.path / STATE
        content = _read_json(path)
        try:
            return CheckpointState.from_json(content)
        except CheckpointInvalid as error:
            raise type(error)(f"{path}: {error}") from error


def write(folder: Path, iteration: int, fill: Callable[[Path], CheckpointState]) -> tuple[Checkpoint, int]:
    """Write a checkpoint; it is complete and flushed to the disk when this returns.

    Args:
        folder: the job's checkpoints/.
        iteration: completed iterations.
        fill: writes adapters and optimizer into a folder and returns the state.

    Returns:
        The checkpoint and its size in bytes.

    Raises:
        OSError: it cannot be written; FileNotFoundError if the job's folder is gone.
    """
    final = folder / f"step-{iteration:07d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    partial.mkdir(mode=0o700)
    state = fill(partial)
    (partial / STATE).write_text(json.dumps(state.to_json(), indent=1))
    for name in (ADAPTERS, OPTIMIZER):
        _require_complete(partial / name)
    entries = _flush(partial)
    manifest = {"version": VERSION, "iteration": iteration, "files": entries}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
    (partial / MANIFEST).chmod(0o600)
    fsync_file(partial / MANIFEST)
    fsync_file(partial)
    _rename(partial, final)
    return Checkpoint(path=final, iteration=iteration), sum(int(entry["bytes"]) for entry in entries.values())


def _flush(partial: Path) -> dict[str, dict[str, Any]]:
    """Flush the files to the disk, and return the size and sha256 of each, computed while the disk is busy."""
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="sha256") as threads:
        entries = {name: threads.submit(_entry, partial / name) for name in _CONTENT}
        for name in _CONTENT:
            (partial / name).chmod(0o600)
            fsync_file(partial / name)
        return {name: entry.result() for name, entry in entries.items()}


def verify(checkpoint: Checkpoint) -> None:
    """Check every file against the manifest.

    Raises:
        CheckpointInvalid: a file is missing, has another size or content, or cannot be read.
    """
    for name, (size, sha256) in _entries(checkpoint.path / MANIFEST).items():
        path = checkpoint.path / name
        present = _size(path)
        if present is None:
            raise CheckpointInvalid(f"{path} is missing")
        if present != size:
            raise CheckpointInvalid(f"{path} has {present} bytes instead of the manifest's {size}")
        if _sha256(path) != sha256:
            raise CheckpointInvalid(f"{path} is damaged: its sha256 differs from the manifest's")


def listed(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints by name, oldest first, without verifying them."""
    if not folder.is_dir():
        return []
    checkpoints = [
        Checkpoint(path=path, iteration=int(match[1]))
        for path in folder.iterdir()
        if path.is_dir() and (match := _NAME.fullmatch(path.name))
    ]
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.iteration)


def valid(folder: Path, run_plan: RunPlan) -> list[Checkpoint]:
    """Return the valid checkpoints on the run plan, oldest first. Reads each of them completely."""
    checkpoints = []
    for checkpoint in listed(folder):
        with suppress(CheckpointInvalid):
            verify(checkpoint)
            if is_on(run_plan, checkpoint):
                checkpoints.append(checkpoint)
    return checkpoints


def newest_valid(
    folder: Path, run_plan: RunPlan, *, until: int | None = None, set_aside_by: str | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest valid checkpoint on the run plan, and the errors of newer ones.

    Args:
        folder: the job's checkpoints/.
        run_plan: checkpoints that a rollback left behind are ignored.
        until: later checkpoints are ignored; None for no limit.
        set_aside_by: name of the caller, to set invalid checkpoints aside; None to leave them.
    """
    newest, bad = _search(folder, run_plan, until)
    return newest, [_error_text(checkpoint, error, set_aside_by) for checkpoint, error in bad]


def _error_text(checkpoint: Checkpoint, error: CheckpointInvalid, set_aside_by: str | None) -> str:
    if set_aside_by is None or isinstance(error, CheckpointOfAnotherVersion):
        return str(error)
    aside = set_aside(checkpoint, str(error), by=set_aside_by)
    return str(error) if aside is None else f"{error}; it was set aside as {aside.name}"


def set_aside(checkpoint: Checkpoint, why: str, *, by: str) -> Path | None:
    """Rename an invalid checkpoint so that it is not used, and write a note into it; its files are kept.

    Args:
        why: what is wrong with it.
        by: who set it aside.

    Returns:
        Its new name, `step-0000500.bad`; None if it cannot be renamed.
    """
    aside = checkpoint.path.with_name(f"{checkpoint.path.name}.bad")
    shutil.rmtree(aside, ignore_errors=True)  # an earlier one of the same iteration
    try:
        checkpoint.path.rename(aside)
    except OSError:
        return None
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    with suppress(OSError):  # the disk may be full
        (aside / WHY).write_text(f"{why}\nset aside {when} by {by}; lq does not use it, and you may delete it\n")
    return aside


def listed_bad(folder: Path) -> list[Path]:
    """Return the checkpoints that were set aside, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _BAD_NAME.fullmatch(path.name))


def why(aside: Path) -> str:
    """Return one line about why a checkpoint was set aside."""
    with suppress(OSError):
        return (aside / WHY).read_text(errors="replace").partition("\n")[0]
    return "unknown reason"


def remove(path: Path) -> None:
    """Delete a checkpoint's folder, after renaming it, so that a partly deleted folder is never used."""
    doomed = path.with_name(f".{path.name}.pruned")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def leftovers(folder: Path) -> list[Path]:
    """Return the folders that a killed process left behind, by name; `sweep` deletes them."""
    paths = [path for pattern in _LEFTOVERS for path in folder.glob(pattern)]
    return sorted(path for path in paths if path.suffix != ".replaced" or _replacing(path).exists())


def _replacing(replaced: Path) -> Path:
    return replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))


def _search(
    folder: Path, run_plan: RunPlan, until: int | None
) -> tuple[Checkpoint | None, list[tuple[Checkpoint, CheckpointInvalid]]]:
    """Search for the newest valid checkpoint on the run plan. One that is deleted meanwhile is ignored."""
    bad = []
    for checkpoint in reversed(listed(folder)):
        if until is not None and checkpoint.iteration > until:
            continue
        try:
            verify(checkpoint)
            on_run_plan = is_on(run_plan, checkpoint)
        except CheckpointInvalid as error:
            if checkpoint.path.is_dir():
                bad.append((checkpoint, error))
        else:
            if on_run_plan:
                return checkpoint, bad
    return None, bad


def is_on(run_plan: RunPlan, checkpoint: Checkpoint) -> bool:
    """Report whether a checkpoint is on the run plan; a later stage that starts before it leaves it behind.

    Raises:
        CheckpointInvalid: its state cannot be read.
    """
    state = checkpoint.state()
    return run_plan.leads_to(state.examples_seen, state.stage)


def sweep(folder: Path) -> None:
    """Delete the folders that a killed writer left; rename a checkpoint back that it was about to replace."""
    for replaced in folder.glob(".step-*.replaced"):
        if not _replacing(replaced).exists():
            replaced.rename(_replacing(replaced))
    for leftover in leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)


def best_valid(folder: Path, run_plan: RunPlan, *, until: int | None = None) -> Checkpoint | None:
    """Return the valid checkpoint with the lowest validation loss, the earliest of equals; None if none has a loss.

    Args:
        folder: the job's checkpoints/.
        run_plan: checkpoints that a rollback left behind are ignored.
        until: later checkpoints are ignored; None for no limit.
    """
    return _search_best(folder, run_plan, until)[0]


def best_with_errors(
    folder: Path, run_plan: RunPlan, *, until: int | None, set_aside_by: str
) -> tuple[Checkpoint | None, list[str]]:
    """Return the checkpoint of `best_valid` and the errors of better ones, and set those aside."""
    best, bad = _search_best(folder, run_plan, until)
    return best, [_error_text(checkpoint, error, set_aside_by) for checkpoint, error in bad]


def _search_best(
    folder: Path, run_plan: RunPlan, until: int | None
) -> tuple[Checkpoint | None, list[tuple[Checkpoint, CheckpointInvalid]]]:
    scored, bad = [], []
    for checkpoint in listed(folder):
        if until is not None and checkpoint.iteration > until:
            continue
        try:
            loss = checkpoint.state().validation_loss if is_on(run_plan, checkpoint) else None
        except CheckpointInvalid:
            continue
        if loss is not None:
            scored.append((loss, checkpoint.iteration, checkpoint))
    for _, _, checkpoint in sorted(scored, key=lambda entry: entry[:2]):
        try:
            verify(checkpoint)
        except CheckpointInvalid as error:
            if checkpoint.path.is_dir():
                bad.append((checkpoint, error))
            continue
        return checkpoint, bad
    return None, bad


def _require_complete(path: Path) -> None:
    """Check that a safetensors file has the length of its header: a full disk may cut it without an error.

    Raises:
        OSError: it is shorter; with ENOSPC, because a full disk is the usual cause.
    """
    try:
        length = tensor_files.header(path)[1]
    except ValueError:
        length = None
    if length is None or path.stat().st_size < length:
        raise OSError(errno.ENOSPC, "the file was cut while it was written", str(path))


def _rename(partial: Path, final: Path) -> None:
    """Rename the folder. A present one is invalid, or has the same state without a validation, and is replaced."""
    if final.exists():
        replaced = final.with_name(f".{final.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
        partial.rename(final)
        fsync_file(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return
    partial.rename(final)
    fsync_file(final.parent)


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _entries(manifest: Path) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of the three files from a manifest, which may be damaged too."""
    content = _read_versioned(manifest)
    try:
        return {name: (content["files"][name]["bytes"], content["files"][name]["sha256"]) for name in _CONTENT}
    except (KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{manifest} is damaged") from error


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None unless it is a regular file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # for example a bad sector
        raise CheckpointInvalid(f"{path} cannot be read") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{path} cannot be read") from error


def _read_versioned(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    try:
        version = content["version"]
    except (KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{path} cannot be read") from error
    if version != VERSION:
        raise CheckpointOfAnotherVersion(f"{path} has version {version}; this version of lq reads version {VERSION}")
    return dict(content)
