"""doctor."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Sequence

import click

from jobs.model.errors import CheckFailed
from orchestrator.cli import output
from orchestrator.cli.output import json_option
from orchestrator.core.paths import Home
from orchestrator.doctor.check import Check, CheckState

WIDTH = 80
_NAME, _BEFORE = 10, 18  # the column of the names; what stands before the text
_COLOURS = {CheckState.OK: "green", CheckState.WARN: "yellow", CheckState.FAIL: "red"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look at this machine: can it train all night? Nothing is changed, nothing is sent.

    Exit code: 6 where something fails.
    """
    from orchestrator.doctor.examine import examine

    checks = examine(Home.of(os.environ), os.environ)
    if as_json:
        output.print_json({"checks": [dataclasses.asdict(check) for check in checks]})
    else:
        _tell(checks)
    failed = [check.name for check in checks if check.state is CheckState.FAIL]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")


def _tell(checks: Sequence[Check]) -> None:
    from rich.text import Text

    console = output.console()
    for check in checks:
        for number, line in enumerate(lines(check)):
            text = Text(line)
            if number == 0:
                text.stylize(_COLOURS[check.state], 0, len(check.state))
            console.print(text, soft_wrap=True)
    counts = {state: sum(check.state is state for check in checks) for state in CheckState}
    told = f"{counts[CheckState.OK]} ok, {counts[CheckState.WARN]} to look at, {counts[CheckState.FAIL]} failed"
    console.print(told, soft_wrap=True)


def lines(check: Check) -> list[str]:
    """Return a check as lines of at most 80 characters, its advice below what was found."""
    head = f"{check.state:<4}  {check.name:<{_NAME}}  "
    indent = " " * _BEFORE
    told = textwrap.wrap(check.says, WIDTH, initial_indent=head, subsequent_indent=indent)
    advice = textwrap.wrap(check.advice or "", WIDTH, initial_indent=f"{indent}-> ", subsequent_indent=f"{indent}   ")
    return [*(told or [head.rstrip()]), *advice]
