"""`python -m tests.docs`: write the generated pages."""

from __future__ import annotations

import sys

from tests.docs import GENERATORS
from tests.docs.pages import ROOT


def main() -> int:
    """Write the pages that changed and print their paths."""
    for path, text_of in GENERATORS.items():
        page, text = ROOT / path, text_of()
        if not page.exists() or page.read_text() != text:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
            sys.stdout.write(f"{path} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
