"""All errors that lq raises on purpose. No message contains a secret.

    LqError                          1  a known problem that is not a mistake of the user
    ├── InvalidInput                 2  a file, an option or a value that the user can correct
    │   ├── ConfigInvalid            2  a job file or settings.yaml
    │   ├── DataInvalid              2  a row of a data file
    │   └── ModelMissing             2  the model folder does not exist
    ├── NoSuchJob                    3
    ├── NoWorker                     4
    ├── NotAllowed                   5  the job or the worker is not in a state that permits this
    ├── CheckFailed                  6
    ├── HomeUnusable                 1  $LQ_HOME cannot be written
    ├── StoreUnusable                1  lq.db is damaged, or newer than this program
    ├── CheckpointInvalid            1  a checkpoint that does not verify
    │   └── CheckpointOfAnotherVersion  1  another version of lq wrote it
    ├── EventInvalid                 1  a line of events.jsonl that is not an event
    └── SecretMissing                1  the keyring lacks the secret of a URL

The number is the exit code of the command line (jobs/model/exit_codes.py). A message is one line: what is wrong, where,
and what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from jobs.model.exit_codes import ExitCode


class LqError(Exception):
    """Base of all errors that lq raises on purpose. Its text is the line that the user reads."""

    exit_code: ClassVar[int] = ExitCode.UNEXPECTED


class InvalidInput(LqError):
    """An input of the user is invalid."""

    exit_code: ClassVar[int] = ExitCode.INVALID


class ConfigInvalid(InvalidInput):
    """A job file or settings.yaml is invalid."""


class DataInvalid(InvalidInput):
    """A data file is missing or has an invalid row."""


class ModelMissing(InvalidInput):
    """The model is named by a path that does not exist."""


class NoSuchJob(LqError):
    exit_code: ClassVar[int] = ExitCode.NO_SUCH_JOB


class NoWorker(LqError):
    exit_code: ClassVar[int] = ExitCode.NO_WORKER


class NotAllowed(LqError):
    exit_code: ClassVar[int] = ExitCode.NOT_ALLOWED


class CheckFailed(LqError):
    exit_code: ClassVar[int] = ExitCode.CHECK_FAILED


class HomeUnusable(LqError):
    """$LQ_HOME cannot be used."""


class StoreUnusable(LqError):
    """The store is damaged, or a newer lq wrote it."""


class CheckpointInvalid(LqError):
    """A checkpoint does not verify."""


class CheckpointOfAnotherVersion(CheckpointInvalid):
    """A newer lq wrote the checkpoint, which may be intact."""


class EventInvalid(LqError):
    """A line of events.jsonl is not an event."""


class SecretMissing(LqError):
    """The keyring lacks the secret of a URL. The text names neither the secret nor its place."""


Line = int | str
"""A line of a file, from 1, or the option that gave a value: `--set iters`."""


def located(path: Path | str, line: Line | None, text: str) -> str:
    """Return `path:line: text`, which editors can jump to, or `path: --set iters: text`."""
    if isinstance(line, str):
        return f"{path}: {line}: {text}"
    return f"{path}: {text}" if line is None else f"{path}:{line}: {text}"


def message_of(error: BaseException) -> str:
    """Return an error's message in one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
