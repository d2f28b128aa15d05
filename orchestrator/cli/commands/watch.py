"""`lq watch`."""

from __future__ import annotations

import click

from orchestrator.cli.args import group_option
from orchestrator.cli.views.watch import watching


@click.command()
@group_option("Show only the jobs of a group.")
def watch(group: str | None) -> int:
    """Show lq status and update it when something changes; press q to leave."""
    return watching(every=False, group=group)
