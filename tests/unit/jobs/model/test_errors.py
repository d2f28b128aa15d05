"""The tree of errors and the exit codes (docs/reference/exit-codes.md)."""

from __future__ import annotations

import re

import pytest

from jobs.model import errors
from jobs.model.exit_codes import ExitCode
from jobs.model.states import Status
from orchestrator.cli.commands import run
from orchestrator.results.json_schema import comments_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.LqError, 1),
        (errors.InvalidInput, 2),
        (errors.ConfigInvalid, 2),
        (errors.DataInvalid, 2),
        (errors.ModelMissing, 2),
        (errors.NoSuchJob, 3),
        (errors.NoWorker, 4),
        (errors.NotAllowed, 5),
        (errors.CheckFailed, 6),
        (errors.HomeUnusable, 1),
        (errors.StoreUnusable, 1),
        (errors.CheckpointInvalid, 1),
        (errors.CheckpointOfAnotherVersion, 1),
        (errors.EventInvalid, 1),
        (errors.SecretMissing, 1),
    ],
)
def test_error_has_its_exit_code(error: type[errors.LqError], code: int) -> None:
    assert error.exit_code == code


def test_docstring_names_every_error() -> None:
    here = {value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__}
    assert all(issubclass(value, errors.LqError) for value in here)
    assert all(value.__name__ in (errors.__doc__ or "") for value in here)


def test_docstring_gives_every_exit_code() -> None:
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.LqError):
            assert re.search(rf"\b{name}\b +{int(error.exit_code)}\b", errors.__doc__ or ""), name


def test_exit_codes_keep_their_numbers() -> None:
    """Scripts depend on these numbers."""
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "UNEXPECTED": 1,
        "INVALID": 2,
        "NO_SUCH_JOB": 3,
        "NO_WORKER": 4,
        "NOT_ALLOWED": 5,
        "CHECK_FAILED": 6,
        "JOB_FAILED": 100,
        "TIMED_OUT": 101,
        "NOTHING_TO_WAIT_FOR": 102,
        "JOB_CANCELLED": 103,
        "JOB_SKIPPED": 104,
        "INTERRUPTED": 130,
    }


def test_every_exit_code_has_a_comment() -> None:
    assert comments_of(ExitCode).keys() == ExitCode.__members__.keys()


def test_wait_codes_are_exit_codes() -> None:
    assert run.CODES == {
        Status.SUCCEEDED: ExitCode.DONE,
        Status.FAILED: ExitCode.JOB_FAILED,
        Status.CANCELLED: ExitCode.JOB_CANCELLED,
        Status.SKIPPED: ExitCode.JOB_SKIPPED,
    }
    assert (run.TIMED_OUT, run.NO_SUCH_JOB) == (ExitCode.TIMED_OUT, ExitCode.NOTHING_TO_WAIT_FOR)


def test_located_has_editor_format() -> None:
    assert errors.located("a.yaml", 3, "wrong") == "a.yaml:3: wrong"
    assert errors.located("a.yaml", None, "wrong") == "a.yaml: wrong"
