"""The losses of preference objectives against values of TRL's own functions and against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from jobs.model.objective import Cpo, Dpo, Kto, Orpo, Simpo
from workers.mlx import preference_losses as losses
from workers.mlx.preference_losses import Answers, Scored

CHOSEN = Answers(sums=mx.array([-12.5, -3.25, -40.0, -0.75]), tokens=mx.array([10, 4, 25, 3]))
REJECTED = Answers(sums=mx.array([-14.0, -2.5, -38.0, -9.0]), tokens=mx.array([8, 4, 30, 6]))
REFERENCE_CHOSEN = mx.array([-13.0, -3.0, -41.5, -1.0])
REFERENCE_REJECTED = mx.array([-13.5, -3.0, -37.0, -8.5])
DESIRABLE = mx.array([True, False, True, False])
DIVERGENCE = mx.array([2.0, -1.0, 3.0, 1.0])

TRL = {  # TRL 1.16, float64: odds_ratio_loss, cpo_loss, the branches of the DPO and KTO trainers
    "orpo": [1.2921191, 0.9018536, 1.6936413, 0.257842],
    "cpo_sigmoid": [1.885957, 1.5363501, 2.3781389, 0.6959167],
    "cpo_hinge": [2.1, 1.8875, 2.8, 0.425],
    "cpo_ipo": [21.5, 27.7226562, 30.0444444, 14.3125],
    "simpo": [0.6931472, 1.4629127, 1.673008, 0.3514133],
    "dpo_sigmoid": [0.6443967, 0.7313501, 0.5759394, 0.6563501],
    "dpo_hinge": [0.9, 1.075, 0.75, 0.925],
    "dpo_ipo": [23.8876563, 26.9101562, 24.0753778, 23.3611111],
    "kto": [0.5187412, 0.6938552, 0.4937503, 0.7125312],
    "apo": [0.4875026, 0.7406255, 0.4625702, 0.7593745],
}


def _dpo(p: Dpo) -> Scored:
    return losses.dpo(CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, p)


def _kto(p: Kto) -> Scored:
    divergence = DIVERGENCE if p.loss == "kto" else None
    return losses.kto(CHOSEN, REFERENCE_CHOSEN, DESIRABLE, divergence, p)


CASES: dict[str, Callable[[], Scored]] = {
    "orpo": lambda: losses.orpo(CHOSEN, REJECTED, Orpo(beta=0.1)),
    "cpo_sigmoid": lambda: losses.cpo(CHOSEN, REJECTED, Cpo(label_smoothing=0.1)),
    "cpo_hinge": lambda: losses.cpo(CHOSEN, REJECTED, Cpo(loss="hinge")),
    "cpo_ipo": lambda: losses.cpo(CHOSEN, REJECTED, Cpo(loss="ipo")),
    "simpo": lambda: losses.simpo(CHOSEN, REJECTED, Simpo(label_smoothing=0.1)),
    "dpo_sigmoid": lambda: _dpo(Dpo()),
    "dpo_hinge": lambda: _dpo(Dpo(loss="hinge")),
    "dpo_ipo": lambda: _dpo(Dpo(loss="ipo")),
    "kto": lambda: _kto(Kto(undesirable_weight=1.5)),
    "apo": lambda: _kto(Kto(loss="apo_zero_unpaired", undesirable_weight=1.5)),
}


def _numbers(array: mx.array) -> list[float]:
    return cast("list[float]", array.tolist())


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_those_of_trl(name: str) -> None:
    assert _numbers(CASES[name]().losses) == pytest.approx(TRL[name], rel=1e-5)


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return cast("np.ndarray", -np.logaddexp(0, -x))


def test_dpo_equals_numpy_with_smoothing() -> None:
    rng = np.random.default_rng(0)
    sums = -np.abs(rng.normal(20, 9, (4, 64)))
    chosen, rejected, reference_chosen, reference_rejected = (mx.array(row.astype(np.float32)) for row in sums)
    ones = mx.ones(64)
    scored = losses.dpo(
        Answers(sums=chosen, tokens=ones),
        Answers(sums=rejected, tokens=ones),
        reference_chosen,
        reference_rejected,
        Dpo(beta=0.3, label_smoothing=0.2),
    )
    logits = 0.3 * ((sums[0] - sums[2]) - (sums[1] - sums[3]))
    np.testing.assert_allclose(
        np.array(scored.losses), -0.8 * _log_sigmoid(logits) - 0.2 * _log_sigmoid(-logits), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(np.array(scored.chosen), 0.3 * (sums[0] - sums[2]), rtol=1e-4, atol=1e-5)


def test_orpo_equals_numpy_probabilities() -> None:
    chosen, rejected = np.exp(CHOSEN.means), np.exp(REJECTED.means)
    odds = np.log((chosen / (1 - chosen)) / (rejected / (1 - rejected)))
    expected = -np.log(chosen) - 0.5 * _log_sigmoid(odds)
    scored = losses.orpo(CHOSEN, REJECTED, Orpo(beta=0.5))
    np.testing.assert_allclose(np.array(scored.losses), expected, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_extreme_answers_stay_finite(name: str) -> None:
    """A certain and an impossible answer have a finite loss and a finite gradient."""
    tokens = mx.array([3.0, 3.0])
    p = {"dpo": Dpo(), "orpo": Orpo(), "simpo": Simpo(), "cpo": Cpo(), "kto": Kto()}.get(name.split("_")[0], Kto())

    def loss(sums: mx.array) -> mx.array:
        chosen, rejected = Answers(sums=sums, tokens=tokens), Answers(sums=sums[::-1], tokens=tokens)
        zero = mx.zeros(2)
        if isinstance(p, Dpo):
            return losses.dpo(chosen, rejected, zero, zero, p).losses.sum()
        if isinstance(p, Kto):
            return losses.kto(chosen, zero, mx.array([True, False]), zero, p).losses.sum()
        objective = {Orpo: losses.orpo, Simpo: losses.simpo, Cpo: losses.cpo}[type(p)]
        return cast("Callable[..., Scored]", objective)(chosen, rejected, p).losses.sum()

    value, gradient = mx.value_and_grad(loss)(mx.array([0.0, -3000.0]))
    assert math.isfinite(float(cast("float", value.item())))
    assert all(math.isfinite(entry) for entry in _numbers(gradient))


def test_divergence_carries_no_gradient() -> None:
    def loss(divergence: mx.array) -> mx.array:
        return losses.kto(CHOSEN, REFERENCE_CHOSEN, DESIRABLE, divergence, Kto()).losses.sum()

    assert _numbers(mx.grad(loss)(DIVERGENCE)) == [0.0] * 4


def test_rewards_carry_no_gradient() -> None:
    def reward(sums: mx.array) -> mx.array:
        answers = Answers(sums=sums, tokens=CHOSEN.tokens)
        return losses.dpo(answers, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, Dpo()).chosen.sum()

    assert _numbers(mx.grad(reward)(CHOSEN.sums)) == [0.0] * 4
