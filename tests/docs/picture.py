"""`python -m tests.docs.picture`: record what `lq demo` prints in a terminal as docs/demo.svg.

The real demo runs in a pseudo-terminal wide enough for its longest line; what it prints is drawn by rich, but for lines
that say little (`SMALL_TALK`), of which a picture for README.md would become too long.
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
SMALL_TALK = re.compile(
    r"   \d\d:\d\d:\d\d  \d  (phase|data|adapter|answer|test|train)\b"
    r"|   \(On the first run|   ~/|     (report:|test loss|train loss)"
    r"|The report:|Look around:|  export |  lq |Then your own"
)
"""Lines that are left out of the picture: details of the run, and what to do after the demo."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")
"""A random model may answer with these; no picture may hold one. The escape of colours stays."""


def main() -> int:
    """Play the demo and draw it; the exit code is the demo's."""
    with tempfile.TemporaryDirectory(prefix="lq-picture-") as folder:
        code, said = recorded(Path(folder) / "demo")
    if code == 0:
        PICTURE.write_text(drawn(shortened(said), title="lq demo"))
        sys.stdout.write(f"{PICTURE.relative_to(ROOT)} written\n")
    else:
        sys.stderr.write(said)
    return code


def recorded(home: Path) -> tuple[int, str]:
    """Play `lq demo` in a pseudo-terminal; return its exit code and what it printed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "orchestrator.cli", "demo", "--home", str(home)]
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as demo:
        os.close(theirs)
        said = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    return demo.returncode, said.decode().replace("\r\n", "\n").replace(f"{home}", "~/.local/share/lq-demo")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says EIO when the last writer has gone
        return b""


def shortened(said: str) -> str:
    """Leave out the lines that say little; the last report before the kill stays."""
    lines = said.splitlines()
    followed = zip(lines, [*lines[1:], ""], strict=True)
    return "\n".join(line for line, after in followed if not SMALL_TALK.match(line) or after.startswith("$ kill"))


def drawn(said: str, *, title: str) -> str:
    """Return a picture of a terminal with this text.

    Args:
        said: what was printed, colours included.
        title: of the window.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in said.rstrip("\n").split("\n"):
        console.print(Text.from_ansi(_CONTROL.sub("", line)), no_wrap=True, crop=False)
    svg = console.export_svg(title=title, theme=MONOKAI, unique_id="lq")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched to show it


if __name__ == "__main__":
    sys.exit(main())
