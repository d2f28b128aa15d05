"""What the acceptance tests share: one run that nothing disturbs, and the moment before MLX was ever used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.undisturbed import Undisturbed, lived_through
from tests.harness import Workshop


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, workshop: Workshop) -> Iterator[Undisturbed]:
    """Give the undisturbed run. It comes first, so it also has MLX compile its kernels once on a fresh machine.

    Tests that use it limit their own time with `func_only`; this run has a limit of its own.
    """
    with lived_through(tmp_path_factory.mktemp("undisturbed"), workshop) as run:
        yield run
