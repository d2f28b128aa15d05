"""`lq config init` and `lq config presets`, as one types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from configs.preset_files import DEFAULT, preset, presets
from tests.harness import InProcess, Lq


@pytest.fixture
def lq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lq:
    """Give `lq` in an empty folder; it makes no home."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return InProcess(tmp_path / "home")


def test_init_writes_a_small_general_file_and_never_over_another(lq: Lq) -> None:
    answer = lq("config", "init")
    assert "lq submit lq.yaml" in answer.out
    written = Path("lq.yaml")
    assert written.read_text() == preset(DEFAULT).text
    written.write_text("mine")
    refused = lq("config", "init", expect=5)
    assert refused.err == (
        "lq: lq.yaml: is there already; name another file with --output, or overwrite it with --force\n"
    )
    assert written.read_text() == "mine"
    lq("config", "init", "quick", "--force")
    assert written.read_text() == preset("quick").text
    assert os.listdir() == ["lq.yaml"], "no half of a file is left"  # noqa: PTH208 the names alone
    assert not lq.home.exists()


def test_init_prints_a_preset_as_it_is(lq: Lq) -> None:
    assert lq("config", "init", "dora", "--output", "-").out == preset("dora").text
    assert os.listdir() == []  # noqa: PTH208 the names alone


def test_init_writes_where_it_is_told(lq: Lq) -> None:
    lq("config", "init", "full", "--output", "night.yaml")
    assert Path("night.yaml").read_text() == preset("full").text


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("quik",), 2, "lq: no preset 'quik'; did you mean 'quick'?\n"),
        (("--output", "gone/x.yaml"), 2, "lq: gone/x.yaml: cannot be written (no such file or directory); "),
        (("--output", "."), 2, "lq: .: is a folder; name a file in it with --output\n"),
        (("--output", ".", "--force"), 2, "lq: .: is a folder; name a file in it with --output\n"),
    ],
)
def test_what_cannot_be_written_is_one_line(lq: Lq, words: tuple[str, ...], code: int, line: str) -> None:
    answer = lq("config", "init", *words, expect=code)
    assert answer.err.startswith(line)
    assert answer.err.count("\n") == 1


def test_the_presets_are_listed_one_a_line(lq: Lq) -> None:
    shown = lq("config", "presets").out.splitlines()
    assert [line.split()[0] for line in shown] == [one.name for one in presets()]
    assert max(map(len, shown)) <= 80
    content = json.loads(lq("config", "presets", "--json").out)
    assert content == {
        "schema": 1,
        "presets": [{"name": one.name, "summary": one.summary} for one in presets()],
    }


def test_a_script_is_told_where_a_preset_lies(tmp_path: Path) -> None:
    lq = InProcess(tmp_path / "none")
    target = tmp_path / "mine.yaml"
    assert lq.json("config", "init", "--output", target)["written"] == {"preset": "small", "path": str(target)}
    assert lq("config", "init", "--output", "-", "--json", expect=2).err.startswith("lq: --output - prints the file")
