"""report.md to report.html: one file with its pictures, without scripts or requests, for phones and for dark pages.

Sections that a reader seldom needs are folded, and so are the details of a list item. On a narrow screen each row of a
table with three columns or more becomes a card.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

Pictures = Mapping[str, tuple[bytes, bytes]]
"""By name: the PNG for a light page and the one for a dark page."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The file contains nothing that this policy forbids. The browser enforces it, so readers need not trust the file."""

OPEN = frozenset({"Results", "Answers before and after", "Next steps", "Incidents"})
"""Sections that are not folded."""


def to_html(markdown: str, title: str, pictures: Pictures) -> str:
    """Return a report as one HTML file with the pictures that its text shows; it may contain no HTML but `<br>`."""
    parser = _parser()
    tokens = list(_folded_sections(list(_folded_items(parser.parse(markdown)))))
    _label_cells(tokens)
    body = parser.renderer.render(tokens, parser.options, {"pictures": pictures})
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        "</body>\n</html>\n"
    )


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table").disable("html_block")
    parser.add_render_rule("image", _picture)
    parser.add_render_rule("html_inline", _line_break)
    return parser


def _markup(text: str) -> Token:
    return Token("html_block", "", 0, content=text)  # the parser makes none, so no text of a user gets here


def _folded_sections(tokens: Sequence[Token]) -> Iterator[Token]:
    """Wrap each section that is not in `OPEN`, from its title to the next one."""
    folded = False
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            if folded:
                yield _markup("</details>\n")
            folded = tokens[place + 1].content not in OPEN
            if folded:
                yield _markup("<details><summary>")
        yield token
        if folded and token.type == "heading_close":
            yield _markup("</summary>\n")
    if folded:
        yield _markup("</details>\n")


def _folded_items(tokens: Sequence[Token]) -> Iterator[Token]:
    """Wrap each list item that has a list below its text."""
    folded: set[int] = set()  # levels of the items that are open
    for place, token in enumerate(tokens):
        after = [one.type for one in tokens[place + 1 : place + 5]]
        if token.type == "list_item_close" and token.level in folded:
            folded.discard(token.level)
            yield _markup("</details>")
        yield token
        if token.type == "list_item_open" and after[-1:] == ["bullet_list_open"]:
            folded.add(token.level)
            yield _markup("<details><summary>")
        if token.type == "paragraph_close" and token.level - 1 in folded and after[:1] == ["bullet_list_open"]:
            yield _markup("</summary>\n")


def _label_cells(tokens: Sequence[Token]) -> None:
    """Give each cell of a wide table the title of its column, which a card shows."""
    labels: list[str] = []
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            table, labels, column = token, [], 0
        elif token.type == "th_open":
            labels.append(tokens[place + 1].content)
            if len(labels) > 2:
                table.attrSet("class", "wide")
        elif token.type == "tr_open":
            column = 0
        elif token.type == "td_open":
            token.attrSet("data-label", labels[column])
            column += 1


def _picture(_: RendererHTML, tokens: Sequence[Token], place: int, __: Any, env: Mapping[str, Pictures]) -> str:
    token = tokens[place]
    versions = env["pictures"].get(str(token.attrs["src"]))
    if versions is None:
        return ""
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in versions)
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{html.escape(token.content)}" src="{light}"></picture>'
    )


def _line_break(_: RendererHTML, tokens: Sequence[Token], place: int, *__: Any) -> str:
    return "<br>" if tokens[place].content == "<br>" else html.escape(tokens[place].content)


_STYLE = """
:root { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --tint: #f6f8fa; --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --tint: #161b22; --mark: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 16px 16px 64px; }
h1 { font-size: 1.4em; line-height: 1.25; margin: 0.4em 0 0.8em; }
h2 { font-size: 1.15em; margin: 1.6em 0 0.5em; }
main > details { border-top: 1px solid var(--line); padding: 10px 0; }
main > details:first-of-type { margin-top: 24px; }
summary { cursor: pointer; }
summary h2 { display: inline; }
li > details > ul { color: var(--soft); font-size: 0.93em; margin: 4px 0 8px; }
ul { padding-left: 1.2em; }
li { margin: 3px 0; }
li:has(> details) { list-style: none; margin-left: -1.1em; }
blockquote { border-left: 4px solid var(--mark); background: var(--tint); padding: 2px 14px; margin: 12px 0; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.88em; }
code { background: var(--tint); padding: 0.1em 0.3em; border-radius: 4px; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: 10px; margin: 4px 0 14px;
  white-space: pre-wrap; }
pre code { background: none; padding: 0; }
table { border-collapse: collapse; font-size: 0.93em; font-variant-numeric: tabular-nums; margin: 0.8em 0; }
th, td { border: 1px solid var(--line); padding: 5px 10px; text-align: left; vertical-align: top; }
th { background: var(--tint); font-weight: 600; }
table:not(.wide) thead { display: none; }
table:not(.wide) td:first-child { width: 40%; color: var(--soft); }
img { display: block; width: 100%; max-width: 480px; height: auto; margin: 1em 0; border-radius: 6px; }
@media (max-width: 600px) {
  .wide, .wide tbody, .wide tr, .wide td { display: block; border: 0; padding: 0; }
  .wide thead { display: none; }
  .wide tr { border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; margin: 8px 0; }
  .wide td { display: flex; justify-content: space-between; gap: 12px; text-align: left !important; }
  .wide td::before { content: attr(data-label); color: var(--soft); flex: 0 0 38%; }
  .wide td:first-child { font-weight: 600; }
  .wide td:first-child::before { content: none; }
}
@media print { main { max-width: none; } h2 { break-after: avoid; } tr, img { break-inside: avoid; } }
"""
