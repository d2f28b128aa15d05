"""Checkpoints: written whole or not at all, used only when they verify. No mlx: what is inside is the trainer's.

A checkpoint is a folder `step-0000500` with adapters.safetensors, optimizer.safetensors, state.json and manifest.json.
It is filled under another name; the manifest (sizes and sha256) is written last, and its own name appears last of all.
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
"""In a checkpoint that was set aside: what is wrong with it, who found it, when."""

_CONTENT = (ADAPTERS, OPTIMIZER, STATE)
_NAME = re.compile(r"step-(\d{7,})")
_LEFTOVERS = (".step-*.partial", ".step-*.replaced", ".step-*.pruned")
_BAD_NAME = re.compile(r"step-(\d{7,})\.bad")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A folder from which an attempt continues exactly."""

    path: Path
    iteration: int  # completed iterations

    @property
    def adapters(self) -> Path:
        """The weights being trained."""
        return self.path / ADAPTERS

    @property
    def optimizer(self) -> Path:
        """Moments, step count, learning rate."""
        return self.path / OPTIMIZER

    def sha256(self, name: str) -> str:
        """Return the sha256 of a file as the manifest has it.

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
    """Write a checkpoint; it exists, complete and on the disk, when this returns.

    Args:
        folder: the job's checkpoints/.
        iteration: completed iterations.
        fill: writes adapters and optimizer into the folder it is given and returns the state.

    Returns:
        The checkpoint and its size in bytes.

    Raises:
        OSError: it cannot be written; FileNotFoundError where the job's folder is gone, which is not made again.
    """
    final = folder / f"step-{iteration:07d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    partial.mkdir(mode=0o700)
    state = fill(partial)
    (partial / STATE).write_text(json.dumps(state.to_json(), indent=1))
    for name in (ADAPTERS, OPTIMIZER):
        _require_whole(partial / name)
    entries = _flush(partial)
    manifest = {"version": VERSION, "iteration": iteration, "files": entries}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
    (partial / MANIFEST).chmod(0o600)
    fsync_file(partial / MANIFEST)
    fsync_file(partial)
    _name_it(partial, final)
    return Checkpoint(path=final, iteration=iteration), sum(int(entry["bytes"]) for entry in entries.values())


def _flush(partial: Path) -> dict[str, dict[str, Any]]:
    """Flush the files to the disk, and return each one's size and sha256, taken while the disk is busy with them."""
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="sha256") as threads:
        entries = {name: threads.submit(_entry, partial / name) for name in _CONTENT}
        for name in _CONTENT:
            (partial / name).chmod(0o600)
            fsync_file(partial / name)
        return {name: entry.result() for name, entry in entries.items()}


def verify(checkpoint: Checkpoint) -> None:
    """Check every file against the manifest.

    Raises:
        CheckpointInvalid: a file is missing, of another size or another content, or cannot be read; says which.
    """
    for name, (size, sha256) in _entries(checkpoint.path / MANIFEST).items():
        path = checkpoint.path / name
        found = _size(path)
        if found is None:
            raise CheckpointInvalid(f"{path} is missing")
        if found != size:
            raise CheckpointInvalid(f"{path} has {found} bytes, its manifest says {size}")
        if _sha256(path) != sha256:
            raise CheckpointInvalid(f"{path} is not what was written: its sha256 differs from the manifest's")


def listed(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints by name, oldest first; not yet verified."""
    if not folder.is_dir():
        return []
    found = [
        Checkpoint(path=path, iteration=int(match[1]))
        for path in folder.iterdir()
        if path.is_dir() and (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found, key=lambda checkpoint: checkpoint.iteration)


def valid(folder: Path, run_plan: RunPlan) -> list[Checkpoint]:
    """Return the checkpoints that verify and lie on the run plan, oldest first. Reads each of them whole."""
    found = []
    for checkpoint in listed(folder):
        with suppress(CheckpointInvalid):
            verify(checkpoint)
            if is_on(run_plan, checkpoint):
                found.append(checkpoint)
    return found


def newest_valid(folder: Path, run_plan: RunPlan, *, until: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies and lies on the run plan, and why newer ones are no good.

    Args:
        folder: the job's checkpoints/.
        run_plan: a checkpoint that a later stage has left behind is passed over in silence.
        until: later ones are too; None for no limit.
    """
    found, bad = _search(folder, run_plan, until)
    return found, [str(error) for _, error in bad]


def newest_sound(
    folder: Path, run_plan: RunPlan, *, by: str, until: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Do what `newest_valid` does, and set aside what is no good on the way.

    Args:
        folder: the job's checkpoints/.
        run_plan: as there.
        by: who looks, for the note left with it.
        until: as there.
    """
    found, bad = _search(folder, run_plan, until)
    return found, [_put_aside(checkpoint, error, by) for checkpoint, error in bad]


def _put_aside(checkpoint: Checkpoint, error: CheckpointInvalid, by: str) -> str:
    aside = None if isinstance(error, CheckpointOfAnotherVersion) else set_aside(checkpoint, str(error), by=by)
    return str(error) if aside is None else f"{error}; it is set aside as {aside.name}"


def set_aside(checkpoint: Checkpoint, why: str, *, by: str) -> Path | None:
    """Take a bad checkpoint out of the row, with a note of what is wrong; its files stay to be looked at.

    Args:
        checkpoint: the bad one.
        why: what is wrong with it.
        by: who found it.

    Returns:
        Its new name, `step-0000500.bad`; None where it cannot be renamed, so that it stays and is passed over.
    """
    aside = checkpoint.path.with_name(f"{checkpoint.path.name}.bad")
    shutil.rmtree(aside, ignore_errors=True)  # an earlier one of the same iteration
    try:
        checkpoint.path.rename(aside)
    except OSError:
        return None
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    with suppress(OSError):  # the name says enough where the disk is full
        (aside / WHY).write_text(f"{why}\nset aside {when} by {by}; it is not used, and may be deleted\n")
    return aside


def listed_bad(folder: Path) -> list[Path]:
    """Return the checkpoints that were set aside, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _BAD_NAME.fullmatch(path.name))


def why(aside: Path) -> str:
    """Return in one line why a checkpoint was set aside."""
    with suppress(OSError):
        return (aside / WHY).read_text(errors="replace").partition("\n")[0]
    return "nobody wrote down why"


def remove(path: Path) -> None:
    """Delete a checkpoint's folder: first it loses its name, so that no half of it is ever taken for one."""
    doomed = path.with_name(f".{path.name}.pruned")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def leftovers(folder: Path) -> list[Path]:
    """Return what a killed writer or deleter left, by name; `sweep` clears it away where nobody writes there."""
    found = [path for pattern in _LEFTOVERS for path in folder.glob(pattern)]
    return sorted(path for path in found if path.suffix != ".replaced" or _replacing(path).exists())


def _replacing(replaced: Path) -> Path:
    return replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))


def _search(
    folder: Path, run_plan: RunPlan, until: int | None
) -> tuple[Checkpoint | None, list[tuple[Checkpoint, CheckpointInvalid]]]:
    """Look for the newest good one on the run plan. One that somebody deletes meanwhile is simply not there."""
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
    """Say whether a checkpoint lies on the run plan, or was left behind by a stage that begins before it.

    Raises:
        CheckpointInvalid: its state cannot be read.
    """
    state = checkpoint.state()
    return run_plan.leads_to(state.examples_seen, state.stage)


def sweep(folder: Path) -> None:
    """Clear away what a killed writer left; a checkpoint it was about to replace gets its name back."""
    for replaced in folder.glob(".step-*.replaced"):
        if not _replacing(replaced).exists():
            replaced.rename(_replacing(replaced))
    for leftover in leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)


def best_valid(folder: Path, run_plan: RunPlan, *, until: int | None = None) -> Checkpoint | None:
    """Return the valid checkpoint with the lowest validation loss, the earliest of equals; None where none has one.

    Args:
        folder: the job's checkpoints/.
        run_plan: a checkpoint that a later stage has left behind does not count.
        until: nor do later ones; None for no limit.
    """
    return _search_best(folder, run_plan, until)[0]


def best_sound(
    folder: Path, run_plan: RunPlan, *, by: str, until: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Do what `best_valid` does, and set aside what is no good on the way, as `newest_sound` does."""
    found, bad = _search_best(folder, run_plan, until)
    return found, [_put_aside(checkpoint, error, by) for checkpoint, error in bad]


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


def _require_whole(path: Path) -> None:
    """Check that a safetensors file is as long as its own header says: a full disk may cut it without a word.

    Raises:
        OSError: it is shorter; ENOSPC, because that is how it comes about.
    """
    try:
        whole = tensor_files.header(path)[1]
    except ValueError:
        whole = None
    if whole is None or path.stat().st_size < whole:
        raise OSError(errno.ENOSPC, "the file was cut while it was written", str(path))


def _name_it(partial: Path, final: Path) -> None:
    """Give the folder its name. One of that name is a bad one, or holds the same state without its validation."""
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
    """Return what a manifest says: size and sha256 of each of the three files; a bit may be wrong in it too."""
    content = _read_versioned(manifest)
    try:
        return {name: (content["files"][name]["bytes"], content["files"][name]["sha256"]) for name in _CONTENT}
    except (KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{manifest} is not what was written") from error


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None where none is, also where it went while somebody looked."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # a bad spot on the disk
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
        raise CheckpointOfAnotherVersion(f"{path} has version {version}; this lq reads version {VERSION}")
    return dict(content)
