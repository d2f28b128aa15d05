"""Whether lq's own packages are the ones that Python imports."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGES = ("orchestrator", "workers", "configs", "jobs")


def shadowed(home: Path) -> tuple[str, Path] | None:
    """Return the first of lq's packages that Python would take from elsewhere, and from where.

    Args:
        home: the folder the packages belong in.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if place is None or place.parent.parent != home:
            return name, place or Path("nowhere")
    return None
