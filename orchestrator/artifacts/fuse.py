"""`lq fuse`: model and adapter of a job as one model folder, written by `mlx_lm fuse`.

MLX-LM writes into a folder next to the target, which is renamed when everything is on the disk. The next fuse deletes
what a killed one left behind.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.model.errors import InvalidInput, LqError, NotAllowed
from orchestrator.artifacts import mlx_cli
from orchestrator.artifacts.weights import TunedModel
from orchestrator.formatting.text import size
from orchestrator.model_files import files as model_files
from orchestrator.model_files.hub_cache import folder_of
from workers.files.atomic import fsync_file
from workers.process.lock import sole

SPARE_BYTES = 64 << 20
_DEQUANTISED_BITS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedModel:
    """A model folder that needs no adapter."""

    path: Path
    bytes: int


def require_target(target: Path, tuned: TunedModel, *, force: bool, options: Sequence[str]) -> None:
    """Check the target folder, its disk and the options for `mlx_lm fuse` before the model is loaded.

    Raises:
        InvalidInput: the options name another target, or the target contains the base model.
        NotAllowed: the target exists.
        LqError: the disk is too small.
    """
    if any(option.partition("=")[0] == "--save-path" for option in options):
        raise InvalidInput("--save-path must come before the --: lq fuse ID --save-path DIR -- OPTION...")
    source = folder_of(tuned.model)
    if source is not None and target.resolve() in (source.resolve(), *source.resolve().parents):
        raise InvalidInput(f"{target} contains the base model; choose another folder with --save-path")
    _require_free(target, force=force)
    need = _need(source, options)
    free = shutil.disk_usage(next(place for place in (target, *target.parents) if place.is_dir())).free
    if need is not None and free < need + SPARE_BYTES:
        raise LqError(
            f"{target}: the fused model needs {size(need)}, {size(free)} are free; "
            "free space (lq prune --all), or choose another disk with --save-path"
        )


def _require_free(target: Path, *, force: bool) -> None:
    if (target.is_dir() and not any(target.iterdir())) or not os.path.lexists(target):
        return
    if not force:
        raise NotAllowed(f"{target} exists; overwrite it with --force, or choose another folder with --save-path")
    is_flat = not target.is_symlink() and target.is_dir() and not any(path.is_dir() for path in target.iterdir())
    if not is_flat or not (target / "config.json").is_file() or not any(target.glob("*.safetensors")):
        raise NotAllowed(f"{target} contains more than a model; choose another folder with --save-path")


def _need(source: Path | None, options: Sequence[str]) -> int | None:
    """Return the bytes that a fused model needs; None if the model is not on this machine yet."""
    if source is None:
        return None
    need = sum(path.stat().st_size for path in source.iterdir() if path.is_file())
    if "--dequantize" in options:
        model = model_files.read(str(source))
        quantised = (model.config.get("quantization") if model is not None else None) or {}
        need = need * _DEQUANTISED_BITS // int(quantised.get("bits") or _DEQUANTISED_BITS)
    return 2 * need if "--export-gguf" in options else need


def fuse(tuned: TunedModel, target: Path, *, force: bool, options: Sequence[str]) -> FusedModel:
    """Write the model folder. Takes the arguments of `require_target`, which must have accepted them."""
    try:
        with _partial_folder(target) as partial:
            arguments = tuned.arguments("fuse", "--save-path", str(partial), *options)
            mlx_cli.answer(mlx_cli.MLX_LM, arguments, name="mlx_lm.fuse")
            for path in sorted(partial.rglob("*")):
                fsync_file(path)
            written = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
            _require_free(target, force=force)
            _rename(partial, target)
    except OSError as error:
        full = "; the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise LqError(f"{target} cannot be written: {error.strerror or error}{full}") from error
    return FusedModel(path=target, bytes=written)


@contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    """Yield an empty, locked folder next to the target, and delete it at the end if it was not renamed."""
    partial = target.with_name(f".{target.name}.partial")
    _recover(target)
    partial.mkdir(parents=True, exist_ok=True)
    with sole(partial, wait_s=0) as locked:
        if not locked:
            raise NotAllowed(f"another lq fuse is writing {target}")
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # after the rename there is none


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _recover(target: Path) -> None:
    """Clean up after a killed fuse, and restore the model that it was about to replace."""
    replaced = _replaced(target)
    if replaced.is_dir() and not target.exists():
        replaced.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _rename(partial: Path, target: Path) -> None:
    if target.exists():
        target.rename(_replaced(target))
    partial.rename(target)
    fsync_file(target.parent)
    shutil.rmtree(_replaced(target), ignore_errors=True)
