"""The losses of preference objectives: pure functions of log-probabilities, as TRL 1.16 defines them.

Log-probabilities are natural logarithms. A sum is over the supervised tokens of an answer; a mean divides it by their
number. Every function returns one value for each pair or row, (rows,), in float32.
"""

from __future__ import annotations

import dataclasses
import math

import mlx.core as mx

from jobs.model.objective import Cpo, Dpo, Kto, Orpo, Simpo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Log-probabilities of answers under the trained model."""

    sums: mx.array  # (rows,)
    tokens: mx.array  # (rows,): supervised tokens

    @property
    def means(self) -> mx.array:
        """The mean log-probability of a token, (rows,)."""
        return self.sums / self.tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """The losses and implicit rewards of a batch; rewards carry no gradient."""

    losses: mx.array  # (rows,)
    chosen: mx.array  # rewards of the chosen answers, (rows,)
    rejected: mx.array  # rewards of the rejected answers, (rows,)


def dpo(chosen: Answers, rejected: Answers, reference_chosen: mx.array, reference_rejected: mx.array, p: Dpo) -> Scored:
    """Return the loss of equation 7 of Rafailov et al. (2023), or its hinge and IPO variants.

    Args:
        chosen: of the trained model.
        rejected: of the trained model.
        reference_chosen: sums under the reference model, (rows,).
        reference_rejected: sums under the reference model, (rows,).
        p: the parameters of the objective.
    """
    chosen_ratio, rejected_ratio = chosen.sums - reference_chosen, rejected.sums - reference_rejected
    if p.loss == "ipo":  # TRL divides each log-ratio by its answer's tokens
        difference = chosen_ratio / chosen.tokens - rejected_ratio / rejected.tokens
    else:
        difference = chosen_ratio - rejected_ratio
    losses = _pair_loss(difference, p.beta, p.loss, p.label_smoothing)
    return _scored(losses, p.beta * chosen_ratio, p.beta * rejected_ratio)


def orpo(chosen: Answers, rejected: Answers, p: Orpo) -> Scored:
    """Return equation 6 of Hong et al. (2024): cross entropy of the chosen answer, and an odds ratio loss.

    The cross entropy is that of the answer alone, as in the paper; TRL includes the prompt.
    """
    chosen_means, rejected_means = chosen.means, rejected.means
    log_odds = (chosen_means - rejected_means) - (_log1mexp(chosen_means) - _log1mexp(rejected_means))
    losses = -chosen_means - p.beta * _log_sigmoid(log_odds)
    return _scored(losses, p.beta * chosen_means, p.beta * rejected_means)


def simpo(chosen: Answers, rejected: Answers, p: Simpo) -> Scored:
    """Return equation 6 of Meng et al. (2024): a margin of gamma between mean log-probabilities times beta."""
    difference = chosen.means - rejected.means - p.gamma / p.beta
    losses = _pair_loss(difference, p.beta, "sigmoid", p.label_smoothing)
    return _scored(losses, p.beta * chosen.means, p.beta * rejected.means)


def cpo(chosen: Answers, rejected: Answers, p: Cpo) -> Scored:
    """Return equation 5 of Xu et al. (2024): a preference loss without a reference, plus alpha * cross entropy."""
    good, bad = (chosen.means, rejected.means) if p.loss == "ipo" else (chosen.sums, rejected.sums)
    losses = _pair_loss(good - bad, p.beta, p.loss, p.label_smoothing) - p.alpha * chosen.means
    return _scored(losses, p.beta * good, p.beta * bad)


def kto(answers: Answers, reference: mx.array, desirable: mx.array, divergence: mx.array | None, p: Kto) -> Scored:
    """Return equation 8 of Ethayarajh et al. (2024), or the loss `apo_zero_unpaired` of D'Oosterlinck et al. (2024).

    Args:
        answers: of the trained model.
        reference: sums under the reference model, (rows,).
        desirable: labels, (rows,), boolean.
        divergence: log-ratios of mismatched answers, (rows,), whose mean estimates the KL divergence; None for
            `apo_zero_unpaired`.
        p: the parameters of the objective.
    """
    rewards = p.beta * (answers.sums - reference)
    if divergence is None:
        undesirable_losses, desirable_losses = mx.sigmoid(rewards), 1 - mx.sigmoid(rewards)
    else:
        base = p.beta * mx.stop_gradient(mx.maximum(divergence.mean(), 0.0))
        undesirable_losses, desirable_losses = 1 - mx.sigmoid(base - rewards), 1 - mx.sigmoid(rewards - base)
    losses = mx.where(desirable, p.desirable_weight * desirable_losses, p.undesirable_weight * undesirable_losses)
    missing = mx.array(math.nan)
    return _scored(losses, mx.where(desirable, rewards, missing), mx.where(desirable, missing, rewards))


def _pair_loss(difference: mx.array, beta: float, loss: str, label_smoothing: float) -> mx.array:
    """Return the loss of pairs whose log-probabilities or log-ratios differ by `difference`."""
    if loss == "hinge":
        return mx.maximum(1 - beta * difference, 0.0)
    if loss == "ipo":  # equation 17 of Azar et al. (2023)
        return mx.square(difference - 1 / (2 * beta))
    logits = beta * difference
    return -(1 - label_smoothing) * _log_sigmoid(logits) - label_smoothing * _log_sigmoid(-logits)


def _log_sigmoid(x: mx.array) -> mx.array:
    return -mx.logaddexp(mx.zeros_like(x), -x)


def _log1mexp(x: mx.array) -> mx.array:
    """Return log(1 - exp(x)) for x < 0 without cancellation (Mächler, 2012)."""
    x = mx.minimum(x, -1e-7)  # a certain answer: log(0) would be -inf
    near = x > -math.log(2)
    return mx.where(near, mx.log(-mx.expm1(mx.where(near, x, -1.0))), mx.log1p(-mx.exp(mx.where(near, -1.0, x))))


def _scored(losses: mx.array, chosen: mx.array, rejected: mx.array) -> Scored:
    return Scored(losses=losses, chosen=mx.stop_gradient(chosen), rejected=mx.stop_gradient(rejected))
