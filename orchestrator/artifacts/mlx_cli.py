"""Runs a command of MLX-LM as a child process that ends with this one, and reports a failure in one line."""

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
END_S = 5.0  # seconds between SIGTERM and SIGKILL

_TAIL_BYTES = 1 << 14
_USAGE = 2


@contextmanager
def started(module: str, arguments: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module as `python -P -m MODULE`, and end it when the block ends or this process is killed."""
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
    """Terminate a child, kill it if it does not end, and wait for it."""
    if popen.poll() is not None:
        return
    popen.terminate()
    try:
        popen.wait(END_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def answer(module: str, arguments: Sequence[str], *, name: str) -> str:
    """Run a module to its end and return its standard output. Raises as `require_done` does."""
    with tempfile.TemporaryFile() as errors:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
        with started(module, arguments, **streams) as popen:
            output, _ = popen.communicate()
        require_done(popen, name=name, errors=errors)
    return output.decode(errors="replace")


def require_done(popen: subprocess.Popen[bytes], *, name: str, errors: IO[bytes] | None) -> None:
    """Raise unless a child that has ended succeeded; `errors` is its stderr, None if the user has seen it.

    Raises:
        KeyboardInterrupt: the user interrupted it.
        InvalidInput: its options are invalid.
        LqError: it failed for another reason.
    """
    code = popen.returncode
    if code == 0:
        return
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0:
        why = "; perhaps the memory was too small" if code == -signal.SIGKILL else ""
        raise LqError(f"{name} was ended by {signal.Signals(-code).name}{why}")
    last = last_line(errors) if errors is not None else None
    if last is None:
        hint = "; see its output above" if errors is None else ""
        raise LqError(f"{name} failed with exit code {code}{hint}")
    if code == _USAGE:
        _, of_options, message = last.partition(": error: ")
        raise InvalidInput(f"{name}: {message}; see: {name} --help" if of_options else last)
    raise LqError(f"{name} failed: {last}")


def last_line(errors: IO[bytes]) -> str | None:
    """Return the last line that is not empty; None if there is none."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _TAIL_BYTES))
    lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), None)
