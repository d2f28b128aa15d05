"""`python -m tests.docs.picture`: record the output of `lq demo` as docs/demo.svg.

The demo runs in a pseudo-terminal that is wide enough for its longest line. rich draws the output, without the lines
that match `OMITTED`: the picture is for README.md and must not be too long.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.docs.pages import DOCS, ROOT

PICTURE = DOCS / "demo.svg"
COLUMNS = 114
OMITTED = re.compile(
    r"   \d\d:\d\d:\d\d  \d  (phase|data|adapter|answer|test|train)\b"
    r"|   \(On the first run|   ~/|     (report:|test loss|train loss)"
    r"|Report:|Explore:|  export |  lq |Train your own"
)
"""Details of the run, and what to do after the demo."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")
"""A random model can answer with these characters, which SVG forbids. The escape character of colours stays."""


def main() -> int:
    """Run the demo and draw its output; return the exit code of the demo."""
    with tempfile.TemporaryDirectory(prefix="lq-picture-") as folder:
        code, output = recorded(Path(folder) / "demo")
    if code == 0:
        PICTURE.write_text(drawn(shortened(output), title="lq demo"))
        sys.stdout.write(f"{PICTURE.relative_to(ROOT)} written\n")
    else:
        sys.stderr.write(output)
    return code


def recorded(home: Path) -> tuple[int, str]:
    """Run `lq demo` in a pseudo-terminal; return its exit code and its output."""
    reader, terminal = pty.openpty()
    command = [sys.executable, "-P", "-m", "orchestrator.cli", "demo", "--home", str(home)]
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as demo:
        os.close(terminal)
        output = b"".join(iter(lambda: _read(reader), b""))
    os.close(reader)
    return demo.returncode, output.decode().replace("\r\n", "\n").replace(f"{home}", "~/.local/share/lq-demo")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux raises EIO after the last writer has closed the terminal
        return b""


def shortened(output: str) -> str:
    """Return the output without the lines that match `OMITTED`; the last report before the kill stays."""
    lines = output.splitlines()
    pairs = zip(lines, [*lines[1:], ""], strict=True)
    return "\n".join(line for line, next_line in pairs if not OMITTED.match(line) or next_line.startswith("$ kill"))


def drawn(output: str, *, title: str) -> str:
    """Return the SVG picture of a terminal window with this output, colours included."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in output.rstrip("\n").split("\n"):
        console.print(Text.from_ansi(_CONTROL.sub("", line)), no_wrap=True, crop=False)
    svg = console.export_svg(title=title, theme=MONOKAI, unique_id="lq")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # the picture must not load fonts


if __name__ == "__main__":
    sys.exit(main())
