"""A job's model and adapter as one model folder, by `mlx_lm fuse`: whole under its name, or not there at all.

MLX-LM writes into a folder beside it, which gets the name when all is on the disk. What a killed fuse left there is
cleared away by the next one.
"""

from __future__ import annotations

import dataclasses
import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.model.errors import InvalidInput, LqError, NotAllowed
from orchestrator.artifacts import mlx_cli
from orchestrator.artifacts.weights import Tuned
from orchestrator.estimation import model_files
from orchestrator.formatting.text import size
from workers.files.atomic import fsync_file
from workers.process.lock import sole

SPARE_BYTES = 64 << 20
_DEQUANTISED_BITS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fused:
    """A model folder that needs no adapter."""

    path: Path
    bytes: int


def default_path(tuned: Tuned) -> Path:
    """Return where a fused model lies unless the user says otherwise."""
    return tuned.job.dir.path / "fused"


def require_place(target: Path, tuned: Tuned, *, force: bool, options: Sequence[str]) -> None:
    """Refuse a place that something else has, or whose disk is too small, before anything is loaded.

    Args:
        target: the folder to be.
        tuned: what is to be written there.
        force: a model that lies there may go.
        options: for MLX-LM's own command.

    Raises:
        InvalidInput: the place is given twice, or is the model's own.
        NotAllowed: something lies there.
        LqError: the disk is too small.
    """
    if any(one.partition("=")[0] == "--save-path" for one in options):
        raise InvalidInput("--save-path stands before the --: lq fuse ID --save-path DIR -- OPTION...")
    source = model_files.folder_of(tuned.model)
    if source is not None and target.resolve() in (source.resolve(), *source.resolve().parents):
        raise InvalidInput(f"{target} holds the model itself; name another folder with --save-path")
    _require_free(target, force=force)
    need = _need(source, options)
    free = shutil.disk_usage(next(place for place in (target, *target.parents) if place.is_dir())).free
    if need is not None and free < need + SPARE_BYTES:
        raise LqError(
            f"{target}: the fused model takes {size(need)}, and {size(free)} are free; "
            "make room (lq prune --all), or name another disk with --save-path"
        )


def _require_free(target: Path, *, force: bool) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise NotAllowed(f"{target} is there already; overwrite it with --force, or name another one with --save-path")
    if not _is_model(target):
        raise NotAllowed(f"{target} holds more than a model, so it stays; name another folder with --save-path")


def _is_model(folder: Path) -> bool:
    """Say whether a folder holds a model and nothing that could be more than one."""
    if folder.is_symlink() or not folder.is_dir() or any(path.is_dir() for path in folder.iterdir()):
        return False
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _need(source: Path | None, options: Sequence[str]) -> int | None:
    """Return the bytes that a fused model takes; None where the model is not on this machine yet."""
    if source is None:
        return None
    need = sum(path.stat().st_size for path in source.iterdir() if path.is_file())
    if "--dequantize" in options:
        read = model_files.read(str(source))
        quantised = (read.config.get("quantization") if read is not None else None) or {}
        need = need * _DEQUANTISED_BITS // int(quantised.get("bits") or _DEQUANTISED_BITS)
    return 2 * need if "--export-gguf" in options else need


def fuse(tuned: Tuned, target: Path, *, force: bool, options: Sequence[str]) -> Fused:
    """Write the folder.

    Args:
        tuned: a model and its adapter.
        target: where; `require_place` has looked at it.
        force: a model that lies there goes, once the new one is whole.
        options: more for MLX-LM's own command.

    Raises:
        NotAllowed: another fuse writes there, or something came there meanwhile.
        LqError: MLX-LM failed, or the folder cannot be written.
    """
    try:
        with _beside(target) as partial:
            arguments = tuned.arguments("fuse", "--save-path", str(partial), *options)
            mlx_cli.answer(mlx_cli.MLX_LM, arguments, name="mlx_lm.fuse")
            for path in sorted(partial.rglob("*")):
                fsync_file(path)
            written = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
            _require_free(target, force=force)
            _name_it(partial, target)
    except OSError as error:
        full = "; the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise LqError(f"{target} cannot be written: {error.strerror or error}{full}") from error
    return Fused(path=target, bytes=written)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside the target, that nobody else writes to, and clear away what is left of it."""
    partial = target.with_name(f".{target.name}.partial")
    _put_back(target)
    partial.mkdir(parents=True, exist_ok=True)
    with sole(partial, wait_s=0) as mine:
        if not mine:
            raise NotAllowed(f"another lq fuse writes {target} just now")
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # where it has its name, there is nothing to remove


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _put_back(target: Path) -> None:
    """Clear away what a killed fuse left; the model it was about to replace gets its name back."""
    replaced = _replaced(target)
    if replaced.is_dir() and not target.exists():
        replaced.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def _name_it(partial: Path, target: Path) -> None:
    if target.exists():
        target.rename(_replaced(target))
    partial.rename(target)
    fsync_file(target.parent)
    shutil.rmtree(_replaced(target), ignore_errors=True)
