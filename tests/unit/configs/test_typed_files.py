"""A job file on standard input: its name, its paths, and where its mistakes are."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from configs.load import STDIN, load_jobs
from jobs.model.errors import ConfigInvalid


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have a text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_it_is_called_stdin_and_its_paths_start_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed(monkeypatch, "model: org/name\ndata: ./qa\nadapter_path: out\n")
    (loaded,) = load_jobs(STDIN)
    assert (loaded.spec.name, str(loaded.source)) == ("stdin", "<stdin>")
    assert loaded.spec.data == str(tmp_path / "qa")
    assert loaded.spec.adapter_path == str(tmp_path / "out")
    assert loaded.content.startswith(b"model: org/name")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: org/name\nitres: 5\n", "<stdin>:2: unknown key 'itres'; did you mean 'iters'?"),
        ("", "<stdin>: is empty"),
        ("model: [\n", "<stdin>:2: not valid YAML"),
        ("#" * 1_100_000, "<stdin>: is larger than 1 MB"),
    ],
)
def test_a_mistake_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    typed(monkeypatch, text)
    with pytest.raises(ConfigInvalid) as error:
        load_jobs(STDIN)
    assert str(error.value).startswith(said)
