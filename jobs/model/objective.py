"""`lq.objective`: what a run minimizes. The names and defaults of preference objectives are those of TRL."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.model.base import FrozenModel


class Supervised(FrozenModel):
    """Cross entropy of the supervised tokens, the loss of MLX-LM."""

    name: Literal["sft"] = "sft"


class Dpo(FrozenModel):
    """Direct preference optimization (Rafailov et al., 2023)."""

    name: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, description="weight of the log-ratio to the reference model")
    loss: Literal["sigmoid", "hinge", "ipo"] = Field("sigmoid", description="loss of a pair's log-ratio difference")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="assumed share of wrong preferences; sigmoid only")


class Orpo(FrozenModel):
    """Odds ratio preference optimization (Hong et al., 2024)."""

    name: Literal["orpo"] = "orpo"
    lambda_: float = Field(0.1, gt=0, alias="lambda", description="weight of the odds ratio; TRL calls it beta")


class Simpo(FrozenModel):
    """Simple preference optimization (Meng et al., 2024)."""

    name: Literal["simpo"] = "simpo"
    beta: float = Field(2.0, gt=0, description="weight of the mean log-probability of a token")
    gamma: float = Field(1.0, ge=0, description="target margin between the rewards of a pair")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="assumed share of wrong preferences")


class Cpo(FrozenModel):
    """Contrastive preference optimization (Xu et al., 2024)."""

    name: Literal["cpo"] = "cpo"
    beta: float = Field(0.1, gt=0, description="weight of the log-probability")
    loss: Literal["sigmoid", "hinge", "ipo"] = Field("sigmoid", description="loss of a pair's difference")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="assumed share of wrong preferences; sigmoid only")
    alpha: float = Field(1.0, ge=0, description="weight of the cross entropy of the chosen answer")


class Kto(FrozenModel):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024)."""

    name: Literal["kto"] = "kto"
    beta: float = Field(0.1, gt=0, description="weight of the log-ratio to the reference model")
    loss: Literal["kto", "apo_zero_unpaired"] = Field("kto", description="apo_zero_unpaired estimates no divergence")
    desirable_weight: float = Field(1.0, ge=0, description="weight of rows with label true")
    undesirable_weight: float = Field(1.0, ge=0, description="weight of rows with label false")
