"""`lq config init` and `lq config presets`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from configs.preset_files import DEFAULT, preset, presets
from tests.harness import InProcess, Lq


@pytest.fixture
def lq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lq:
    """Return `lq` in an empty folder with a home that does not exist."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return InProcess(tmp_path / "home")


def test_init_does_not_overwrite_a_file(lq: Lq) -> None:
    lq("config", "init")
    written = Path("lq.yaml")
    assert written.read_text() == preset(DEFAULT).text
    written.write_text("mine")
    assert "--force" in lq("config", "init", expect=5).err
    assert written.read_text() == "mine"
    lq("config", "init", "quick", "--force")
    assert written.read_text() == preset("quick").text
    assert os.listdir() == ["lq.yaml"]  # noqa: PTH208 the names alone
    assert not lq.home.exists()


def test_init_prints_a_preset(lq: Lq) -> None:
    assert lq("config", "init", "dora", "--output", "-").out == preset("dora").text
    assert os.listdir() == []  # noqa: PTH208 the names alone


def test_init_writes_to_output(lq: Lq, tmp_path: Path) -> None:
    lq("config", "init", "full", "--output", "night.yaml")
    assert Path("night.yaml").read_text() == preset("full").text
    target = tmp_path / "mine.yaml"
    assert lq.json("config", "init", "--output", target)["written"] == {"preset": "small", "path": str(target)}
    lq("config", "init", "--output", "-", "--json", expect=2)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("quik",), "did you mean 'quick'?"),
        (("--output", "gone/x.yaml"), "gone/x.yaml: "),
        (("--output", "."), ".: is a folder"),
        (("--output", ".", "--force"), ".: is a folder"),
    ],
)
def test_init_refuses_in_one_line(lq: Lq, words: tuple[str, ...], part: str) -> None:
    answer = lq("config", "init", *words, expect=2)
    assert part in answer.err
    assert answer.err.count("\n") == 1


def test_presets_lists_one_per_line(lq: Lq) -> None:
    shown = lq("config", "presets").out.splitlines()
    assert [line.split()[0] for line in shown] == [one.name for one in presets()]
    assert max(map(len, shown)) <= 80
    content = json.loads(lq("config", "presets", "--json").out)
    assert content == {"schema": 1, "presets": [{"name": one.name, "summary": one.summary} for one in presets()]}
