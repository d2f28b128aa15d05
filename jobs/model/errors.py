"""Every error lq raises on purpose, in one tree. Nothing here may carry a secret.

    LqError                          1  something lq can name, but not the user's doing
    ├── InvalidInput                 2  a file, an option or a value the user can mend
    │   ├── ConfigInvalid            2  a job file or settings.yaml
    │   ├── DataInvalid              2  a row of a data file
    │   └── ModelMissing             2  the model folder is not there
    ├── NoSuchJob                    3
    ├── NoWorker                     4
    ├── NotAllowed                   5  the job or the worker is not in a state that permits this
    ├── CheckFailed                  6
    ├── HomeUnusable                 1  $LQ_HOME cannot be written
    ├── StoreUnusable                1  lq.db is damaged, or newer than this program
    ├── CheckpointInvalid            1  a checkpoint that does not verify
    │   └── CheckpointOfAnotherVersion  1  not damaged: another lq wrote it
    ├── EventInvalid                 1  a line of events.jsonl that is not an event
    └── SecretMissing                1  the keyring does not give what a URL asks for

The number is the exit code of the command line (jobs/model/exit_codes.py).
A message says what, where and what to do, in one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from jobs.model.exit_codes import ExitCode


class LqError(Exception):
    """Base of everything lq raises on purpose; its text is the line the user reads."""

    exit_code: ClassVar[int] = ExitCode.UNEXPECTED


class InvalidInput(LqError):
    """The user gave something that cannot be used as it is."""

    exit_code: ClassVar[int] = ExitCode.INVALID


class ConfigInvalid(InvalidInput):
    """A job file or settings.yaml says something lq cannot follow."""


class DataInvalid(InvalidInput):
    """A data file has a row that cannot be trained on."""


class ModelMissing(InvalidInput):
    """The model is named by a path, and nothing is there."""


class NoSuchJob(LqError):
    """No job has this id."""

    exit_code: ClassVar[int] = ExitCode.NO_SUCH_JOB


class NoWorker(LqError):
    """The command needs a worker, and none runs."""

    exit_code: ClassVar[int] = ExitCode.NO_WORKER


class NotAllowed(LqError):
    """The job or the worker is not in a state that permits this."""

    exit_code: ClassVar[int] = ExitCode.NOT_ALLOWED


class CheckFailed(LqError):
    """A check the user asked for did not pass."""

    exit_code: ClassVar[int] = ExitCode.CHECK_FAILED


class HomeUnusable(LqError):
    """$LQ_HOME cannot be used."""


class StoreUnusable(LqError):
    """The store is damaged, or belongs to a newer lq."""


class CheckpointInvalid(LqError):
    """A checkpoint does not verify."""


class CheckpointOfAnotherVersion(CheckpointInvalid):
    """A checkpoint was written by a newer lq; it may be as good as any."""


class EventInvalid(LqError):
    """A line of events.jsonl is not an event."""


class SecretMissing(LqError):
    """The keyring does not give what a URL asks for; the text names neither the secret nor where it lies."""


Line = int | str
"""A line of a file, from 1; or, as text, where else a value was given: `--set iters`."""


def located(path: Path | str, line: Line | None, text: str) -> str:
    """Return `path:line: text`, the form editors can jump to; `path: --set iters: text` where it was given there.

    Args:
        path: the file.
        line: where in it, or None where no line is meant.
        text: what is wrong and what to do.
    """
    if isinstance(line, str):
        return f"{path}: {line}: {text}"
    place = f"{path}:{line}" if line is not None else f"{path}"
    return f"{place}: {text}"


def message_of(error: BaseException) -> str:
    """Return an error's message in one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
