"""The recorded picture of the demo is a complete SVG file with the expected lines."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.docs.pages import ROOT
from tests.docs.picture import PICTURE, drawn, shortened

OUTPUT = """\
1. A tiny random Qwen2, its tokenizer and 96 questions with answers
   ~/.local/share/lq-demo
   10:54:16  1  phase     load
   10:54:20  1  train         100  loss 3.411  lr 3.75e-03  40.1 it/s, peak 0.01 GB
   10:54:20  1  train         120  loss 3.311  lr 3.75e-03  40.1 it/s, peak 0.01 GB
$ kill -9 7387
   10:54:20  2  answer        120  What is 2 plus 3? -> \x0f\x07 is 3
   10:54:28  2  ended     done: completed
"""


def lines(svg: str) -> list[str]:
    """Return the text of a picture, line by line."""
    elements = ElementTree.fromstring(svg).iter()  # noqa: S314 our own file
    return ["".join(part.itertext()).replace("\xa0", " ") for part in elements if part.tag.endswith("text")]


def test_picture_shows_the_exact_resume() -> None:
    shown = lines(PICTURE.read_text())
    for command in ("$ lq submit killed.yaml", "$ kill -9", "$ lq status"):
        assert any(command in line for line in shown)
    assert any("(exact)" in line for line in shown)
    hashes = [line.split()[0] for line in shown if line.endswith(("(1 attempt)", "(2 attempts)"))]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1


def test_picture_is_in_the_readme() -> None:
    assert "](docs/demo.svg)" in (ROOT / "README.md").read_text()


def test_picture_loads_nothing() -> None:
    assert "url(http" not in PICTURE.read_text()
    assert "<script" not in PICTURE.read_text()


def test_picture_omits_details_of_the_run() -> None:
    shown = [line.strip() for line in lines(drawn(shortened(OUTPUT), title="lq demo")) if line.strip()]
    assert shown == [
        "lq demo",
        "1. A tiny random Qwen2, its tokenizer and 96 questions with answers",
        "10:54:20  1  train         120  loss 3.311  lr 3.75e-03  40.1 it/s, peak 0.01 GB",
        "$ kill -9 7387",
        "10:54:28  2  ended     done: completed",
    ]


def test_picture_has_no_control_characters() -> None:
    assert "is 3" in "".join(lines(drawn(OUTPUT, title="lq demo")))
