"""Golden files: the expected text of a view or a message, stored next to its test.

pytest --update-golden PATH    # write the golden files again; review them with git diff
"""

from __future__ import annotations

import os
from pathlib import Path

UPDATE = "LQ_UPDATE_GOLDEN"
"""Environment variable that `--update-golden` sets, so that xdist workers see it too."""


def assert_golden(text: str, path: Path) -> None:
    """Compare a text with a golden file, or write the file with `--update-golden`.

    Args:
        text: what the program printed. The test replaces what differs between runs, such as temporary paths.
        path: the golden file, usually `Path(__file__).parent / "golden" / "NAME.txt"`.

    Raises:
        AssertionError: the texts differ, or the file does not exist.
    """
    if os.environ.get(UPDATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} does not exist; run pytest --update-golden"
    assert text == path.read_text(encoding="utf-8"), f"{path} differs; review it with pytest --update-golden"
