"""`python -m tests.benchmarks.detectors`: the loss detector and four common rules on seeded curves."""

from __future__ import annotations

import argparse
import itertools
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

from jobs.loss.alarms import Alarm
from orchestrator.formatting.markdown import table
from tests.benchmarks.detectors import measure
from tests.benchmarks.detectors.curves import BREAKS, FAMILIES, ITERATIONS, STEPS_PER_REPORT
from tests.benchmarks.detectors.measure import Clean, Found, OneFamily
from tests.benchmarks.detectors.rules import GRAVE, RULES

RUNS = 200
DRAWS = 20
SIZES = (0.0, 0.15, 0.25, 0.3, 0.4, measure.LEAST_RISE)
NOISES = (1.5, 2.0, 3.0)


def main() -> int:
    """Measure and print; the exit code does not depend on the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.detectors", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="healthy runs per family, and broken runs per kind of break"
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help="noise draws of the reference run")
    options = parser.parse_args()
    started = time.monotonic()
    for line in _lines(options.runs, options.draws):
        print(line, flush=True)  # noqa: T201 the output
    command = shlex.join(["python", "-m", "tests.benchmarks.detectors", *sys.argv[1:]])
    print(f"\nCommand: `{command}`; {time.monotonic() - started:.0f} s in total.")  # noqa: T201
    return 0


def _lines(runs: int, draws: int) -> Iterator[str]:
    families = {name: measure.family(name, runs) for name in FAMILIES}
    yield from _rules(families)
    yield from _families(families)
    yield from _short(runs)
    yield from _reference(draws)
    yield from _limits(runs)


def _rules(families: dict[str, OneFamily]) -> Iterator[str]:
    header = (
        "rule",
        "runs with a false alarm",
        "false alarms per run",
        *(f"{kind}s found" for kind in BREAKS),
        "delay",
    )
    rows = []
    for rule in RULES:
        clean = sum((each.clean[rule] for each in families.values()), Clean(runs=0, alarmed=0, alarms=0))
        by_kind = [sum((each.found[rule][kind] for each in families.values()), measure.NONE_FOUND) for kind in BREAKS]
        rows.append((rule, *_clean(clean), *map(_share, by_kind), _delay(by_kind)))
    yield from table(header, rows, right="lrrrrrr")
    yield ""
    yield (
        f"- {clean.runs:,} healthy runs of {ITERATIONS:,} iterations, {STEPS_PER_REPORT} per report, in four families "
        "(below). For lq, an alarm is SPIKE, DRIFT or NOT_FINITE, including those of validations; for the other rules, "
        "alarms within 20 reports of each other count as one."
    )
    yield (
        f"- Found: the share of broken runs with a rise of {measure.LEAST_RISE} nats or more (number in "
        f"brackets) that have an alarm within {measure.IN_TIME} reports. A rule that always alarms finds all of them."
    )
    yield (
        "- Delay: reports from the break to the alarm, median and maximum; for a slow drift, from the report at which "
        "its level, without noise, fulfils the condition of a drift (docs/explanation/policies.md, section 1)."
    )
    yield ""


def _families(families: dict[str, OneFamily]) -> Iterator[str]:
    header = ("family, lq alone", "runs with a false alarm", *(f"{kind}s found" for kind in BREAKS), "delay")
    header = (*header, "drift's delay since it started", "SUSPECTs per run", "OVERFITTING reported")
    rows = []
    for name, each in families.items():
        of, clean = each.found["lq"], each.clean["lq"]
        drifts = of["slow drift"].since_onset
        since = f"{statistics.median(drifts):.0f} / {max(drifts)}" if drifts else "-"
        overfitting = f"{100 * each.alarmed[Alarm.OVERFITTING] / clean.runs:.1f} %"
        suspects = f"{each.suspects / clean.runs:.2f}"
        shares = (_share(of[kind]) for kind in BREAKS)
        rows.append((name, f"{clean.share:.1f} %", *shares, _delay([*of.values()]), since, suspects, overfitting))
    yield from table(header, rows, right="lrrrrrrrr")
    yield ""
    yield (
        "- A SUSPECT costs a validation. OVERFITTING is only reported; the validation loss rises only in the family "
        "of that name."
    )
    yield ""


def _short(runs: int) -> Iterator[str]:
    stuck, healthy = measure.without_gradient(runs)
    learned, tiny = healthy
    regressed = measure.regressions(runs)
    shares = {alarm: f"{100 * regressed[alarm] / runs:.1f} %" for alarm in Alarm}
    rolled_back = sum(regressed[alarm] for alarm in GRAVE)
    yield (
        f"- Short runs of 1,500 iterations that stop learning (gradient 0, constant loss), {runs} of them: "
        f"{_share(stuck)} found, delay {_delay([stuck])} reports. False alarms: {learned.alarmed} of {runs} runs that "
        f"have learned their rows (loss near 0, gradient 0), {tiny.alarmed} of {runs} with tiny gradients."
    )
    yield (
        f"- Short runs whose both losses rise by 5 to 15 % after their best validation, {runs} of them: "
        f"REGRESSED reported in {shares[Alarm.REGRESSED]}, OVERFITTING in {shares[Alarm.OVERFITTING]}, rolled "
        f"back: {rolled_back}."
    )
    yield ""


def _reference(draws: int) -> Iterator[str]:
    header = ("reference run", "alarm at iteration", "rollback target", "other alarms")
    rows = []
    for rule in RULES:
        of = measure.reference(rule, draws)
        rows.append((rule, *(_range(values) for values in (of.alarmed_at, of.targets, of.others))))
    yield from table(header, rows, right="lrrr")
    yield ""
    yield (
        f"- Rebuilt from its table at {STEPS_PER_REPORT} iterations per report, {draws} draws of the noise, lowest to "
        "highest; without rollbacks, so that all 15,000 iterations are used. Rollback target: the newest checkpoint, "
        f"one every {measure.SAVE_EVERY}, at least 100 iterations before the first flag."
    )
    yield ""


def _limits(runs: int) -> Iterator[str]:
    bounds = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(SIZES)]
    header = ("smaller rises, in nats: found by lq, delay", *bounds)
    kinds = ("permanent doubling", "slow drift")
    rows = [
        (kind, *(f"{_share(found)}, {_delay([found])}" for found in measure.found_by_size(kind, SIZES, runs)))
        for kind in kinds
    ]
    yield from table(header, rows, right="l" + "r" * len(bounds))
    yield ""
    noises = zip(NOISES, measure.with_more_noise(NOISES, runs // 4), strict=True)
    hard = measure.with_more_hard_batches(1 / 50, runs)
    share = ", ".join(f"{factor:g}: {clean.alarmed} of {clean.runs}" for factor, clean in noises)
    yield (
        "- Limits: a flag needs a rise of 0.15 nats, a drift 0.25 nats and more with noise. Runs with a false alarm "
        f"if the noise of these curves is raised to a power, as with very short reports: {share}; with a difficult "
        f"batch in one report of 50, so that they are not isolated: {hard.alarmed} of {hard.runs}."
    )


def _clean(clean: Clean) -> tuple[str, str]:
    return f"{clean.share:.1f} %", f"{clean.alarms / clean.runs:.3g}"


def _share(found: Found) -> str:
    return f"{found.share:.1f} % ({found.runs})" if found.runs else "-"


def _delay(found: Sequence[Found]) -> str:
    delays = [delay for each in found for delay in each.delays]
    return f"{statistics.median(delays):.0f} / {max(delays)}" if delays else "-"


def _range(values: Sequence[int]) -> str:
    if not values:
        return "never"
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,} to {max(values):,}"


if __name__ == "__main__":
    sys.exit(main())
