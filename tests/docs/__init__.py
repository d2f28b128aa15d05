"""Pages of docs/ that are made from the program, so that they cannot say anything else: `make docs` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs import exit_codes, json_reference

ROOT = Path(__file__).parents[2]

GENERATORS: Mapping[str, Callable[[], str]] = {
    "docs/reference/json.md": json_reference.page,
    "docs/reference/exit-codes.md": exit_codes.page,
}
"""What makes each page, by its path."""
