"""`lq doctor` and `lq demo`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click

from jobs.model.errors import CheckFailed
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.core.paths import Home
from orchestrator.doctor.check import Check, CheckState

WIDTH = 80
_NAME_WIDTH, _INDENT = 10, 18
_STYLES = {CheckState.OK: "good", CheckState.WARN: "careful", CheckState.FAIL: "bad"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check whether this machine can train overnight. Nothing is changed or sent.

    Exit code: 6 if a check fails.
    """
    from orchestrator.doctor.examine import examine

    checks = examine(Home.of(os.environ), os.environ)
    if as_json:
        output.print_json(checks, under="checks")
    else:
        _print_checks(checks)
    failed = [check.name for check in checks if check.state is CheckState.FAIL]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")


def _print_checks(checks: Sequence[Check]) -> None:
    from rich.console import Group
    from rich.text import Text

    from orchestrator.cli.views.terminal import print_view

    shown: list[Text | str] = []
    for check in checks:
        head, *others = lines(check)
        shown += [Text.assemble((head[:4], _STYLES[check.state]), head[4:]), *others]
    counts = {state: sum(check.state is state for check in checks) for state in CheckState}
    total = f"{counts[CheckState.OK]} ok, {counts[CheckState.WARN]} warnings, {counts[CheckState.FAIL]} failed"
    print_view(Group(*shown, total))


def lines(check: Check) -> list[str]:
    """Return a check as lines of at most 80 characters, with the advice below the finding."""
    head = f"{check.state:<4}  {check.name:<{_NAME_WIDTH}}  "
    indent = " " * _INDENT
    says = textwrap.wrap(check.says, WIDTH, initial_indent=head, subsequent_indent=indent)
    advice = textwrap.wrap(check.advice or "", WIDTH, initial_indent=f"{indent}-> ", subsequent_indent=f"{indent}   ")
    return [*(says or [head.rstrip()]), *advice]


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Home of the demo (a folder of its own).")
def demo(home: Path | None) -> None:
    """Run the demo on a tiny model: train, kill -9, exact resume, notification and report. Takes two minutes."""
    import platformdirs

    from orchestrator.demo.play import run_demo

    path = (home or Path(platformdirs.user_data_dir("lq-demo", appauthor=False))).absolute()
    home_access.require_home(path.parent)
    run_demo(path, click.echo)
