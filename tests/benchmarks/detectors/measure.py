"""Counts the alarms of each rule on each curve."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from jobs.loss.alarms import Alarm, LossFinding
from jobs.loss.detector import fold
from tests.benchmarks.detectors.curves import (
    BREAKS,
    FAMILIES,
    STEPS_PER_REPORT,
    WARM_UP,
    Broken,
    Curves,
    hard_batches,
    learned,
    reference_run,
    regressing,
    rng_of,
    stuck,
    tiny_gradients,
)
from tests.benchmarks.detectors.rules import GRAVE, RULES, detector, episodes, findings

SEED = 20_240
LEAST_RISE = 0.5
"""Minimum rise of a break in nats; smaller rises have their own table."""
IN_TIME = 100
"""Reports within which a break must be detected."""
SAVE_EVERY = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clean:
    """The false alarms of a rule on healthy runs."""

    runs: int
    alarmed: int  # runs with an alarm
    alarms: int  # episodes

    @property
    def share(self) -> float:
        """Runs with a false alarm, in percent."""
        return 100 * self.alarmed / self.runs

    def __add__(self, other: Clean) -> Clean:
        return Clean(
            runs=self.runs + other.runs, alarmed=self.alarmed + other.alarmed, alarms=self.alarms + other.alarms
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The breaks that a rule detected."""

    runs: int
    delays: tuple[int, ...]  # reports from the break, or from the exact beginning of a drift, to the alarm
    since_onset: tuple[int, ...]  # reports

    @property
    def share(self) -> float:
        """Detected breaks in percent; nan without breaks."""
        return 100 * len(self.delays) / self.runs if self.runs else float("nan")

    def __add__(self, other: Found) -> Found:
        return Found(
            runs=self.runs + other.runs,
            delays=self.delays + other.delays,
            since_onset=self.since_onset + other.since_onset,
        )


NONE_FOUND = Found(runs=0, delays=(), since_onset=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneFamily:
    """The results on one family of curves."""

    clean: dict[str, Clean]  # by rule
    alarmed: Counter[Alarm]  # healthy runs with this alarm of lq, validations included
    suspects: int  # number of SUSPECTs in them
    found: dict[str, dict[str, Found]]  # by rule, then by break


def family(name: str, runs: int) -> OneFamily:
    """Measure every rule on one family, with `runs` healthy runs and as many for each kind of break."""
    number = list(FAMILIES).index(name)
    healthy = FAMILIES[name](rng_of(SEED, number, 0), runs)
    by_run = [findings(healthy, run) for run in range(runs)]
    mine = [[each.iteration // STEPS_PER_REPORT for each in of if each.alarm in GRAVE] for of in by_run]
    others = {rule: list(map(episodes, raise_(healthy.losses))) for rule, raise_ in RULES.items() if rule != "lq"}
    broken = {kind: large(broken_runs(name, kind, runs), LEAST_RISE) for kind in BREAKS}
    return OneFamily(
        clean={rule: _clean(of) for rule, of in {"lq": mine, **others}.items()},
        alarmed=Counter(alarm for of in by_run for alarm in {each.alarm for each in of}),
        suspects=sum(each.alarm is Alarm.SUSPECT for of in by_run for each in of),
        found={
            rule: {kind: found(raise_(of.curves.losses), of, drift=kind == "slow drift") for kind, of in broken.items()}
            for rule, raise_ in RULES.items()
        },
    )


def broken_runs(name: str, kind: str, runs: int) -> Broken:
    """Return runs of a family with one kind of break."""
    seed = (SEED, list(FAMILIES).index(name), 1 + list(BREAKS).index(kind))
    return BREAKS[kind](rng_of(*seed, 0), FAMILIES[name](rng_of(*seed, 1), runs))


def large(broken: Broken, least: float, most: float = float("inf")) -> Broken:
    """Return the runs whose level rises by `least` to `most` nats."""
    which = (broken.rises >= least) & (broken.rises < most)
    names = [field.name for field in dataclasses.fields(Curves) if field.name != "gradients"]
    curves = Curves(**{name: getattr(broken.curves, name)[which] for name in names})
    return Broken(curves=curves, onsets=broken.onsets[which], due=broken.due[which], rises=broken.rises[which])


def found(raised: Sequence[Sequence[int]], broken: Broken, *, drift: bool) -> Found:
    """Count the breaks with an alarm in time.

    Args:
        raised: the reports of each run that raised an alarm.
        broken: the runs.
        drift: measure the delay from the report at which the level is a drift instead of the beginning of its rise.
    """
    delays, since_onset = [], []
    for of, onset, due in zip(raised, broken.onsets.tolist(), broken.due.tolist(), strict=True):
        after = [each for each in of if each >= onset]
        if after and after[0] <= due + IN_TIME:
            delays.append(after[0] - (due if drift else onset))
            since_onset.append(after[0] - onset)
    return Found(runs=len(broken.onsets), delays=tuple(delays), since_onset=tuple(since_onset))


def found_by_size(kind: str, bounds: Sequence[float], runs: int) -> list[Found]:
    """Return the detections of lq for breaks with a rise between two bounds in nats, over all families."""
    sizes = list(itertools.pairwise(bounds))
    counts = [NONE_FOUND] * len(sizes)
    for name in FAMILIES:
        every = broken_runs(name, kind, runs)
        for number, (least, most) in enumerate(sizes):
            some = large(every, least, most)
            counts[number] += found(detector(some.curves.losses), some, drift=kind == "slow drift")
    return counts


def with_more_noise(factors: Iterable[float], runs: int) -> list[Clean]:
    """Return the false alarms of lq on healthy runs with more noise, as with short reports, over all families."""
    every = [make(rng_of(SEED, number, 9), runs) for number, make in enumerate(FAMILIES.values())]
    counts = []
    for factor in factors:
        noisy = [curves.levels * curves.noise**factor for curves in every]
        counts.append(sum((_clean(detector(losses)) for losses in noisy), Clean(runs=0, alarmed=0, alarms=0)))
    return counts


def with_more_hard_batches(share: float, runs: int) -> Clean:
    """Return the false alarms of lq on healthy runs with this share of difficult batches, some close together."""
    return _clean(detector(hard_batches(rng_of(SEED, 98), runs, share=(share, share)).losses))


def without_gradient(runs: int) -> tuple[Found, list[Clean]]:
    """Return the detections of runs that stop learning, and the false alarms of the two kinds that resemble them."""
    broken = stuck(rng_of(SEED, 96), runs)
    raised = [_reports_with(findings(broken.curves, run), Alarm.NO_GRADIENT) for run in range(runs)]
    healthy = (learned(rng_of(SEED, 95, 0), runs), tiny_gradients(rng_of(SEED, 95, 1), runs))
    alarms = [[_reports_with(findings(curves, run), *GRAVE) for run in range(runs)] for curves in healthy]
    return found(raised, broken, drift=False), [_clean(of) for of in alarms]


def regressions(runs: int) -> Counter[Alarm]:
    """Return the number of runs with each alarm, of runs whose both losses rise by little after their best."""
    curves = regressing(rng_of(SEED, 94), runs)
    return Counter(alarm for run in range(runs) for alarm in {each.alarm for each in findings(curves, run)})


def _reports_with(of: Iterable[LossFinding], *alarms: Alarm) -> list[int]:
    return [each.iteration // STEPS_PER_REPORT - 1 for each in of if each.alarm in alarms]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The alarms of a rule on the reference run, over several draws of its noise."""

    alarmed_at: tuple[int, ...]  # iteration of the first alarm of each draw
    targets: tuple[int, ...]  # the checkpoint that would be the rollback target
    others: tuple[int, ...]  # further alarms of each draw


def reference(rule: str, draws: int) -> Reference:
    """Apply a rule to the reference run, without rollbacks, so that all 15,000 iterations are used.

    lq uses the validations too. Every finding after its first alarm counts as another one, including SUSPECT.
    """
    by_draw = [_of_reference(rule, draw) for draw in range(draws)]
    margin = max(100, 10 * STEPS_PER_REPORT)
    return Reference(
        alarmed_at=tuple(alarm for alarms in by_draw for alarm, _ in alarms[:1]),
        targets=tuple((flag - margin) // SAVE_EVERY * SAVE_EVERY for alarms in by_draw for _, flag in alarms[:1]),
        others=tuple(max(0, len(alarms) - 1) for alarms in by_draw),
    )


def _of_reference(rule: str, draw: int) -> list[tuple[int, int]]:
    """Return the iteration and the first flag of each finding, from the first alarm with a rollback on."""
    reports, validated = reference_run(rng_of(SEED, 99, draw))
    if rule == "lq":
        _, all_findings = fold(reports, validated, warm_up=WARM_UP, steps_per_report=STEPS_PER_REPORT)
        first = next((number for number, each in enumerate(all_findings) if each.alarm in GRAVE), len(all_findings))
        return [(each.iteration, each.first_flag) for each in all_findings[first:]]
    (raised,) = RULES[rule](np.array([[each.loss for each in reports]]))
    return [((number + 1) * STEPS_PER_REPORT,) * 2 for number in episodes(raised)]


def _clean(alarms: Sequence[Sequence[int]]) -> Clean:
    return Clean(runs=len(alarms), alarmed=sum(map(bool, alarms)), alarms=sum(map(len, alarms)))
