"""The pages of docs/ that are made from the program say what the program says now."""

from __future__ import annotations

import pytest

from tests.docs import GENERATORS, ROOT


@pytest.mark.parametrize("name", GENERATORS)
def test_a_page_is_what_the_program_makes_of_it(name: str) -> None:
    assert (ROOT / name).read_text() == GENERATORS[name](), f"{name} is out of date; write it with: make docs"
