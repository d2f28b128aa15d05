"""Which things go wrong in which round, and when: drawn from the seed, so that any round can be played again."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from enum import StrEnum

EARLY = 0.45
"""The short run's instants lie in this share of a life, so that most of what is planned comes to pass."""

SECOND_ACT = 0.4
"""Share of rounds in which a second thing goes wrong."""


class Kind(StrEnum):
    """What can go wrong, in the words of the table."""

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
    LOST_BELL = "wake-up queue lost"
    DOUBLED_BELL = "wake-up queue doubled"
    SECOND_WORKER = "second worker"


AT_SUBMIT = frozenset({Kind.KILL_SUBMIT, Kind.LOST_BELL, Kind.DOUBLED_BELL})
"""Happen while the job is submitted; the others at an instant of its life."""

SLOW = frozenset({Kind.FULL_DISK, Kind.LOST_BELL})
"""lq looks again after a minute, so a round takes that long."""

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
"""Need a trainer, so their instants lie in its life; the others' in the whole life of the job, report included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Act:
    """One thing that goes wrong."""

    kind: Kind
    at: float  # share of the trainer's life (ON_TRAINER) or of the job's, 0..1; 0 for what happens at submit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A round."""

    number: int
    seed: str  # of everything else drawn in the round
    acts: tuple[Act, ...]
    impatient: bool  # somebody wakes the queue where lq would look again within a minute


def plans(seed: int, rounds: int) -> list[Plan]:
    """Draw the rounds: every kind once in a deck, shuffled anew each time; slow kinds in every second deck.

    Args:
        seed: the same seed draws the same rounds, however many are asked for.
        rounds: how many.
    """
    chance = random.Random(seed)  # noqa: S311 plays, guards nothing
    drawn: list[Kind] = []
    deck = 0
    while len(drawn) < rounds:
        kinds = [kind for kind in Kind if deck % 2 == 0 or kind not in SLOW]
        chance.shuffle(kinds)
        drawn += kinds
        deck += 1
    return [_plan(seed, number, first) for number, first in enumerate(drawn[:rounds], start=1)]


def dense(seed: int, rounds: Sequence[Sequence[Kind]]) -> list[Plan]:
    """Draw only the instants, for rounds whose kinds are given.

    Args:
        seed: of the instants.
        rounds: the kinds of each.
    """
    found = []
    for number, kinds in enumerate(rounds, start=1):
        chance = random.Random(f"{seed}/{number}")  # noqa: S311
        acts = tuple(_act(kind, chance, within=EARLY) for kind in kinds)
        found.append(Plan(number=number, seed=f"{seed}/{number}", acts=acts, impatient=True))
    return found


def _plan(seed: int, number: int, first: Kind) -> Plan:
    chance = random.Random(f"{seed}/{number}")  # noqa: S311
    acts = [_act(first, chance)]
    if chance.random() < SECOND_ACT:
        others = [kind for kind in Kind if kind not in SLOW and not {kind, first} <= AT_SUBMIT]
        acts.append(_act(chance.choice(others), chance))
    return Plan(number=number, seed=f"{seed}/{number}", acts=tuple(acts), impatient=chance.random() < 0.5)


def _act(kind: Kind, chance: random.Random, *, within: float = 1.0) -> Act:
    return Act(kind=kind, at=0.0 if kind in AT_SUBMIT else within * chance.random())
