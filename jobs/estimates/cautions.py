"""Warnings about a run that would not fail: unusual settings, data that tells little, a deadline. Pure."""

from __future__ import annotations

import dataclasses

from jobs.model.spec import JobSpec, LrSchedule

MOST_EPOCHS = 20
FEW_VALIDATION_ROWS = 50
"""With fewer rows the verdict of the report is INCONCLUSIVE (docs/reference/report.md)."""

MUCH_TRUNCATED = 0.01

LORA_RATES, FULL_RATES = (1e-6, 1e-3), (1e-7, 1e-4)
"""Peak learning rates of published runs with Adam, widened on both sides. LoRA (Hu et al. 2021, appendix D): 6e-5 to
5e-4; QLoRA (Dettmers et al. 2023): 1e-4 and 2e-4; MLX-LM's default: 1e-5. Full fine-tuning uses about a tenth."""

_WITH_ADAM = ("adam", "adamw")
_LENGTH_OF = {"cosine_decay": 1, "linear_schedule": 2}
"""The argument of a schedule (mlx/optimizers/schedulers.py) that is its length in updates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The tokenized data of a job."""

    rows: int  # of the training set
    truncated: int  # training rows longer than max_seq_length
    unsupervised: int  # training rows without a token to learn, which are left out
    padding_share: float | None  # of the positions in batches, 0..1
    batches_per_epoch: int
    valid_rows: int
    also_trained: int  # validation rows that are also training rows, word for word
    nearly_trained: int | None  # validation rows that are nearly training rows; None if not determined

    def epochs(self, spec: JobSpec) -> float:
        """Return how often a run goes through the training set."""
        return spec.iters / self.batches_per_epoch if self.batches_per_epoch else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caution:
    """One warning."""

    code: str
    text: str  # one line for the user


def of_settings(spec: JobSpec) -> list[Caution]:
    """Return the warnings about the settings alone."""
    return [caution for caution in (_rate(spec), _schedule(spec)) if caution is not None]


def of_data(spec: JobSpec, data: DataSummary) -> list[Caution]:
    """Return the warnings about the data under these settings."""
    cautions = (
        _epochs(spec, data),
        _unsupervised(data),
        _truncated(spec, data),
        _validation(spec, data),
        _shared(data),
    )
    return [caution for caution in cautions if caution is not None]


def of_time(ends_at: float, due_at: float | None, *, ends: str, due: str) -> list[Caution]:
    """Return the warning about a deadline that will be missed; `ends` and `due` are the times in words."""
    if due_at is None or ends_at <= due_at:
        return []
    return [Caution(code="deadline", text=f"deadline {due} will be missed: done {ends}")]


def _rate(spec: JobSpec) -> Caution | None:
    if spec.optimizer not in _WITH_ADAM:
        return None
    full = spec.fine_tune_type == "full"
    low, high = FULL_RATES if full else LORA_RATES
    rate = _peak_rate(spec.lr_schedule) if spec.lr_schedule is not None else spec.learning_rate
    if low <= rate <= high:
        return None
    where = f"above {high:g}" if rate > high else f"below {low:g}"
    source = "about a tenth of LoRA's" if full else "the papers on LoRA and QLoRA: 6e-5 to 5e-4, MLX-LM's default: 1e-5"
    kind = "full fine-tuning" if full else spec.fine_tune_type
    text = (
        f"the learning rate reaches {rate:.3g}, {where}: usual for {kind} with Adam are {low:g} to {high:g} "
        f"({source}); an update averages {spec.batch_size * spec.grad_accumulation_steps} rows"
    )
    return Caution(code="learning_rate", text=text)


def _peak_rate(schedule: LrSchedule) -> float:
    """Return the highest rate of a schedule: its first argument; a linear one may also climb to its second."""
    return max(schedule.arguments[:2] if schedule.name == "linear_schedule" else schedule.arguments[:1])


def _schedule(spec: JobSpec) -> Caution | None:
    """A schedule counts updates; with gradient accumulation there are fewer of them than iterations."""
    schedule, updates = spec.lr_schedule, spec.iters // spec.grad_accumulation_steps
    if schedule is None:
        return None
    run = f"the run makes {updates:,} updates ({spec.iters:,} iterations / {spec.grad_accumulation_steps})"
    if schedule.warmup >= updates:
        return Caution(code="schedule", text=f"the warm-up lasts {schedule.warmup:,} updates, but {run}")
    argument = _LENGTH_OF.get(schedule.name)
    length = schedule.warmup + int(schedule.arguments[argument]) if argument is not None else 0
    if length > 2 * updates:
        text = f"the schedule ends after {length:,} updates, but {run}: the rate hardly falls"
        return Caution(code="schedule", text=text)
    return None


def _epochs(spec: JobSpec, data: DataSummary) -> Caution | None:
    epochs = data.epochs(spec)
    if epochs <= MOST_EPOCHS:
        return None
    iters = MOST_EPOCHS * data.batches_per_epoch
    text = f"{epochs:.0f} times through the training set; {MOST_EPOCHS} times are {iters:,} iterations"
    return Caution(code="epochs", text=text)


def _unsupervised(data: DataSummary) -> Caution | None:
    if not data.unsupervised:
        return None
    text = f"{data.unsupervised:,} of {data.rows:,} training rows have no token to learn and are left out"
    return Caution(code="unsupervised", text=text)


def _truncated(spec: JobSpec, data: DataSummary) -> Caution | None:
    if not data.rows or data.truncated / data.rows <= MUCH_TRUNCATED:
        return None
    share = data.truncated / data.rows
    text = f"{data.truncated:,} training rows ({share:.0%}) are longer than {spec.max_seq_length:,} tokens and are cut"
    return Caution(code="truncated", text=text)


def _validation(spec: JobSpec, data: DataSummary) -> Caution | None:
    rows = data.valid_rows if spec.val_batches < 0 else min(data.valid_rows, spec.val_batches * spec.batch_size)
    if not rows:
        why = "no validation set" if not data.valid_rows else "val_batches is 0"
        return Caution(code="no_validation", text=f"{why}: there is no best adapter, and overfitting goes unnoticed")
    if rows < FEW_VALIDATION_ROWS:
        text = f"{rows} validation rows are few: under {FEW_VALIDATION_ROWS} the report can say little"
        return Caution(code="few_validation_rows", text=text)
    return None


def _shared(data: DataSummary) -> Caution | None:
    both = data.also_trained + (data.nearly_trained or 0)
    if not both:
        return None
    near = f" and {data.nearly_trained:,} nearly" if data.nearly_trained else ""
    text = (
        f"{data.also_trained:,} of {data.valid_rows:,} validation rows are training rows too{near}: "
        "the validation loss is too low"
    )
    return Caution(code="duplicates", text=text)
