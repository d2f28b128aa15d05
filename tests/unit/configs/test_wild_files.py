"""Job files in the style of public ones: which are refused before the model is loaded, and with which error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.data_files import check_data
from configs.load import load_jobs
from jobs.model.errors import InvalidInput
from tests import wild_files


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return copies of the files, next to a model and data."""
    return wild_files.laid_out(tmp_path_factory.mktemp("wild"))


def test_every_wild_file_is_listed() -> None:
    expected = {*wild_files.REFUSED, *wild_files.OF_ANOTHER_MODEL, *wild_files.RUNS}
    assert {path.stem for path in wild_files.FOLDER.glob("*.yaml")} == expected
    assert len(expected) >= 12


@pytest.mark.parametrize("name", sorted(wild_files.REFUSED))
def test_invalid_wild_file_is_refused(name: str, copies: Mapping[str, Path]) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_jobs(copies[name])
    assert str(refused.value).startswith(f"{copies[name]}:{wild_files.REFUSED[name]}")


@pytest.mark.parametrize("name", sorted({*wild_files.OF_ANOTHER_MODEL, *wild_files.RUNS}))
def test_valid_wild_file_is_accepted(name: str, copies: Mapping[str, Path]) -> None:
    check_data(load_jobs(copies[name])[0].spec)


@pytest.mark.parametrize("path", sorted(wild_files.FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_wild_file_names_source_and_result(path: Path) -> None:
    comment = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# "))
    assert "style of" in comment or "example" in comment
    assert any(word in comment for word in ("Runs", "Refused:", "Would fail:"))
