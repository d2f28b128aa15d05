"""The exit codes of `lq`. They do not change between versions.

jobs/policies/exits.py has the exit codes of the trainer, which only the worker sees. docs/reference/exit-codes.md is
generated from this list.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes and their meaning."""

    DONE = 0  # success; for `lq wait`, `lq run` and `lq submit --wait`: every job succeeded
    UNEXPECTED = 1  # unexpected error, or the home or its store cannot be used
    INVALID = 2  # usage, or an invalid job file, data file or settings.yaml
    NO_SUCH_JOB = 3  # no such job or group
    NO_WORKER = 4  # the command needs a worker, but none runs
    NOT_ALLOWED = 5  # the job or the worker is not in a state that permits this
    CHECK_FAILED = 6  # a check failed: `lq check`, `verify`, `doctor`, `notify test`
    JOB_FAILED = 100  # a job failed; 100 to 104 occur only in `lq wait`, `lq run` and `lq submit --wait`
    TIMED_OUT = 101  # timed out; the jobs continue
    NOTHING_TO_WAIT_FOR = 102  # no such job, or no job to wait for
    JOB_CANCELLED = 103  # a job was cancelled
    JOB_SKIPPED = 104  # a job was skipped, because a job that it waits for failed
    INTERRUPTED = 130  # Ctrl-C
