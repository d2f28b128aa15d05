"""`python -m tests.chaos --rounds 200 --seed 1`: the long run. Exit code 1 where anything did not hold."""

from __future__ import annotations

import argparse
import sys

from tests.chaos.campaign import live_through
from tests.chaos.schedule import plans
from tests.chaos.table import table


def main(arguments: list[str] | None = None) -> int:
    """Play the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how many rounds the seed draws")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="play only these of them")
    parser.add_argument("--iters", type=int, default=80, help="iterations of each job")
    parser.add_argument("--quiet", action="store_true", help="only the table")
    options = parser.parse_args(arguments)
    chosen = [plan for plan in plans(options.seed, options.rounds) if not options.only or plan.number in options.only]
    result = live_through(chosen, iters=options.iters, rehearsals=2, say=_silent if options.quiet else _say)
    again = [f"--{name} {getattr(options, name)}" for name in ("rounds", "seed", "iters")]
    if options.only:
        again.append(f"--only {' '.join(map(str, options.only))}")
    _say(table(result, seed=options.seed, command=f"python -m tests.chaos {' '.join(again)}"))
    for one in result.left:
        _say(f"left: {one}")
    return 0 if result.all_well else 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 what this program is for


def _silent(_: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
