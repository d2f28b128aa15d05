"""report.html: self-contained, safe to open, and with the content of report.md."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.formatting.markdown import cell, code, escaped, table
from orchestrator.report.collect import collect
from orchestrator.report.render.html import to_html
from orchestrator.report.render.report import render
from tests.unit.orchestrator.report_runs import START
from tests.unit.orchestrator.series_runs import played_with_facts

NAME = "Hund & <Katze>"
PICTURES = {"loss_curve.png": (b"light", b"dark"), "training_analysis.png": (b"l2", b"d2")}


class Page(HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data

    def count(self, tag: str) -> int:
        """Return how often a tag occurs."""
        return [name for name, _ in self.tags].count(tag)


@pytest.fixture(scope="module")
def markdown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run with all facts."""
    run = played_with_facts(tmp_path_factory.mktemp("home"), lq={"name": NAME})
    with run.store:
        return render(collect(run.store, run.id, now=START + 1e6))


def test_page_makes_no_requests(markdown: str) -> None:
    text = to_html(markdown, NAME, PICTURES)
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    addresses = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "srcset", "href")]
    assert len(addresses) == 4
    assert all(address is not None and address.startswith("data:image/png;base64,") for address in addresses)
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    assert "url(" not in text


def test_pictures_have_light_and_dark(markdown: str) -> None:
    text = to_html(markdown, NAME, PICTURES)
    dark, light = (base64.b64encode(png).decode() for png in (b"dark", b"light"))
    assert f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">' in text
    assert f'src="data:image/png;base64,{light}"' in text
    assert "prefers-color-scheme: dark" in text.split("</style>")[0]
    assert Page(to_html(markdown, NAME, {})).count("img") == 0


def test_page_has_content_of_markdown(markdown: str) -> None:
    page = Page(to_html(markdown, NAME, PICTURES))
    assert f"{NAME} (job 1): succeeded" in page.text
    assert page.count("table") == len(re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE))
    assert page.count("h2") == len(re.findall(r"^## ", markdown, re.MULTILINE))
    assert page.count("blockquote") == 1
    assert "a | b" in page.text
    assert page.count("br") == markdown.count("<br>")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40))
def test_text_never_becomes_markup(text: str) -> None:
    line = " ".join(text.split())
    for markdown in (f"x {escaped(text)} x", f"x {code(line)} x" if line else "x  x"):
        page = Page(to_html(markdown, "", {}))
        assert {tag for tag, _ in page.tags} <= {"html", "head", "meta", "title", "style", "body", "main", "p", "code"}
        assert " ".join(page.text.split()) == " ".join(f"x {line} x".split())
    page = Page(to_html("\n".join(table(("A", "B"), [(escaped(text), cell(text))])), text, {}))
    assert page.count("td") == 2
