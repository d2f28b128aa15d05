"""MLX's compiled CPU kernels: a process killed while one was compiled leaves half a library behind.

MLX keeps them in $TMPDIR/mlx and loads what it finds there without a check, so one torn file would end every later
run (seen with mlx 0.32.4: "Could not load C++ shared library PATH: file too short"). Removed, it is compiled anew.
"""

from __future__ import annotations

import re
from pathlib import Path

_COMPLAINT = re.compile(r"Could not load C\+\+ shared library (?P<path>/.*?\.so):")


def remove_torn(error: BaseException) -> Path | None:
    """Remove the library an error complains of; None where it is about something else.

    Args:
        error: what ended the trainer.
    """
    found = _COMPLAINT.search(str(error))
    if found is None or "mlx" not in Path(found["path"]).parts:
        return None
    path = Path(found["path"])
    path.unlink(missing_ok=True)
    return path
