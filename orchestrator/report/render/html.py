"""report.md -> report.html: one file with its pictures in it, no script, no request, light and dark.

Reads the Markdown that this package writes and no other: headings, paragraphs, lists, tables, fenced commands,
pictures, `code`, **bold**, <br> in cells, and escapes as wording.escaped makes them. So both formats say the same.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence

Pictures = Mapping[str, tuple[bytes, bytes]]
"""By name: the PNG for a light page, and for a dark one."""

_INLINE = re.compile(
    r"(?P<code>(?P<fence>`+)(?P<space> ?)(?P<text>.+?)(?P=space)(?P=fence)(?!`))"
    r"|\*\*(?P<bold>(?:\\.|[^*\\])+)\*\*|(?P<escape>\\[\\`*|<>\[\]_])|(?P<br><br>)"
)
_PICTURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<name>[^)]+)\)")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_CODES = ("DIVERGED", "OVERFIT", "WASTED", "UNDERTRAINED", "OK", "INCONCLUSIVE")


def to_html(markdown: str, title: str, pictures: Pictures) -> str:
    """Return the report as one HTML file.

    Args:
        markdown: what markdown.render returned.
        title: of the page.
        pictures: those that the text shows; one it lacks is left out.
    """
    body = "\n".join(_blocks(markdown.splitlines(), pictures))
    # the policy forbids what is not there anyway, so that whoever opens the file need not take it on trust
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _blocks(lines: Sequence[str], pictures: Pictures) -> Iterator[str]:
    place = 0
    while place < len(lines):
        line = lines[place]
        end = place + 1
        if line.startswith("```"):
            end = next(at for at in range(place + 1, len(lines)) if lines[at].startswith("```"))
            commands = html.escape("\n".join(lines[place + 1 : end]))
            yield f"<pre><code>{commands}</code></pre>"
            end += 1
        elif line.startswith("|"):
            end = _while(lines, place, r"\|")
            yield _table(lines[place:end])
        elif re.match(r"(- |\d+\. )", line):
            kind, mark = ("ul", r"- ") if line.startswith("- ") else ("ol", r"\d+\. ")
            end = _while(lines, place, mark)
            items = (f"<li>{inline(re.sub(f'^{mark}', '', one))}</li>" for one in lines[place:end])
            yield f"<{kind}>{''.join(items)}</{kind}>"
        elif line:
            yield _line(line, pictures)
        place = end


def _while(lines: Sequence[str], place: int, mark: str) -> int:
    """Return the place of the first line from there on that does not begin so."""
    return next((at for at in range(place, len(lines)) if not re.match(mark, lines[at])), len(lines))


def _line(line: str, pictures: Pictures) -> str:
    if heading := re.match(r"(#{1,3}) (.*)", line):
        level = len(heading[1])
        return f"<h{level}>{inline(heading[2])}</h{level}>"
    if picture := _PICTURE.fullmatch(line):
        return _picture(picture["alt"], pictures.get(picture["name"]))
    verdict = next((code for code in _CODES if line.startswith(f"**Verdict: {code}.**")), None)
    kind = ' class="verdict"' if verdict or line.startswith(("**Next run:", "**No verdict")) else ""
    return f"<p{kind}>{inline(line)}</p>"


def _picture(alt: str, found: tuple[bytes, bytes] | None) -> str:
    if found is None:
        return ""
    light, dark = (f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in found)
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{html.escape(alt)}" src="{light}"></picture>'
    )


def _table(lines: Sequence[str]) -> str:
    rows = [[cell.strip() for cell in _CELL_BORDER.split(line)[1:-1]] for line in lines]
    sides = [' class="r"' if cell.endswith(":") else "" for cell in rows[1]]

    def row(cells: Sequence[str], tag: str) -> str:
        made = (f"<{tag}{side}>{inline(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row(cells, "td") for cells in rows[2:])
    return f'<div class="wide"><table><thead>{row(rows[0], "th")}</thead><tbody>{body}</tbody></table></div>'


def inline(text: str) -> str:
    """Return a line's HTML: code, bold, breaks, and escapes taken back."""

    def found(match: re.Match[str]) -> str:
        if match["code"]:
            said = html.escape(match["text"].replace("\\|", "|"))
            return f"<code>{said}</code>"
        if match["bold"] is not None:
            return f"<strong>{inline(match['bold'])}</strong>"
        return "<br>" if match["br"] else html.escape(match["escape"][1])

    parts, at = [], 0
    for match in _INLINE.finditer(text):
        parts += [html.escape(text[at : match.start()]), found(match)]
        at = match.end()
    return "".join([*parts, html.escape(text[at:])])


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
p.verdict { border-left: 4px solid var(--mark); background: var(--tint); padding: 10px 14px; margin: 8px 0; }
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
.r { text-align: right; white-space: nowrap; }
img { display: block; max-width: 100%; height: auto; margin: 1.2em 0; border-radius: 6px; }
@media print { main { max-width: none; } h2 { break-after: avoid; } tr, img { break-inside: avoid; } }
"""
