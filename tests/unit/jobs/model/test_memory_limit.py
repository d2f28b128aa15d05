"""The memory limit of a run."""

from __future__ import annotations

import pytest

from jobs.model.memory_limit import fits, limit_bytes, usable_bytes


@pytest.mark.parametrize(("limit", "expected"), [("85%", 850), (123, 123), ("100%", 1000)])
def test_limit_is_a_share_or_a_size(limit: int | str, expected: int) -> None:
    assert limit_bytes(limit, 1000) == expected


def test_fits_up_to_the_guards_share() -> None:
    assert usable_bytes(1000) == 920
    assert fits(920, 1000)
    assert not fits(921, 1000)
