"""`python -m tests.docs`: write every page that is made from the program, and name those that changed."""

from __future__ import annotations

import sys

from tests.docs import GENERATORS, ROOT


def main() -> None:
    """Write them."""
    for name, page in GENERATORS.items():
        path, text = ROOT / name, page()
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            sys.stdout.write(f"{name} written\n")


main()
