"""Draw boxes and arrows as SVG, for the pictures of the documentation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
font-family="system-ui, sans-serif" font-size="14" text-anchor="middle">
<title>{title}</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0 8 4 0 8z" fill="#57606a"/></marker></defs>
<rect width="{width}" height="{height}" fill="#ffffff"/>
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A labelled rectangle; positions and sizes are in pixels."""

    x: float  # of the centre
    y: float
    lines: tuple[str, ...]
    width: float = 100
    fill: str = "#eaeef2"

    @property
    def height(self) -> float:
        return 18 + 17 * len(self.lines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrow:
    """A line from one box to another, by name."""

    start: str
    end: str
    label: str = ""
    bend: float = 0  # distance of the control point from the straight line, in pixels; above 0 is to the left
    dashed: bool = False


def svg(boxes: Mapping[str, Box], arrows: Sequence[Arrow], *, width: int, height: int, title: str) -> str:
    """Return the picture as the text of an SVG file."""
    parts = [_HEAD.format(width=width, height=height, title=escape(title))]
    parts += [_arrow(arrow, boxes[arrow.start], boxes[arrow.end]) for arrow in arrows]
    parts += [_box(box) for box in boxes.values()]
    return "".join([*parts, "</svg>\n"])


def _box(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    text = "".join(
        f'<text x="{box.x:g}" y="{top + 22 + 17 * number:g}"{"" if number else _BOLD}>{escape(line)}</text>'
        for number, line in enumerate(box.lines)
    )
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{box.width:g}" height="{box.height:g}" rx="6" fill="{box.fill}" '
        f'stroke="#57606a"/>{text}\n'
    )


_BOLD = ' font-weight="600"'


def _arrow(arrow: Arrow, start: Box, end: Box) -> str:
    across, down = end.x - start.x, end.y - start.y
    length = math.hypot(across, down)
    control = (
        (start.x + end.x) / 2 + arrow.bend * down / length,
        (start.y + end.y) / 2 - arrow.bend * across / length,
    )
    (x1, y1), (x2, y2) = _border(start, control), _border(end, control)
    dash = ' stroke-dasharray="5 4"' if arrow.dashed else ""
    path = (
        f'<path d="M{x1:.1f} {y1:.1f}Q{control[0]:.1f} {control[1]:.1f} {x2:.1f} {y2:.1f}" fill="none" '
        f'stroke="#57606a" marker-end="url(#head)"{dash}/>'
    )
    return f"{path}{_label(arrow.label, (x1 + 2 * control[0] + x2) / 4, (y1 + 2 * control[1] + y2) / 4)}\n"


def _label(text: str, x: float, y: float) -> str:
    if not text:
        return ""
    halo = 'stroke="#ffffff" stroke-width="5" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" font-size="12" {halo}>{escape(text)}</text>'


def _border(box: Box, toward: tuple[float, float]) -> tuple[float, float]:
    """Return the point where the line from the centre of a box to another point leaves the box."""
    across, down = toward[0] - box.x, toward[1] - box.y
    scale = min(
        box.width / 2 / abs(across) if across else math.inf,
        box.height / 2 / abs(down) if down else math.inf,
    )
    return box.x + scale * across, box.y + scale * down
