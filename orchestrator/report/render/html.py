"""report.md to report.html: one file with its pictures, without scripts or requests, for light and dark pages."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

Pictures = Mapping[str, tuple[bytes, bytes]]
"""By name: the PNG for a light page and the one for a dark page."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The file contains nothing that this policy forbids. The browser enforces it, so readers need not trust the file."""


def to_html(markdown: str, title: str, pictures: Pictures) -> str:
    """Return a report as one HTML file.

    Args:
        markdown: text as `render.report` writes it. The only HTML that it may contain is `<br>`.
        title: of the page.
        pictures: the pictures that the text shows; any others are left out.
    """
    body = _parser().render(markdown, {"pictures": pictures})
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
    parser.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


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
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.65em; line-height: 1.25; margin: 0.4em 0 0.8em; overflow-wrap: anywhere; }
h2 { font-size: 1.2em; margin: 2.2em 0 0.7em; padding-bottom: 0.25em; border-bottom: 1px solid var(--line); }
p, li { max-width: 78ch; overflow-wrap: anywhere; }
p:has(img) { max-width: none; }
ul, ol { padding-left: 1.4em; }
blockquote { border-left: 4px solid var(--mark); background: var(--tint); padding: 2px 14px; margin: 12px 0;
  max-width: 82ch; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.88em; }
code { background: var(--tint); padding: 0.1em 0.3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: 10px; overflow-x: auto; }
pre code { background: none; padding: 0; overflow-wrap: normal; white-space: pre; }
.wide { overflow-x: auto; margin: 0.8em 0; }
table { border-collapse: collapse; font-size: 0.93em; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: 5px 10px; text-align: left; vertical-align: top; min-width: 3.5em; }
td { max-width: 46ch; overflow-wrap: break-word; }
th { background: var(--tint); font-weight: 600; }
td code { overflow-wrap: break-word; }
[style*="right"] { white-space: nowrap; }
img { display: block; max-width: 100%; height: auto; margin: 1.2em 0; border-radius: 6px; }
@media print { main { max-width: none; } h2 { break-after: avoid; } tr, img { break-inside: avoid; } }
"""
