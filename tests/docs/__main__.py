"""`python -m tests.docs`: write every generated page."""

from __future__ import annotations

import sys

from tests.docs import GENERATORS
from tests.docs.pages import ROOT


def main() -> int:
    """Write the pages, and say which changed."""
    for path, text_of in GENERATORS.items():
        page, text = ROOT / path, text_of()
        if not page.exists() or page.read_text() != text:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
            sys.stdout.write(f"{path} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
