"""The state diagram in docs/explanation/architecture.md, from the table in jobs/states.py."""

from __future__ import annotations

from jobs.model.states import ENDED, LEGAL, Status
from tests.docs.pages import filled

PAGE = "docs/explanation/architecture.md"


def page() -> str:
    """Return the text of the page."""
    return filled(PAGE, states=diagram)


def diagram() -> str:
    """Return the legal changes between the states of a job as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> queued"]
    for old in Status:
        lines += [f"    {old} --> {new}" for new in Status if new in LEGAL[old]]
    return "\n".join([*lines, *(f"    {status} --> [*]" for status in Status if status in ENDED), "```"])
