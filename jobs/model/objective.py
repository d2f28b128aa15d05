"""`lq.objective`: what a run minimizes. The names and defaults of preference objectives are those of TRL."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from jobs.model.base import FrozenModel


class Supervised(FrozenModel):
    """Cross entropy of the supervised tokens, the loss of MLX-LM."""

    name: Literal["sft"] = Field("sft", description="the objective")

    keys: ClassVar[tuple[str, ...]] = ()
    sequences: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False


class _Pairs(FrozenModel):
    """An objective whose rows have a chosen and a rejected answer."""

    keys: ClassVar[tuple[str, ...]] = ("chosen", "rejected")  # of a row, besides `prompt`
    sequences: ClassVar[int] = 2  # of tokens, of each row
    needs_reference: ClassVar[bool] = False  # log-probabilities of the model at the start of the run


def _only_sigmoid(value: float, info: ValidationInfo) -> float:
    if value and info.data.get("loss", "sigmoid") != "sigmoid":
        raise ValueError("0 unless loss is sigmoid")
    return value


LabelSmoothing = Annotated[float, AfterValidator(_only_sigmoid), Field(ge=0, lt=0.5)]


class Dpo(_Pairs):
    """Direct preference optimization (Rafailov et al., 2023)."""

    name: Literal["dpo"] = Field("dpo", description="the objective")
    beta: float = Field(0.1, gt=0, description="weight of the log-ratio to the reference model")
    loss: Literal["sigmoid", "hinge", "ipo"] = Field("sigmoid", description="loss of a pair's log-ratio difference")
    label_smoothing: LabelSmoothing = Field(0.0, description="assumed share of wrong preferences; sigmoid only")

    needs_reference: ClassVar[bool] = True


class Orpo(_Pairs):
    """Odds ratio preference optimization (Hong et al., 2024)."""

    name: Literal["orpo"] = Field("orpo", description="the objective")
    beta: float = Field(0.1, gt=0, description="weight of the odds ratio; `lambda`, as in the paper, means the same")


class Simpo(_Pairs):
    """Simple preference optimization (Meng et al., 2024)."""

    name: Literal["simpo"] = Field("simpo", description="the objective")
    beta: float = Field(2.0, gt=0, description="weight of the mean log-probability of a token")
    gamma: float = Field(1.0, ge=0, description="target margin between the rewards of a pair")
    label_smoothing: LabelSmoothing = Field(0.0, description="assumed share of wrong preferences")


class Cpo(_Pairs):
    """Contrastive preference optimization (Xu et al., 2024)."""

    name: Literal["cpo"] = Field("cpo", description="the objective")
    beta: float = Field(0.1, gt=0, description="weight of the log-probability")
    loss: Literal["sigmoid", "hinge", "ipo"] = Field("sigmoid", description="loss of a pair's difference")
    label_smoothing: LabelSmoothing = Field(0.0, description="assumed share of wrong preferences; sigmoid only")
    alpha: float = Field(1.0, ge=0, description="weight of the cross entropy of the chosen answer")


class Kto(FrozenModel):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024)."""

    name: Literal["kto"] = Field("kto", description="the objective")
    beta: float = Field(0.1, gt=0, description="weight of the log-ratio to the reference model")
    loss: Literal["kto", "apo_zero_unpaired"] = Field("kto", description="apo_zero_unpaired estimates no divergence")
    desirable_weight: float = Field(1.0, ge=0, description="weight of rows with label true")
    undesirable_weight: float = Field(1.0, ge=0, description="weight of rows with label false")

    keys: ClassVar[tuple[str, ...]] = ("completion", "label")
    needs_reference: ClassVar[bool] = True

    @property
    def sequences(self) -> int:
        """2 if each row also has a mismatched answer, with which the divergence is estimated."""
        return 2 if self.loss == "kto" else 1


def written(value: object) -> object:
    """Return the mapping that a shorthand such as `dpo` means, with TRL's names of the parameters."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and value.get("name") == "orpo" and "lambda" in value and "beta" not in value:
        return {"beta" if key == "lambda" else key: item for key, item in value.items()}
    return value


Preference = Dpo | Orpo | Simpo | Cpo | Kto
Objective = Annotated[Supervised | Preference, Field(discriminator="name"), BeforeValidator(written)]
