"""The exit codes of `lq`, all of them, for scripts that must know how a command went.

They stay what they are: a script that was written for one version works with the next. What the trainer's process
itself ends with is in jobs/policies/exits.py; only the worker sees it. docs/reference/exit-codes.md is made from this
list.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a number that `lq` ends with means."""

    DONE = 0  # done; of `lq wait`, `lq run` and `lq submit --wait`: every job succeeded
    UNEXPECTED = 1  # something unexpected, or the home or its store cannot be used
    INVALID = 2  # usage, or an invalid job file, data file or settings.yaml
    NO_SUCH_JOB = 3  # no such job or group
    NO_WORKER = 4  # the command needs a worker, and none runs
    NOT_ALLOWED = 5  # the job or the worker is not in a state that permits this
    CHECK_FAILED = 6  # a check that was asked for did not pass: `lq check`, `verify`, `doctor`, `notify test`
    JOB_FAILED = 100  # of `lq wait`, `lq run` and `lq submit --wait`, as all below 105: a job failed
    TIMED_OUT = 101  # the time-out came first; the jobs go on
    NOTHING_TO_WAIT_FOR = 102  # no such job, or none to wait for
    JOB_CANCELLED = 103  # a job was cancelled
    JOB_SKIPPED = 104  # a job was skipped, because one that it comes after failed
    INTERRUPTED = 130  # Ctrl-C
