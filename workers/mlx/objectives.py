"""What a run minimizes: the batches of an objective, its loss, and the loss of each row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.trainer import default_loss

from jobs.model.objective import Cpo, Dpo, Kto, Orpo, Preference, Simpo, Supervised
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from workers.data.batches import Rows, learned_tokens
from workers.events.reporter import Rewards
from workers.mlx import preference_losses
from workers.mlx.preference_losses import Answers, Scored

Batch = tuple[mx.array, ...]
"""Tokens (sequences, length), spans (sequences, 2), and what the objective needs besides them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLosses:
    """The losses of rows, (rows,) each."""

    sums: mx.array  # nats; summed over the tokens of a row, or of a row as a whole
    counts: mx.array  # supervised tokens; for preferences 1, or 0 if a sequence has no supervised token
    rewards: tuple[mx.array, mx.array] | None = None  # of the chosen and the rejected answer; NaN without one


class Objective(Protocol):
    """A loss over rows."""

    def batch(self, rows: Rows, chosen: Sequence[int], stage: Stage) -> tuple[Batch, int]:
        """Return the batch of the chosen rows, and the number of tokens that are learned from it."""

    def loss(self, network: Any, *batch: mx.array) -> tuple[mx.array, mx.array, mx.array | None]:
        """Return the mean loss, over how many tokens or rows, and the tally of rewards, if there are any."""

    def row_losses(self, network: Any, *batch: mx.array) -> RowLosses:
        """Return the loss of each row."""

    def measured_at_once(self, stage: Stage) -> int:
        """Return the rows of a batch in a measurement."""


def objective_of(spec: JobSpec) -> Objective:
    """Return the objective of a job."""
    chosen = spec.lq.objective
    return CrossEntropy() if isinstance(chosen, Supervised) else Preferences(chosen, spec.batch_size)


class CrossEntropy:
    """The loss of MLX-LM."""

    def batch(self, rows: Rows, chosen: Sequence[int], stage: Stage) -> tuple[Batch, int]:
        """Return tokens and spans, as MLX-LM's loss takes them."""
        tokens, spans = rows.padded(chosen, stage.max_seq_length)
        return (mx.array(tokens), mx.array(spans)), learned_tokens(spans, tokens.shape[1])

    def loss(self, network: Any, *batch: mx.array) -> tuple[mx.array, mx.array, None]:
        """Return the mean over the supervised tokens in nats, and the number of these tokens."""
        loss, tokens = default_loss(network, *batch)
        return loss, tokens, None

    def row_losses(self, network: Any, *batch: mx.array) -> RowLosses:
        """Return MLX-LM's default_loss by row."""
        tokens, spans = batch
        mask = _mask(tokens, spans)
        cross_entropy = nn.losses.cross_entropy(network(tokens[:, :-1]), tokens[:, 1:]) * mask
        return RowLosses(sums=cross_entropy.astype(mx.float32).sum(axis=1), counts=mask.sum(axis=1))

    def measured_at_once(self, stage: Stage) -> int:
        """Return the rows of a micro-batch."""
        return stage.batch_size


class Preferences:
    """The loss of a preference objective: the mean over rows."""

    def __init__(self, parameters: Preference, batch_size: int) -> None:
        self._parameters, self._batch_size = parameters, batch_size

    def batch(self, rows: Rows, chosen: Sequence[int], stage: Stage) -> tuple[Batch, int]:
        """Return tokens, spans, reference log-probabilities and labels; the last two only if there are any."""
        tokens, spans = rows.padded(chosen, stage.max_seq_length)
        spans[:, 1] -= 1  # MLX-LM's loss also counts the first token of the padding; a log-probability must not
        more: list[Any] = [] if rows.reference is None else [rows.reference[rows.sequences(chosen)]]
        if rows.labels:
            more.append([rows.labels[row] for row in chosen])
        trained = spans[: len(chosen)] if rows.labels else spans  # a mismatched answer is not learned
        return tuple(mx.array(part) for part in (tokens, spans, *more)), learned_tokens(trained, tokens.shape[1])

    def loss(self, network: Any, *batch: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Return the mean over the rows in nats, the number of rows, and the tally of rewards."""
        scored, _ = self._scored(network, *batch)
        return scored.losses.mean(), mx.array(scored.losses.size), tally(scored)

    def row_losses(self, network: Any, *batch: mx.array) -> RowLosses:
        """Return losses and rewards of rows, each row counted once."""
        scored, learned = self._scored(network, *batch)
        losses = mx.where(learned, scored.losses, 0.0)
        return RowLosses(sums=losses, counts=learned.astype(mx.int32), rewards=(scored.chosen, scored.rejected))

    def measured_at_once(self, stage: Stage) -> int:
        """Return the rows of a batch: KTO estimates the divergence over a batch, so its size must stay the same."""
        return self._batch_size if isinstance(self._parameters, Kto) else stage.batch_size

    def _scored(self, network: Any, tokens: mx.array, spans: mx.array, *more: mx.array) -> tuple[Scored, mx.array]:
        """Return what `preference_losses` gives for a batch, and whether each row has tokens to learn."""
        sums, counts = log_probabilities(network, tokens, spans)
        p, rows = self._parameters, tokens.shape[0] // self._parameters.sequences
        first = Answers(sums=sums[:rows], tokens=counts[:rows])
        second = Answers(sums=sums[rows:], tokens=counts[rows:])
        learned = (first.tokens > 0) if isinstance(p, Kto) else (first.tokens > 0) & (second.tokens > 0)
        match p:
            case Dpo():
                scored = preference_losses.dpo(first, second, more[0][:rows], more[0][rows:], p)
            case Kto():
                divergence = second.sums - more[0][rows:] if p.sequences > 1 else None
                scored = preference_losses.kto(first, more[0][:rows], more[1], divergence, p)
            case Orpo():
                scored = preference_losses.orpo(first, second, p)
            case Simpo():
                scored = preference_losses.simpo(first, second, p)
            case Cpo():
                scored = preference_losses.cpo(first, second, p)
        return scored, learned


def log_probabilities(network: Any, tokens: mx.array, spans: mx.array) -> tuple[mx.array, mx.array]:
    """Return the summed log-probability of the supervised tokens of each sequence, and their number, (sequences,).

    The logits are float32 from here on: a sum over an answer in half precision would lose a nat.
    """
    mask = _mask(tokens, spans)
    cross_entropy = nn.losses.cross_entropy(network(tokens[:, :-1]).astype(mx.float32), tokens[:, 1:])
    return -mx.where(mask, cross_entropy, 0.0).sum(axis=1), mask.sum(axis=1)


def _mask(tokens: mx.array, spans: mx.array) -> mx.array:
    steps = mx.arange(1, tokens.shape[1])
    return mx.logical_and(steps >= spans[:, 0:1], steps <= spans[:, 1:])


TALLY = 6
"""Numbers of a tally: count and sum of the chosen rewards, count and sum of the rejected ones, rows whose rewards agree
with the preference, and rows. Tallies of micro-batches are added."""


def tally(scored: Scored) -> mx.array:
    """Return the tally of a batch, (TALLY,). A reward that is NaN is absent."""
    parts: list[mx.array] = []
    for rewards in (scored.chosen, scored.rejected):
        present = mx.logical_not(mx.isnan(rewards))
        parts += [present.sum(), mx.where(present, rewards, 0.0).sum()]
    one_sided = mx.isnan(scored.chosen) | mx.isnan(scored.rejected)  # the reward of a labelled answer has a sign
    agrees = mx.where(one_sided, (scored.chosen > 0) | (scored.rejected < 0), scored.chosen > scored.rejected)
    return mx.stack([*parts, agrees.sum(), mx.array(agrees.size)]).astype(mx.float32)


def mean_rewards(tallies: Sequence[Sequence[float]]) -> Rewards | None:
    """Return the mean rewards and the accuracy of the rows behind some tallies; None without tallies."""
    if not tallies:
        return None
    chosen, chosen_sum, rejected, rejected_sum, agree, rows = (sum(parts) for parts in zip(*tallies, strict=True))
    mean = (chosen_sum / chosen if chosen else math.nan, rejected_sum / rejected if rejected else math.nan)
    return *mean, agree / rows
