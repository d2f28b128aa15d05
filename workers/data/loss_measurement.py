"""A measured loss and its standard error. Numbers only; no mlx."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossMeasurement:
    """The loss of rows, in file order."""

    sums: tuple[float, ...]  # cross entropy of each row, in nats
    tokens: tuple[int, ...]  # supervised tokens of each row
    seconds: float  # what it took

    @property
    def examples(self) -> int:
        """Rows."""
        return len(self.sums)

    @property
    def loss(self) -> float:
        """Nats per token."""
        total = sum(self.tokens)
        return sum(self.sums) / total if total else math.nan

    @property
    def standard_error(self) -> float | None:
        """Of the loss, by row; None where there is one row, or no supervised token.

        The loss is the ratio of two sums, so this is the ratio estimator's (Cochran, Sampling Techniques, 3rd ed.,
        eq. 6.13 without the finite-population correction): sqrt(n/(n-1) * sum((s_i - loss*t_i)^2)) / sum(t_i).
        """
        total, count, loss = sum(self.tokens), self.examples, self.loss
        if not total or count < 2:
            return None
        spread = sum((one - loss * length) ** 2 for one, length in zip(self.sums, self.tokens, strict=True))
        return math.sqrt(count / (count - 1) * spread) / total

    @property
    def row_losses(self) -> list[float]:
        """Nats per token of each row."""
        pairs = zip(self.sums, self.tokens, strict=True)
        return [one / length if length else math.nan for one, length in pairs]

    def first(self, examples: int) -> LossMeasurement:
        """Return what was measured on the first so many rows."""
        share = examples / self.examples if self.examples else 0.0
        return LossMeasurement(sums=self.sums[:examples], tokens=self.tokens[:examples], seconds=self.seconds * share)

    def rows_within(self, seconds: float, *, multiple: int) -> int:
        """Return how many of the first rows were measured in this time.

        Args:
            seconds: the time.
            multiple: whole batches of so many rows, at least one.
        """
        if self.seconds <= seconds:
            return self.examples
        return min(self.examples, multiple * max(1, int(self.examples * seconds / self.seconds) // multiple))
