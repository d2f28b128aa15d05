"""watch: the night at a glance, drawn anew where something changed."""

from __future__ import annotations

import click

from orchestrator.cli.commands.status import group_option
from orchestrator.cli.views.watch import watching


@click.command()
@group_option
def watch(group_name: str | None) -> int:
    """Show the night at a glance, and stay: what changes is drawn anew; q leaves. The jobs do not notice."""
    return watching(every=False, group=group_name)
