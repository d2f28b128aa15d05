"""`python -m tests.benchmarks`: measure, and print one table with what was reached beside what is wanted."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.report.wording import table
from tests.benchmarks import material
from tests.benchmarks.figures import FIGURES, Bench, Figure
from tests.harness import Lq
from workers.sensors import machine

ROUNDS = 3
_HEADER = ("figure", "lq", "peer", "measured", "lowest to highest", "goal", "reached")
_VERSIONS = ("mlx", "mlx-lm", "sqlalchemy", "huey")


def main() -> int:
    """Measure what was asked for; the exit code does not depend on what was reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(FIGURES), help=f"some of {','.join(FIGURES)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each comparison")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(FIGURES):
        parser.error(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lq-bench-") as scratch:
        figures = _measure(Path(scratch), names, options.rounds)
    print("\n".join(_report(figures, time.monotonic() - began)))  # noqa: T201 the table is what this is for
    return 0


def _measure(folder: Path, names: Sequence[str], rounds: int) -> list[Figure]:
    lq = Lq(folder / "home")
    bench = Bench(folder=folder, lq=lq, model=material.model(folder / "model"), rounds=rounds, say=_say)
    lq.start_worker()
    figures = []
    try:
        bench.warm_up()
        for name in names:
            _say(f"{name}: {(FIGURES[name].__doc__ or '').splitlines()[0]}")
            figures += FIGURES[name](bench)
    finally:
        lq.leave()
    return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 progress, for whoever waits


def _report(figures: Sequence[Figure], seconds: float) -> list[str]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS)
    load, command = os.getloadavg()[1], shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]])
    return [
        *table(_HEADER, [_row(figure) for figure in figures], right="lrrrrrl"),
        "",
        *(f"- {figure.what}: {figure.note}." for figure in figures if figure.note),
        f"- Machine: {machine()}, {os.cpu_count()} cores, {platform.system()}; load average of 5 minutes {load:.1f}.",
        f"- Versions: Python {platform.python_version()}, {versions}.",
        f"- Command: {command}; {seconds / 60:.0f} min in all.",
    ]


def _row(figure: Figure) -> tuple[str, ...]:
    unit = f" {figure.unit}" if figure.unit else ""
    low, high = figure.spread
    sign = "<=" if figure.at_most else ">="
    return (
        figure.what,
        figure.lq,
        figure.peer,
        f"{figure.value:.3g}{unit}",
        f"{low:.3g} to {high:.3g}",
        f"{sign} {figure.goal:g}{unit}",
        "yes" if figure.reached else "no",
    )


if __name__ == "__main__":
    sys.exit(main())
