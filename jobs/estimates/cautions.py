"""What a person should know before a run begins, though it would not fail. Pure; numbers in, lines out."""

from __future__ import annotations

import dataclasses

from jobs.loss import learning_rate
from jobs.model.spec import JobSpec

MOST_EPOCHS = 20
FEW_VALIDATION_ROWS = 50
"""Fewer, and the verdict of the report is INCONCLUSIVE (policies.md 7)."""

MUCH_TRUNCATED = 0.01

LORA_RATES, FULL_RATES = (1e-6, 1e-3), (1e-7, 1e-4)
"""Peak learning rates of published runs with Adam, widened on both sides. LoRA (Hu et al. 2021, appendix D): 6e-5 to
5e-4; QLoRA (Dettmers et al. 2023): 1e-4 and 2e-4; MLX-LM's default: 1e-5. Full fine-tuning takes about a tenth."""

_WITH_ADAM = ("adam", "adamw")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What the tokenised data of a job is like."""

    rows: int  # of the training set
    truncated: int  # training rows longer than max_seq_length
    unsupervised: int  # training rows without a token to learn, which are left out
    padding_share: float | None  # of the positions in batches, 0..1
    batches_per_epoch: int
    valid_rows: int
    also_trained: int  # validation rows that are training rows too, word for word
    nearly_trained: int | None  # and nearly; None where that was not sought

    def epochs(self, spec: JobSpec) -> float:
        """Return how often a run goes through the training set."""
        return spec.iters / self.batches_per_epoch if self.batches_per_epoch else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caution:
    """One thing to know."""

    code: str
    text: str  # one line for a person


def of_settings(spec: JobSpec) -> list[Caution]:
    """Return what the job file alone gives reason to say."""
    return [one for one in (_rate(spec), _schedule(spec)) if one is not None]


def of_data(spec: JobSpec, data: Data) -> list[Caution]:
    """Return what the data give reason to say.

    Args:
        spec: what is asked for.
        data: as it is tokenised.
    """
    found = (_epochs(spec, data), _unsupervised(data), _truncated(spec, data), _validation(spec, data), _shared(data))
    return [one for one in found if one is not None]


def of_time(ends_at: float, due_at: float | None, *, ends: str, due: str) -> list[Caution]:
    """Return what the clock gives reason to say.

    Args:
        ends_at: when the run would end, in unix seconds.
        due_at: when it should be done; None where no deadline is set.
        ends: the first in words.
        due: the second in words.
    """
    if due_at is None or ends_at <= due_at:
        return []
    return [Caution(code="deadline", text=f"the deadline will not be met: done {ends}, due {due}")]


def _rate(spec: JobSpec) -> Caution | None:
    if spec.optimizer not in _WITH_ADAM:
        return None
    full = spec.fine_tune_type == "full"
    low, high = FULL_RATES if full else LORA_RATES
    rate = learning_rate.highest(spec)
    if low <= rate <= high:
        return None
    where = f"above {high:g}" if rate > high else f"below {low:g}"
    source = "about a tenth of LoRA's" if full else "the papers on LoRA and QLoRA: 6e-5 to 5e-4, MLX-LM's default: 1e-5"
    kind = "full fine-tuning" if full else spec.fine_tune_type
    batch = spec.batch_size * spec.grad_accumulation_steps
    text = (
        f"the learning rate reaches {rate:.3g}, {where}: usual for {kind} with Adam are {low:g} to {high:g} "
        f"({source}); an update averages {batch} rows"
    )
    return Caution(code="learning_rate", text=text)


def _schedule(spec: JobSpec) -> Caution | None:
    """A schedule counts updates; with accumulation these are fewer than iterations."""
    schedule, made = spec.lr_schedule, learning_rate.updates(spec)
    if schedule is None:
        return None
    how = f"the run makes {made:,} updates ({spec.iters:,} iterations / {spec.grad_accumulation_steps})"
    if schedule.warmup >= made:
        text = f"the warm-up lasts {schedule.warmup:,} updates, but {how}"
        return Caution(code="schedule", text=text)
    planned = learning_rate.planned(schedule)
    if planned is not None and planned > 2 * made:
        text = f"the schedule ends after {planned:,} updates, but {how}: the rate hardly comes down"
        return Caution(code="schedule", text=text)
    return None


def _epochs(spec: JobSpec, data: Data) -> Caution | None:
    epochs = data.epochs(spec)
    if epochs <= MOST_EPOCHS:
        return None
    iters = MOST_EPOCHS * data.batches_per_epoch
    text = f"{epochs:.0f} times through the training set; {MOST_EPOCHS} times are {iters:,} iterations"
    return Caution(code="epochs", text=text)


def _unsupervised(data: Data) -> Caution | None:
    if not data.unsupervised:
        return None
    text = f"{data.unsupervised:,} of {data.rows:,} training rows have no token to learn and are left out"
    return Caution(code="unsupervised", text=text)


def _truncated(spec: JobSpec, data: Data) -> Caution | None:
    if not data.rows or data.truncated / data.rows <= MUCH_TRUNCATED:
        return None
    share = data.truncated / data.rows
    text = f"{data.truncated:,} training rows ({share:.0%}) are longer than {spec.max_seq_length:,} tokens and are cut"
    return Caution(code="truncated", text=text)


def _validation(spec: JobSpec, data: Data) -> Caution | None:
    rows = data.valid_rows if spec.val_batches < 0 else min(data.valid_rows, spec.val_batches * spec.batch_size)
    if not rows:
        why = "no validation set" if not data.valid_rows else "val_batches is 0"
        return Caution(code="no_validation", text=f"{why}: no best adapter is found, and overfitting goes unseen")
    if rows < FEW_VALIDATION_ROWS:
        text = f"{rows} validation rows are few: under {FEW_VALIDATION_ROWS} the report can say little"
        return Caution(code="few_validation_rows", text=text)
    return None


def _shared(data: Data) -> Caution | None:
    both = data.also_trained + (data.nearly_trained or 0)
    if not both:
        return None
    near = f" and {data.nearly_trained:,} nearly" if data.nearly_trained else ""
    text = (
        f"{data.also_trained:,} of {data.valid_rows:,} validation rows are training rows too{near}: "
        "validation looks better than it is"
    )
    return Caution(code="duplicates", text=text)
