"""Runs one of MLX-LM's own commands as a child that ends with this process, and says in one line why it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from jobs.model.errors import InvalidInput, LqError
from workers.process.supervisor import CHILD_ENVIRONMENT
from workers.process.tethered import INTERRUPTED, TETHER

MLX_LM = "mlx_lm"
END_S = 5.0
"""So long a child may take to end when it is asked to."""

_TAIL_BYTES = 1 << 14
_USAGE = 2


@contextmanager
def started(module: str, arguments: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module as `python -P -m MODULE` for as long as the block takes; whatever happens, nothing of it is left.

    Args:
        module: such as `mlx_lm`.
        arguments: its own.
        streams: stdin, stdout and stderr as subprocess.Popen takes them.
    """
    tether, hold = os.pipe()
    try:
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.process.tethered", module, *arguments],
            pass_fds=(tether,),
            env=os.environ | CHILD_ENVIRONMENT | {TETHER: str(tether)},
            **streams,
        )
    except BaseException:
        os.close(hold)
        raise
    finally:
        os.close(tether)
    try:
        with popen:
            try:
                yield popen
            finally:
                end(popen)
    finally:
        os.close(hold)


def end(popen: subprocess.Popen[bytes]) -> None:
    """Ask a child to end, kill it where it does not, and see it gone."""
    if popen.poll() is not None:
        return
    popen.terminate()
    try:
        popen.wait(END_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def answer(module: str, arguments: Sequence[str], *, name: str) -> str:
    """Run a module to its end and return what it printed.

    Args:
        module: what runs.
        arguments: its own.
        name: what it is called where it fails.

    Raises:
        what `require_done` does.
    """
    with tempfile.TemporaryFile() as errors:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
        with started(module, arguments, **streams) as popen:
            said, _ = popen.communicate()
        require_done(popen, name=name, errors=errors)
    return said.decode(errors="replace")


def require_done(popen: subprocess.Popen[bytes], *, name: str, errors: IO[bytes] | None) -> None:
    """Return where a child did what it was asked to.

    Args:
        popen: gone.
        name: what it is called.
        errors: what it wrote to stderr; None where the user has seen that.

    Raises:
        KeyboardInterrupt: the user ended it.
        InvalidInput: it cannot follow its options, or what they name.
        LqError: it failed otherwise.
    """
    code = popen.returncode
    if code == 0:
        return
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0:
        why = "; perhaps for want of memory" if code == -signal.SIGKILL else ""
        raise LqError(f"{name} was ended by {signal.Signals(-code).name}{why}")
    told = last_line(errors) if errors is not None else None
    if told is None:
        seen = "; what it said stands above" if errors is None else ""
        raise LqError(f"{name} failed with exit code {code}{seen}")
    if code == _USAGE:
        _, of_options, said = told.partition(": error: ")
        raise InvalidInput(f"{name}: {said}; see: {name} --help" if of_options else told)
    raise LqError(f"{name} failed: {told}")


def last_line(errors: IO[bytes]) -> str | None:
    """Return the last line that says something; None where there is none."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _TAIL_BYTES))
    lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), None)
