"""What was measured of machine, data and model, beside facts.py. Frozen and plain; None means "not measured"."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the run took of the machine, and what the machine did meanwhile."""

    limit_bytes: int | None  # what `lq.memory.limit` came to
    peak_bytes: int | None  # the most that MLX held
    footprint_bytes: int | None  # the most that the trainer took
    headroom_bytes: int | None  # limit less the larger of the two
    swap_first_bytes: int | None  # of the whole machine, at the first report
    swap_most_bytes: int | None
    it_s_first: float | None  # median of the first tenth of the reports
    it_s_last: float | None  # of the last tenth
    sleeps: int
    slept_seconds: float
    battery_before: float | None  # charge, 0..1
    battery_after: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenisedFile:
    """A data file as the trainer saw it."""

    name: str  # train, valid or test
    rows: int
    tokens: int | None  # after long rows were cut
    supervised_tokens: int | None  # that are learned
    truncated: int | None  # rows that were cut
    shortest: int | None  # tokens of a row, before it was cut; as all below
    median: float | None
    p95: float | None
    longest: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twin:
    """A row that stands in the training set too."""

    row: int  # in its own file, from 1
    train_row: int
    share: float  # of shingles in common; 1 where they are equal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a file has in common with the training set."""

    name: str  # valid or test
    rows: int
    exact: int
    near: int | None  # None where it was not sought
    examples: tuple[Twin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The data set, tokenised."""

    files: tuple[TokenisedFile, ...]
    max_seq_length: int | None  # tokens; longer rows are cut
    padding_share: float | None  # of all positions of the batches
    repeated_inside: int | None  # training rows that repeat an earlier one
    overlaps: tuple[Overlap, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """What of the model was trained, counted as MLX-LM does."""

    trained: int
    total: int
    targets: tuple[str, ...]  # modules of a layer, such as self_attn.q_proj; none for a full fine-tune
    layers: int

    @property
    def share(self) -> float:
        """Trained parameters in parts of all."""
        return self.trained / self.total if self.total else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said to one of `lq.prompts`, before and after."""

    prompt: str
    before: str | None
    after: str | None
    iteration: int | None  # of the weights that answered after
    max_tokens: int | None  # after which an answer was cut
