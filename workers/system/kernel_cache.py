"""Repairs MLX's cache of compiled CPU kernels: a process killed during a compilation leaves a torn library.

MLX keeps the libraries in $TMPDIR/mlx and loads them without a check, so one torn file fails every later run
(mlx 0.32.4: "Could not load C++ shared library PATH: file too short"). MLX compiles a removed library again.
"""

from __future__ import annotations

import re
from pathlib import Path

_COMPLAINT = re.compile(r"Could not load C\+\+ shared library (?P<path>/.*?\.so):")


def remove_torn(error: BaseException) -> Path | None:
    """Remove the library that an error of the trainer names; None if the error has another cause."""
    match = _COMPLAINT.search(str(error))
    if match is None or "mlx" not in Path(match["path"]).parts:
        return None
    path = Path(match["path"])
    path.unlink(missing_ok=True)
    return path
