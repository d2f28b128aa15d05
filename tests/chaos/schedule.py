"""Draws which faults occur in which round, and when, from a seed, so that every round can be repeated."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from enum import StrEnum

EARLY = 0.45
"""The faults of the short run occur in this share of a run, so that few of them are skipped."""

SECOND_ACT = 0.4
"""Share of rounds with a second fault."""


class Kind(StrEnum):
    """The kinds of faults, as the summary names them."""

    KILL_TRAINER = "-9 trainer"
    KILL_WORKER = "-9 worker"
    KILL_BOTH = "-9 both"
    KILL_SUBMIT = "-9 lq submit"
    KILL_STATUS = "-9 lq status"
    KILL_RETRY = "-9 lq retry"
    STOP_TRAINER = "STOP, later CONT"
    TERM_TRAINER = "TERM trainer"
    FULL_DISK = "disk full"
    CUT_CHECKPOINT = "checkpoint cut"
    FLIP_BYTE = "checkpoint byte flipped"
    TORN_LINE = "torn last line"
    LOST_WAKEUP = "wake-up signal lost"
    DOUBLED_WAKEUP = "wake-up signal doubled"
    SECOND_WORKER = "second worker"


AT_SUBMIT = frozenset({Kind.KILL_SUBMIT, Kind.LOST_WAKEUP, Kind.DOUBLED_WAKEUP})
"""Faults during the submit; all others occur later."""

SLOW = frozenset({Kind.FULL_DISK, Kind.LOST_WAKEUP})
"""lq checks again after one minute, so a round takes that long."""

ON_TRAINER = frozenset(
    {
        Kind.KILL_TRAINER,
        Kind.KILL_BOTH,
        Kind.KILL_RETRY,
        Kind.STOP_TRAINER,
        Kind.TERM_TRAINER,
        Kind.FULL_DISK,
        Kind.CUT_CHECKPOINT,
        Kind.FLIP_BYTE,
        Kind.TORN_LINE,
    }
)
"""Faults that need a trainer; all others may occur until the end of the job, report included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Act:
    """One planned fault."""

    kind: Kind
    at: float  # share of the trainer's run (ON_TRAINER) or of the job's, 0..1; 0 at submit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A planned round."""

    number: int
    seed: str  # for everything else in the round
    acts: tuple[Act, ...]
    impatient: bool  # a user resumes the job before lq checks again


def plans(seed: int, rounds: int) -> list[Plan]:
    """Draw rounds from shuffled decks of all kinds; slow kinds are in every second deck.

    Args:
        seed: the same seed draws the same rounds, for any number of them.
        rounds: number of rounds.
    """
    chance = random.Random(seed)  # noqa: S311 no secret
    drawn: list[Kind] = []
    deck = 0
    while len(drawn) < rounds:
        kinds = [kind for kind in Kind if deck % 2 == 0 or kind not in SLOW]
        chance.shuffle(kinds)
        drawn += kinds
        deck += 1
    return [_plan(seed, number, first) for number, first in enumerate(drawn[:rounds], start=1)]


def dense(seed: int, rounds: Sequence[Sequence[Kind]]) -> list[Plan]:
    """Draw only the times, for rounds with given kinds."""
    drawn = []
    for number, kinds in enumerate(rounds, start=1):
        chance = random.Random(f"{seed}/{number}")  # noqa: S311
        acts = tuple(_act(kind, chance, within=EARLY) for kind in kinds)
        drawn.append(Plan(number=number, seed=f"{seed}/{number}", acts=acts, impatient=True))
    return drawn


def _plan(seed: int, number: int, first: Kind) -> Plan:
    chance = random.Random(f"{seed}/{number}")  # noqa: S311
    acts = [_act(first, chance)]
    if chance.random() < SECOND_ACT:
        others = [kind for kind in Kind if kind not in SLOW and not {kind, first} <= AT_SUBMIT]
        acts.append(_act(chance.choice(others), chance))
    return Plan(number=number, seed=f"{seed}/{number}", acts=tuple(acts), impatient=chance.random() < 0.5)


def _act(kind: Kind, chance: random.Random, *, within: float = 1.0) -> Act:
    return Act(kind=kind, at=0.0 if kind in AT_SUBMIT else within * chance.random())
