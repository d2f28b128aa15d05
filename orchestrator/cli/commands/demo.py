"""demo."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import home_access


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Where to play it; a folder of its own when absent.")
def demo(home: Path | None) -> None:
    """Play the whole story on a tiny model in under two minutes: train, kill -9, exact resume, message, report."""
    from orchestrator.demo.play import run_demo

    place = (home or _default()).absolute()
    home_access.require_target(place.parent)
    run_demo(place, click.echo)


def _default() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("lq-demo", appauthor=False))
