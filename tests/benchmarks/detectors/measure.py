"""What each rule makes of each curve, counted."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from jobs.loss.alarms import Alarm
from jobs.loss.detector import fold
from tests.benchmarks.detectors.curves import (
    BREAKS,
    FAMILIES,
    STEPS_PER_REPORT,
    WARM_UP,
    Broken,
    Curves,
    hard_batches,
    reference_run,
    rng_of,
)
from tests.benchmarks.detectors.rules import GRAVE, RULES, detector, episodes, findings

SEED = 20_240
LEAST_RISE = 0.5
"""Nats by which a break has to raise the level to be looked for; what becomes of smaller ones is a table of its own."""
IN_TIME = 100
"""Reports within which a break is found, or it is missed."""
SAVE_EVERY = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clean:
    """What a rule said of sound runs."""

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
    """What a rule found of some breaks."""

    runs: int
    delays: tuple[int, ...]  # reports, of those found, since the break; of a drift, since its level is one
    since_onset: tuple[int, ...]  # reports

    @property
    def share(self) -> float:
        """Of them found, in percent; nan where there are none."""
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
    """What was measured on one family of curves."""

    clean: dict[str, Clean]  # by rule
    told: Counter[Alarm]  # what lq said of the sound runs, validations included, in runs
    suspects: int  # SUSPECTs in all of them
    found: dict[str, dict[str, Found]]  # by rule, then by break


def family(name: str, runs: int) -> OneFamily:
    """Measure every rule on one family.

    Args:
        name: of FAMILIES.
        runs: sound ones; as many are broken in each of the three ways.
    """
    number = list(FAMILIES).index(name)
    sound = FAMILIES[name](rng_of(SEED, number, 0), runs)
    told = [findings(sound, run) for run in range(runs)]
    mine = [[found.iteration // STEPS_PER_REPORT for found in of if found.alarm in GRAVE] for of in told]
    others = {rule: list(map(episodes, raise_(sound.losses))) for rule, raise_ in RULES.items() if rule != "lq"}
    broken = {kind: large(broken_runs(name, kind, runs), LEAST_RISE) for kind in BREAKS}
    return OneFamily(
        clean={rule: _clean(of) for rule, of in {"lq": mine, **others}.items()},
        told=Counter(alarm for of in told for alarm in {found.alarm for found in of}),
        suspects=sum(found.alarm is Alarm.SUSPECT for of in told for found in of),
        found={
            rule: {kind: found(raise_(of.curves.losses), of, drift=kind == "slow drift") for kind, of in broken.items()}
            for rule, raise_ in RULES.items()
        },
    )


def broken_runs(name: str, kind: str, runs: int) -> Broken:
    """Return runs of a family, all broken in one way."""
    seed = (SEED, list(FAMILIES).index(name), 1 + list(BREAKS).index(kind))
    return BREAKS[kind](rng_of(*seed, 0), FAMILIES[name](rng_of(*seed, 1), runs))


def large(broken: Broken, least: float, most: float = float("inf")) -> Broken:
    """Return those whose level rises by so many nats."""
    which = (broken.rises >= least) & (broken.rises < most)
    curves = Curves(**{field.name: getattr(broken.curves, field.name)[which] for field in dataclasses.fields(Curves)})
    return Broken(curves=curves, onsets=broken.onsets[which], due=broken.due[which], rises=broken.rises[which])


def found(raised: Sequence[Sequence[int]], broken: Broken, *, drift: bool) -> Found:
    """Count the breaks that an alarm followed in time.

    Args:
        raised: the reports of each run that raised an alarm.
        broken: the runs.
        drift: whether the delay counts from where the level is a drift, not from where it began to rise.
    """
    delays, since_onset = [], []
    for of, onset, due in zip(raised, broken.onsets.tolist(), broken.due.tolist(), strict=True):
        after = [each for each in of if each >= onset]
        if after and after[0] <= due + IN_TIME:
            delays.append(after[0] - (due if drift else onset))
            since_onset.append(after[0] - onset)
    return Found(runs=len(broken.onsets), delays=tuple(delays), since_onset=tuple(since_onset))


def found_by_size(kind: str, bounds: Sequence[float], runs: int) -> list[Found]:
    """Return what lq finds of breaks whose level rises by between two bounds, in nats, over all families."""
    sizes = list(itertools.pairwise(bounds))
    counts = [NONE_FOUND] * len(sizes)
    for name in FAMILIES:
        every = broken_runs(name, kind, runs)
        for number, (least, most) in enumerate(sizes):
            some = large(every, least, most)
            counts[number] += found(detector(some.curves.losses), some, drift=kind == "slow drift")
    return counts


def with_more_noise(factors: Iterable[float], runs: int) -> list[Clean]:
    """Return what lq says of sound runs that scatter as much more, as short reports do; over all families."""
    every = [make(rng_of(SEED, number, 9), runs) for number, make in enumerate(FAMILIES.values())]
    counts = []
    for factor in factors:
        noisy = [curves.levels * curves.noise**factor for curves in every]
        counts.append(sum((_clean(detector(losses)) for losses in noisy), Clean(runs=0, alarmed=0, alarms=0)))
    return counts


def with_more_hard_batches(share: float, runs: int) -> Clean:
    """Return what lq says of sound runs in which such a share of reports is hard, so that some come close together."""
    return _clean(detector(hard_batches(rng_of(SEED, 98), runs, share=(share, share)).losses))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What a rule made of the reference run, over some draws of its noise."""

    alarmed_at: tuple[int, ...]  # iteration of the first alarm of each draw
    targets: tuple[int, ...]  # the checkpoint it would go back to
    others: tuple[int, ...]  # further alarms of each draw


def reference(rule: str, draws: int) -> Reference:
    """Play the reference run to a rule; nobody goes back, so all 15,000 iterations are seen.

    lq sees the validations too, and whatever it says after the first alarm counts as another one, a SUSPECT included.
    """
    said = [_of_reference(rule, draw) for draw in range(draws)]
    margin = max(100, 10 * STEPS_PER_REPORT)
    return Reference(
        alarmed_at=tuple(alarm for alarms in said for alarm, _ in alarms[:1]),
        targets=tuple((flag - margin) // SAVE_EVERY * SAVE_EVERY for alarms in said for _, flag in alarms[:1]),
        others=tuple(max(0, len(alarms) - 1) for alarms in said),
    )


def _of_reference(rule: str, draw: int) -> list[tuple[int, int]]:
    """Return the iteration and the first flag of each alarm, from the first grave one on."""
    reports, validated = reference_run(rng_of(SEED, 99, draw))
    if rule == "lq":
        _, said = fold(reports, validated, warm_up=WARM_UP, steps_per_report=STEPS_PER_REPORT)
        first = next((number for number, each in enumerate(said) if each.alarm in GRAVE), len(said))
        return [(each.iteration, each.first_flag) for each in said[first:]]
    (raised,) = RULES[rule](np.array([[each.loss for each in reports]]))
    return [((number + 1) * STEPS_PER_REPORT,) * 2 for number in episodes(raised)]


def _clean(alarms: Sequence[Sequence[int]]) -> Clean:
    return Clean(runs=len(alarms), alarmed=sum(map(bool, alarms)), alarms=sum(map(len, alarms)))
