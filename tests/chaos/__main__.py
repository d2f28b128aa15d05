"""`python -m tests.chaos --rounds 200 --seed 1`: the long run. Exit code 1 if a check failed."""

from __future__ import annotations

import argparse
import sys

from tests.chaos.campaign import run_campaign
from tests.chaos.schedule import plans
from tests.chaos.summary import summary


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="number of rounds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="run only these rounds")
    parser.add_argument("--iters", type=int, default=80, help="iterations of each job")
    parser.add_argument("--quiet", action="store_true", help="print only the summary")
    options = parser.parse_args(arguments)
    chosen = [plan for plan in plans(options.seed, options.rounds) if not options.only or plan.number in options.only]
    result = run_campaign(chosen, iters=options.iters, dry_runs=2, say=_silent if options.quiet else _say)
    again = [f"--{name} {getattr(options, name)}" for name in ("rounds", "seed", "iters")]
    if options.only:
        again.append(f"--only {' '.join(map(str, options.only))}")
    _say(summary(result, seed=options.seed, command=f"python -m tests.chaos {' '.join(again)}"))
    for process in result.left:
        _say(f"still running: {process}")
    return 0 if result.passed else 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 the output of this program


def _silent(_: str) -> None:
    """Print nothing."""


if __name__ == "__main__":
    sys.exit(main())
