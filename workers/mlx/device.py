"""What MLX reports about this machine, asked in a child process: the caller never imports mlx, and survives a crash.

The child, `python -P -m workers.mlx.device`, prints one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import Self

TIMEOUT_S = 60.0
"""From a cold disk, MLX and transformers can take half a minute to load; from a warm one, a second or two."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """What MLX reports."""

    mlx: str  # version
    mlx_lm: str  # version
    device: str  # MLX's name for it, and the processor's name
    metal: bool  # Metal is available
    recommended: int  # bytes of memory to use at most
    kernel_error: str | None  # why a compiled function failed; None if it ran


class DeviceQuery:
    """A child that loads MLX while the caller does other things; killed at the end of the block."""

    def __enter__(self) -> Self:
        """Start the child with a kernel folder of its own, so that it really compiles one."""
        self._folder = tempfile.TemporaryDirectory(prefix="lq-device-")
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.mlx.device"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=os.environ | {"TMPDIR": self._folder.name, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
            text=True,
            errors="replace",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the child and the compiler it may have started."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.communicate()
        self._folder.cleanup()

    def result(self, *, timeout_s: float = TIMEOUT_S) -> Device | str:
        """Wait for the child, and return what MLX reports, or in one line why the child failed."""
        try:
            out, err = self._popen.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout_s:.0f} s"
        code = self._popen.returncode
        with suppress(ValueError, TypeError, IndexError):
            return Device(**json.loads(out.splitlines()[-1]))
        last = err.strip().splitlines()[-1:] or ["no output"]
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{last[0][:200]} ({how})"


def main() -> None:
    """Print what MLX reports."""
    from workers.mlx import run  # noqa: F401 the trainer's imports are part of the check
    from workers.mlx.machine import device

    sys.stdout.write(json.dumps(dataclasses.asdict(device())) + "\n")


if __name__ == "__main__":
    main()
