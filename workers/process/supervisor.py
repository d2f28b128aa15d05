"""Supervises one trainer: starts or adopts it, checks that it runs, stops it, reports how it exited.

A trainer leads its own session, so that it survives the end of its terminal, its worker or their process group.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.model.job import ProcessIdentity
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import ExitReport
from workers.events import log as event_log
from workers.process.lock import holder, running_holder
from workers.system import processes
from workers.system.clock import boot_id

TAIL_LINES = 200
_TAIL_BYTES = 1 << 16
_UNTIL_IDENTIFIED_S = 10.0

CHILD_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "true",  # as mlx_lm.lora sets it
    "TRANSFORMERS_VERBOSITY": "error",  # no warning that PyTorch is missing
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
"""Environment variables of every child that runs MLX-LM."""


class Child:
    """A trainer that this worker started or adopted."""

    def __init__(
        self,
        identity: ProcessIdentity,
        job_dir: JobDir,
        attempt: int,
        *,
        popen: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Use `spawn` or `adopt`; only a child of this process has a `popen`, so only its exit code can be read."""
        self.identity = identity
        self._job_dir = job_dir
        self._attempt = attempt
        self._popen = popen
        self.stop_requested_at: float | None = None  # on the clock that stops in sleep
        self.killed = False

    def lives(self) -> bool:
        """Report whether it still runs; False only with proof."""
        if self._popen is not None:
            return self._popen.poll() is None
        return processes.is_alive(self.identity)

    def request_stop(self) -> None:
        """Request a checkpoint and a stop, from the trainer only: TERM to a compiler it runs would tear a file."""
        if self.stop_requested_at is None:
            self.stop_requested_at = time.monotonic()
            processes.signal_one(self.identity, signal.SIGTERM)
            processes.signal_one(self.identity, signal.SIGCONT)  # a suspended process handles no other signal

    def request_validation(self) -> None:
        """Request a validation and a checkpoint; the trainer must have begun to train."""
        processes.signal_one(self.identity, signal.SIGUSR1)

    def kill_after(self, grace_s: float) -> None:
        """Kill its session if a stop was requested more than `grace_s` seconds ago."""
        if self.stop_requested_at is not None and time.monotonic() - self.stop_requested_at > grace_s:
            self.killed = processes.signal_group(self.identity, signal.SIGKILL) or self.killed

    def close_stdin(self) -> None:
        if self._popen is not None and self._popen.stdin is not None:
            self._popen.stdin.close()

    def exit_report(self) -> ExitReport:
        """Return what its process, its event log and its output show about its exit; callers add what they observed."""
        code = self._popen.returncode if self._popen is not None else None
        return ExitReport(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            ended=event_log.ended_event(self._job_dir.events, self._attempt),
            stop_asked=self.stop_requested_at is not None,
            killed_by_lq=self.killed,
            same_boot=self.identity.boot_id == boot_id(),
            stderr_tail=log_tail(self._job_dir.log, self._attempt),
        )


def spawn(
    job_dir: JobDir,
    attempt: int,
    *,
    module: str = "workers.mlx.train",
    arguments: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
) -> Child:
    """Start a child in its own session; `arguments` follow the folder and the attempt.

    Raises:
        OSError: it cannot be started.
    """
    descriptor = os.open(job_dir.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "wb") as log:
        log.write(_header(attempt).encode())
        log.flush()
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(job_dir.path), "--attempt", str(attempt), *arguments],
            stdin=stdin,
            stdout=log,
            stderr=log,
            cwd=job_dir.path,
            env=os.environ | CHILD_ENVIRONMENT,
            start_new_session=True,
        )
    try:
        identity = processes.identity(popen.pid)
    except ProcessLookupError:  # it has exited already; its exit code has the reason
        identity = ProcessIdentity(pid=popen.pid, create_time=time.time(), boot_id=boot_id())
    return Child(identity, job_dir, attempt, popen=popen)


def adopt(job_dir: JobDir, attempt: int, known: ProcessIdentity | None) -> Child | None:
    """Return the running trainer of an attempt whose worker is gone; None if none runs.

    A trainer that has not locked the folder yet and is not in the store (`known`) cannot be adopted. It exits by
    itself, because the folder is locked then, or its lock file names a newer attempt.
    """
    present = lock_holder(job_dir)
    if present is not None and present[1] == attempt:
        return Child(present[0], job_dir, attempt)
    if known is not None and processes.is_alive(known):
        return Child(known, job_dir, attempt)
    return None


def exited(job_dir: JobDir, attempt: int, known: ProcessIdentity | None) -> Child:
    """Return a stand-in for a trainer that has exited, for its exit report."""
    return Child(known or ProcessIdentity(pid=0, create_time=0.0, boot_id=boot_id()), job_dir, attempt)


def lock_holder(job_dir: JobDir) -> tuple[ProcessIdentity, int] | None:
    """Return the holder of the trainer's lock and its attempt; None if no process holds it.

    A holder writes its name right after it takes the lock; this waits until it has.
    """
    deadline = time.monotonic() + _UNTIL_IDENTIFIED_S
    while holder(job_dir.lock) is not None and time.monotonic() <= deadline:
        if (named := running_holder(job_dir.lock)) is not None:
            return named[0], int(named[1].get("attempt", 0))
        time.sleep(0.02)
    return None


def log_tail(path: Path, attempt: int) -> str:
    """Return the last lines that an attempt wrote to its log, at most `TAIL_LINES`."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    _, _, own = text.rpartition(_header(attempt))
    return "\n".join(own.splitlines()[-TAIL_LINES:])


def _header(attempt: int) -> str:
    return f"=== attempt {attempt} ===\n"
