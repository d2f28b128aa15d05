"""Views as text, for golden files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.views.terminal import UNCUT, Printable, console_for
from tests.golden import assert_golden

if TYPE_CHECKING:
    from rich.console import RenderableType

GOLDEN = Path(__file__).parent / "cli" / "golden"


def text_of(view: RenderableType, width: int = UNCUT, *, ascii_only: bool = False) -> str:
    """Return a view as it is printed in a pipe, or on a terminal of `width` columns without colours."""
    stream = io.StringIO()
    console = console_for(stream, {})
    console.width = width
    console.print(Printable(view, ascii_only=ascii_only), crop=False)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def assert_view(view: RenderableType, name: str, width: int = UNCUT, *, hide: Path | None = None) -> None:
    """Compare a view with golden/NAME.txt.

    Args:
        view: the view.
        name: of the golden file.
        width: columns of the terminal; UNCUT for a pipe.
        hide: a temporary folder, shown as /tmp/home.
    """
    text = text_of(view, width)
    assert_golden(text if hide is None else text.replace(str(hide), "/tmp/home"), GOLDEN / f"{name}.txt")
