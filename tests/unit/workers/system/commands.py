"""Stand-ins for system commands."""

from __future__ import annotations

from pathlib import Path


def stand_in(folder: Path, name: str, *, prints: str = "", code: int = 0, script: str = "") -> None:
    """Create an executable that prints a text and exits, or runs a shell script."""
    path = folder / name
    (folder / f"{name}.out").write_text(prints)
    path.write_text("#!/bin/sh\n" + (script or f'cat "{folder}/{name}.out"\nexit {code}') + "\n")
    path.chmod(0o755)
