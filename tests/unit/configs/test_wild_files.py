"""Job files as people publish them: what is refused before anything is loaded, and with which words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.data_files import check_data
from configs.load import load_jobs
from jobs.model.errors import InvalidInput
from tests import wild_files


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Give the files with a model and data beside them."""
    return wild_files.laid_out(tmp_path_factory.mktemp("wild"))


def test_every_file_has_its_expectation() -> None:
    expected = {*wild_files.REFUSED, *wild_files.FAILS, *wild_files.RUNS}
    assert {path.stem for path in wild_files.FOLDER.glob("*.yaml")} == expected
    assert len(expected) >= 12


@pytest.mark.parametrize("name", sorted(wild_files.REFUSED))
def test_a_file_that_cannot_be_followed_is_refused_for_the_right_reason(name: str, placed: Mapping[str, Path]) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_jobs(placed[name])
    assert str(refused.value).startswith(f"{placed[name]}:{wild_files.REFUSED[name]}")


@pytest.mark.parametrize("name", sorted({*wild_files.FAILS, *wild_files.RUNS}))
def test_a_file_that_can_be_followed_is_not_refused(name: str, placed: Mapping[str, Path]) -> None:
    check_data(load_jobs(placed[name])[0].spec)


@pytest.mark.parametrize("path", sorted(wild_files.FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_where_its_style_comes_from_and_what_becomes_of_it(path: Path) -> None:
    said = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# "))
    assert "style of" in said or "example" in said
    assert any(word in said for word in ("Runs", "Refused:", "Would fail:"))
