"""`lq demo`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import home_access


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Home of the demo (a folder of its own).")
def demo(home: Path | None) -> None:
    """Run the demo on a tiny model: train, kill -9, exact resume, notification and report. Takes two minutes."""
    from orchestrator.demo.play import run_demo

    path = (home or _default_home()).absolute()
    home_access.require_home(path.parent)
    run_demo(path, click.echo)


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("lq-demo", appauthor=False))
