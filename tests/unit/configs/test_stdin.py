"""Job files on standard input: name, paths and errors."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from configs.load import STDIN, load_jobs
from jobs.model.errors import ConfigInvalid


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_stdin_paths_use_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qa").mkdir()
    stdin(monkeypatch, "model: org/name\ndata: ./qa\nadapter_path: out\n")
    (loaded,) = load_jobs(STDIN)
    assert (loaded.spec.name, str(loaded.source)) == ("stdin", "<stdin>")
    assert loaded.spec.data == str(tmp_path / "qa")
    assert loaded.spec.adapter_path == str(tmp_path / "out")
    assert loaded.content.startswith(b"model: org/name")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("model: org/name\nitres: 5\n", "<stdin>:2: unknown key 'itres'"),
        ("", "<stdin>: is empty"),
        ("model: [\n", "<stdin>:2: not valid YAML"),
        ("#" * 1_100_000, "<stdin>: is larger than 1 MB"),
    ],
)
def test_stdin_error_names_its_line(monkeypatch: pytest.MonkeyPatch, text: str, start: str) -> None:
    stdin(monkeypatch, text)
    with pytest.raises(ConfigInvalid) as error:
        load_jobs(STDIN)
    assert str(error.value).startswith(start)
