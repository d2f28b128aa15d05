"""What rules found in the facts: phases, happenings, the verdict. Frozen and plain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jobs.policies.verdict import Difference, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of the train loss (phases.py has the rules)."""

    name: str  # initial learning, spike, recovery, convergence, or further training between them
    first: int  # iteration
    last: int
    loss_first: float  # level at its beginning: the running median of the reports
    loss_last: float
    peak_iteration: int | None  # of a spike: its highest report
    peak_loss: float | None
    seconds: float  # between its reports, without what lay between attempts
    back: bool | None  # of a recovery: whether the loss came back to where it had been


@dataclasses.dataclass(frozen=True, kw_only=True)
class Happening:
    """An entry of the timeline."""

    time: float | None  # unix seconds
    iteration: int | None
    attempt: int | None
    code: str
    what: str
    evidence: str
    action: str
    cost_iterations: int | None  # None where there is none or it is not known
    cost_seconds: float | None
    cost: str  # in words
    numbers: Mapping[str, Any]  # what the rule saw


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuiltyRow:
    """A row that the autopsy of a spike ranked."""

    place: str  # file and line
    loss: float  # its own, under the weights that were gone back to


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """Where the run departed from what was requested."""

    first_iteration: int
    changes: str  # setting asked -> run, ...
    because: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """A data file measured before training and with the weights to be used."""

    name: str  # validation or test
    before: float  # nats per token
    after: float
    iteration: int  # of the weights measured after
    rows: int
    difference: Difference | None  # after minus before


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ruling:
    """The verdict, and the numbers beside it."""

    verdict: Verdict
    advice: str
    seconds_after_good: float | None  # of training, after the first checkpoint as good as the best
    final_minus_best: Difference | None
    train_after_best: Difference | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that rules found."""

    ruling: Ruling | None  # None while the job lives
    phases: tuple[Phase, ...]
    happenings: tuple[Happening, ...]  # by time
    changes: tuple[Change, ...]
    guilty: tuple[GuiltyRow, ...]  # worst first
    gains: tuple[Gain, ...]  # over the model before training
