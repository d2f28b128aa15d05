"""The exit code each error stands for (design.md, "Command line")."""

from __future__ import annotations

import pytest

from jobs import errors


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
def test_each_error_has_its_exit_code(error: type[errors.LqError], code: int) -> None:
    assert error.exit_code == code


def test_no_error_is_left_out_of_the_tree() -> None:
    here = {value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__}
    assert all(issubclass(value, errors.LqError) for value in here)
    assert all(value.__name__ in (errors.__doc__ or "") for value in here)


def test_a_place_is_written_as_editors_read_it() -> None:
    assert errors.located("a.yaml", 3, "wrong") == "a.yaml:3: wrong"
    assert errors.located("a.yaml", None, "wrong") == "a.yaml: wrong"
