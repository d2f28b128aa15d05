"""Checks that Python imports lq's own packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGES = ("orchestrator", "workers", "configs", "jobs")


def shadowed(home: Path) -> tuple[str, Path] | None:
    """Return the first package of lq that Python imports from outside the folder `home`, and its path."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        path = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if path is None or path.parent.parent != home:
            return name, path or Path("nowhere")
    return None
