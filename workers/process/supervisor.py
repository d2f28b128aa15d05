"""The keeper of one child: spawn it or adopt it, see whether it lives, stop it, say how it ended.

A child leads its own session, so that a terminal, a worker or a whole group can go without taking it along.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from jobs.model.job import ProcessIdentity
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import ExitReport
from workers.events import log as event_log
from workers.process.lock import holder, named_in
from workers.system import processes
from workers.system.sensors import boot_id

TAIL_LINES = 200
_TAIL_BYTES = 1 << 16
_UNTIL_IDENTIFIED_S = 10.0

QUIET = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "true",  # as mlx_lm.lora sets it
    "TRANSFORMERS_VERBOSITY": "error",  # it remarks that PyTorch is missing, which is as it should be
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
"""What every child that runs MLX-LM finds in its environment."""


class Child:
    """A training process, ours or adopted."""

    def __init__(
        self,
        identity: ProcessIdentity,
        job_dir: JobDir,
        attempt: int,
        *,
        popen: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Use `spawn` or `adopt`.

        Args:
            identity: who it is.
            job_dir: what it works on.
            attempt: the attempt's number.
            popen: the handle, where it is this process's own child; only a parent learns an exit code.
        """
        self.identity = identity
        self._job_dir = job_dir
        self._attempt = attempt
        self._popen = popen
        self.stop_asked_at: float | None = None  # on the clock that stops in sleep
        self.killed = False

    @property
    def adopted(self) -> bool:
        """Whether an earlier worker started it."""
        return self._popen is None

    def lives(self) -> bool:
        """Say whether it still runs; False only on proof."""
        if self._popen is not None:
            return self._popen.poll() is None
        return processes.is_alive(self.identity)

    def ask_to_stop(self) -> None:
        """Ask it to checkpoint and stop. Only the trainer hears it: TERM to a compiler it runs would tear a file."""
        if self.stop_asked_at is None:
            self.stop_asked_at = time.monotonic()
            processes.signal_one(self.identity, signal.SIGTERM)
            processes.signal_one(self.identity, signal.SIGCONT)  # one that was stopped hears nothing else

    def ask_to_validate(self) -> None:
        """Ask it to validate and checkpoint between two due ones; it listens once it has begun to train."""
        processes.signal_one(self.identity, signal.SIGUSR1)

    def kill_after(self, grace_s: float) -> None:
        """End its whole session by KILL if it was asked to stop longer ago than this."""
        if self.stop_asked_at is not None and time.monotonic() - self.stop_asked_at > grace_s:
            self.killed = processes.signal_group(self.identity, signal.SIGKILL) or self.killed

    def let_go(self) -> None:
        """Close its stdin, where that was kept open for it."""
        if self._popen is not None and self._popen.stdin is not None:
            self._popen.stdin.close()

    def exit_report(
        self,
        *,
        phase: str | None = None,
        pressure_high: bool = False,
        memory_share: float | None = None,
        kernel_oom_kills: int = 0,
        stall: str | None = None,
        guarded: str | None = None,
        disk_low: str | None = None,
    ) -> ExitReport:
        """Say what is known about its end.

        Args:
            phase: what it was doing, as far as it said.
            pressure_high: whether memory was short at its last sample.
            memory_share: the most it took, in parts of its limit.
            kernel_oom_kills: processes the kernel ended for memory while it lived.
            stall: why lq ended it as stalled.
            guarded: why the memory guard had it stop.
            disk_low: why lq had it stop for want of space.
        """
        code = self._popen.returncode if self._popen is not None else None
        words = event_log.last_words(self._job_dir.events, self._attempt)
        return ExitReport(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            ended=words.data if words is not None else None,
            stop_asked=self.stop_asked_at is not None,
            killed_by_lq=self.killed,
            same_boot=self.identity.boot_id == boot_id(),
            stderr_tail=log_tail(self._job_dir.log, self._attempt),
            phase=phase,
            pressure_high=pressure_high,
            memory_share=memory_share,
            kernel_oom_kills=kernel_oom_kills,
            stall=stall,
            guarded=guarded,
            disk_low=disk_low,
        )


def spawn(
    job_dir: JobDir,
    attempt: int,
    *,
    module: str = "workers.mlx.train",
    arguments: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
) -> Child:
    """Start a child in a session of its own.

    Args:
        job_dir: its folder.
        attempt: its number.
        module: what it runs.
        arguments: more of them.
        stdin: as subprocess.Popen takes it.

    Raises:
        OSError: it cannot be started.
    """
    with _opened(job_dir.log) as log:
        log.write(_header(attempt).encode())
        log.flush()
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(job_dir.path), "--attempt", str(attempt), *arguments],
            stdin=stdin,
            stdout=log,
            stderr=log,
            cwd=job_dir.path,
            env=os.environ | QUIET,
            start_new_session=True,
        )
    try:
        identity = processes.identity(popen.pid)
    except ProcessLookupError:  # dead already; its exit code will tell
        identity = ProcessIdentity(pid=popen.pid, create_time=time.time(), boot_id=boot_id())
    return Child(identity, job_dir, attempt, popen=popen)


def adopt(job_dir: JobDir, attempt: int, known: ProcessIdentity | None) -> Child | None:
    """Return the living child of an attempt whose worker is gone, None where there is none.

    A child that has not taken its lock yet and is not known cannot be found; it will find the lock taken, or a newer
    attempt written in it, and go by itself.

    Args:
        job_dir: the job's folder.
        attempt: the attempt's number.
        known: the child as the store knows it.
    """
    found = lock_holder(job_dir)
    if found is not None and found[1] == attempt:
        return Child(found[0], job_dir, attempt)
    if known is not None and processes.is_alive(known):
        return Child(known, job_dir, attempt)
    return None


def departed(job_dir: JobDir, attempt: int, known: ProcessIdentity | None) -> Child:
    """Return a stand-in for a child that is gone, to ask it for its exit report."""
    return Child(known or ProcessIdentity(pid=0, create_time=0.0, boot_id=boot_id()), job_dir, attempt)


def lock_holder(job_dir: JobDir) -> tuple[ProcessIdentity, int] | None:
    """Return who holds the trainer's lock and for which attempt; None where nobody does.

    Between taking the lock and writing its name into it a holder is nameless for an instant: wait for it.
    """
    deadline = time.monotonic() + _UNTIL_IDENTIFIED_S
    while (content := holder(job_dir.lock)) is not None:
        who = named_in(content)
        if who is not None and processes.is_alive(who):
            return who, int(content.get("attempt", 0))
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    return None


def log_tail(path: Path, attempt: int) -> str:
    """Return the last lines an attempt wrote to its log, at most `TAIL_LINES`."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    _, _, own = text.rpartition(_header(attempt))
    return "\n".join(own.splitlines()[-TAIL_LINES:])


def _header(attempt: int) -> str:
    return f"=== attempt {attempt} ===\n"


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")
