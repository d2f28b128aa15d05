"""The recorded picture of the demo: it is there, any viewer can show it, and it shows what the demo prints."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.docs.pages import ROOT
from tests.docs.picture import PICTURE, drawn, shortened

PLAYED = """\
1. A tiny random Qwen2, its tokenizer and 96 questions with answers, made on the spot; nothing is downloaded.
   ~/.local/share/lq-demo
   10:54:16  1  phase     load
   10:54:20  1  train         100  loss 3.411  lr 3.75e-03  40.1 it/s, peak 0.01 GB
   10:54:20  1  train         120  loss 3.311  lr 3.75e-03  40.1 it/s, peak 0.01 GB
$ kill -9 7387
   10:54:20  2  answer        120  What is 2 plus 3? -> \x0f\x07 is 3
   10:54:28  2  ended     done: completed: trained to its last iteration
   Equal to the last bit.
"""


def lines(svg: str) -> list[str]:
    """Return the text of a picture, line by line."""
    parts = ElementTree.fromstring(svg).iter()  # noqa: S314 our own file
    return ["".join(part.itertext()).replace("\xa0", " ") for part in parts if part.tag.endswith("text")]


def test_the_picture_tells_the_story_of_the_demo() -> None:
    shown = "\n".join(lines(PICTURE.read_text()))
    for said in (
        "$ lq submit killed.yaml",
        "$ kill -9",
        "(exact)",
        "equal to the last bit",
        "Equal to the last bit.",
        "$ lq status",
    ):
        assert said in shown
    hashes = [line.split()[0] for line in shown.splitlines() if line.endswith(("(1 attempt)", "(2 attempts)"))]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1


def test_the_picture_is_in_the_readme_and_fetches_nothing() -> None:
    assert "](docs/demo.svg)" in (ROOT / "README.md").read_text()
    assert "url(http" not in PICTURE.read_text()
    assert "<script" not in PICTURE.read_text()


def test_a_picture_keeps_what_matters_and_no_control_character() -> None:
    shown = lines(drawn(shortened(PLAYED), title="lq demo"))
    said = [line.strip() for line in shown if line.strip()]
    assert said == [
        "lq demo",
        "1. A tiny random Qwen2, its tokenizer and 96 questions with answers, made on the spot; nothing is downloaded.",
        "10:54:20  1  train         120  loss 3.311  lr 3.75e-03  40.1 it/s, peak 0.01 GB",
        "$ kill -9 7387",
        "10:54:28  2  ended     done: completed: trained to its last iteration",
        "Equal to the last bit.",
    ]
    assert "is 3" in "".join(lines(drawn(PLAYED, title="all of it")))
