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
from collections.abc import Callable, Iterable
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
        """Return the sha256 of a file from the manifest; CheckpointInvalid if that cannot be read."""
        return _entries(self.path / MANIFEST)[name][1]

    def state(self) -> CheckpointState:
        """Return the contents of state.json; CheckpointInvalid if it cannot be read or another version wrote it."""
        path = self.path / STATE
        try:
            return CheckpointState.from_json(_read_json(path))
        except CheckpointInvalid as error:
            raise type(error)(f"{path}: {error}") from error


def write(folder: Path, iteration: int, fill: Callable[[Path], CheckpointState]) -> tuple[Checkpoint, int]:
    """Write a checkpoint, flushed to the disk when this returns; return it and its size in bytes.

    Args:
        folder: the job's checkpoints/.
        iteration: completed iterations.
        fill: writes adapters and optimizer into a folder and returns the state.

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
        hashes = {name: threads.submit(_sha256, partial / name) for name in _CONTENT}
        for name in _CONTENT:
            (partial / name).chmod(0o600)
            fsync_file(partial / name)
        return {
            name: {"bytes": (partial / name).stat().st_size, "sha256": sha256.result()}
            for name, sha256 in hashes.items()
        }


def verify(checkpoint: Checkpoint) -> None:
    """Check every file against the manifest; CheckpointInvalid if one is missing, damaged or cannot be read."""
    for name, (size, sha256) in _entries(checkpoint.path / MANIFEST).items():
        path = checkpoint.path / name
        status = None
        with suppress(OSError):
            status = path.stat()
        if status is None or not stat.S_ISREG(status.st_mode):
            raise CheckpointInvalid(f"{path} is missing")
        if status.st_size != size:
            raise CheckpointInvalid(f"{path} has {status.st_size} bytes instead of the manifest's {size}")
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
    return [checkpoint for checkpoint in listed(folder) if _first_valid([checkpoint], run_plan, None)[0]]


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
    candidates = [each for each in reversed(listed(folder)) if until is None or each.iteration <= until]
    return _first_valid(candidates, run_plan, set_aside_by)


def best_valid(
    folder: Path, run_plan: RunPlan, *, until: int | None = None, set_aside_by: str | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the valid checkpoint with the lowest validation loss, the earliest of equals, and the errors of better
    ones, as `newest_valid` does; None if none has a loss.
    """
    scored = []
    for checkpoint in listed(folder):
        if until is None or checkpoint.iteration <= until:
            with suppress(CheckpointInvalid):
                loss = checkpoint.state().validation_loss if is_on(run_plan, checkpoint) else None
                scored += [(loss, checkpoint)] if loss is not None else []
    scored.sort(key=lambda entry: (entry[0], entry[1].iteration))
    return _first_valid([checkpoint for _, checkpoint in scored], run_plan, set_aside_by)


def _first_valid(
    candidates: Iterable[Checkpoint], run_plan: RunPlan, set_aside_by: str | None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the first valid candidate on the run plan, and the errors of those before it."""
    bad: list[str] = []
    for checkpoint in candidates:
        try:
            verify(checkpoint)
            if is_on(run_plan, checkpoint):
                return checkpoint, bad
        except CheckpointInvalid as error:
            if not checkpoint.path.is_dir():  # deleted meanwhile
                continue
            aside = None
            if set_aside_by is not None and not isinstance(error, CheckpointOfAnotherVersion):
                aside = set_aside(checkpoint, str(error), by=set_aside_by)
            bad.append(str(error) if aside is None else f"{error}; it was set aside as {aside.name}")
    return None, bad


def set_aside(checkpoint: Checkpoint, why: str, *, by: str) -> Path | None:
    """Rename an invalid checkpoint to `step-0000500.bad`, and write a note into it; None if it cannot be renamed."""
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


def is_on(run_plan: RunPlan, checkpoint: Checkpoint) -> bool:
    """Report whether a checkpoint is on the run plan; a later stage that starts before it leaves it behind."""
    state = checkpoint.state()
    return run_plan.leads_to(state.examples_seen, state.stage)


def sweep(folder: Path) -> None:
    """Delete the folders that a killed writer left; rename a checkpoint back that it was about to replace."""
    for replaced in folder.glob(".step-*.replaced"):
        if not _replacing(replaced).exists():
            replaced.rename(_replacing(replaced))
    for leftover in leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)


def _require_complete(path: Path) -> None:
    """Raise OSError with ENOSPC if a safetensors file is shorter than its header says: a full disk may cut it."""
    try:
        length = tensor_files.header(path)[1]
    except ValueError:
        length = None
    if length is None or path.stat().st_size < length:
        raise OSError(errno.ENOSPC, "the file was cut while it was written", str(path))


def _rename(partial: Path, final: Path) -> None:
    """Rename the folder. A present one is invalid, or has the same state without a validation, and is replaced."""
    replaced = final.with_name(f".{final.name}.replaced")
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    partial.rename(final)
    fsync_file(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _entries(manifest: Path) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of the three files from a manifest, which may be damaged too."""
    content = _read_json(manifest)
    try:
        if content["version"] != VERSION:
            text = f"{manifest} has version {content['version']}; this version of lq reads version {VERSION}"
            raise CheckpointOfAnotherVersion(text)
        return {name: (content["files"][name]["bytes"], content["files"][name]["sha256"]) for name in _CONTENT}
    except (KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{manifest} is damaged") from error


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
