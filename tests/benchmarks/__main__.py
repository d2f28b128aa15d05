"""`python -m tests.benchmarks`: measure the figures and print one table of results and goals."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import material
from tests.benchmarks.figures import FIGURES, NOT_BY_DEFAULT, Bench, Figure
from tests.benchmarks.table import as_json, as_text, row
from tests.harness import Lq

ROUNDS = 3
TRAINING = ("speed", "epoch", "start", "recovery", "worker", "checkpoint")
"""Figures that train; before the first of them, MLX compiles its kernels."""


def main() -> int:
    """Measure the requested figures; the exit code does not depend on the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    default = [name for name in FIGURES if name not in NOT_BY_DEFAULT]
    parser.add_argument("--only", default=",".join(default), help=f"comma-separated figures of {','.join(FIGURES)}")
    parser.add_argument("--all", action="store_true", help=f"{' and '.join(NOT_BY_DEFAULT)} also")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each comparison")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    names = list(FIGURES) if options.all else options.only.split(",")
    if unknown := set(names) - set(FIGURES):
        parser.error(f"no figure {', '.join(sorted(unknown))}; the figures are {', '.join(FIGURES)}")
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the finally clauses run
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lq-bench-") as scratch:
        figures = _measure(Path(scratch), names, options.rounds)
    seconds = time.monotonic() - started
    text = json.dumps(as_json(figures, seconds)) if options.json else "\n".join(as_text(figures, seconds))
    print(text)  # noqa: T201 the output
    return 0


def _measure(folder: Path, names: Sequence[str], rounds: int) -> list[Figure]:
    lq = Lq(folder / "home")
    bench = Bench(folder=folder, lq=lq, model=material.model(folder / "model"), rounds=rounds, say=_say)
    figures: list[Figure] = []
    try:
        if set(names) & set(TRAINING):
            lq.start_worker()
            bench.warm_up()
        for name in names:
            started = time.monotonic()
            _say(f"{name}: {(FIGURES[name].__doc__ or '').splitlines()[0]}")
            measured = FIGURES[name](bench)
            for figure in measured:
                _say("  " + " | ".join(row(figure)))
            _say(f"  took {time.monotonic() - started:.0f} s")
            figures += measured
    finally:
        lq.leave()
    return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 progress


if __name__ == "__main__":
    sys.exit(main())
