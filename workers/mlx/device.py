"""Asks a throw-away child what MLX finds on this machine: whoever asks never imports mlx, and a crash is an answer.

As the child: `python -P -m workers.device` prints one line of JSON.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """What a child that imported MLX found."""

    mlx: str  # version
    mlx_lm: str  # version
    device: str  # as MLX calls it, with the processor's name
    metal: bool  # whether Metal is there
    recommended: int  # bytes the device recommends to take
    kernel_error: str | None  # why a compiled function could not be run


PATIENCE_S = 60.0
"""A cold disk can take half a minute to load MLX and transformers; a warm one takes a second or two."""


class Asking:
    """A child that looks at MLX while its parent looks at other things; gone when the block is left."""

    def __enter__(self) -> Self:
        """Start the child; its kernels go to a folder of its own, so that one is really compiled."""
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
        """End the child, and the compiler that it may have started."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.communicate()
        self._folder.cleanup()

    def answer(self, *, timeout_s: float = PATIENCE_S) -> Device | str:
        """Wait for the child.

        Args:
            timeout_s: seconds to wait.

        Returns:
            What it found; or, in a few words, why it found nothing.
        """
        try:
            out, err = self._popen.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout_s:.0f} s"
        code = self._popen.returncode
        with suppress(ValueError, TypeError, IndexError):
            return Device(**json.loads(out.splitlines()[-1]))
        last = err.strip().splitlines()[-1:] or ["it said nothing"]
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{last[0][:200]} ({how})"


def main() -> None:
    """Be the child."""
    from workers.mlx import run  # noqa: F401 the trainer's imports are part of the check
    from workers.mlx.machine import device_facts

    sys.stdout.write(json.dumps(device_facts()) + "\n")


if __name__ == "__main__":
    main()
