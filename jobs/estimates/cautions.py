"""Warnings about a run that would not fail: unusual settings, data that tells little, a deadline. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jobs.model.spec import JobSpec, LrSchedule

MOST_EPOCHS = 20
FEW_VALIDATION_ROWS = 50
"""With fewer rows the verdict of the report is INCONCLUSIVE (docs/reference/report.md)."""

MUCH_TRUNCATED = 0.01

LORA_RATES, FULL_RATES = (1e-6, 1e-3), (1e-7, 1e-4)
"""Peak learning rates of published runs with Adam, widened on both sides. LoRA (Hu et al. 2021, appendix D): 6e-5 to
5e-4; QLoRA (Dettmers et al. 2023): 1e-4 and 2e-4; MLX-LM's default: 1e-5. Full fine-tuning uses about a tenth."""

_WITH_ADAM = ("adam", "adamw")


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


def of_settings(spec: JobSpec) -> Iterator[Caution]:
    """Yield the warnings about the settings alone."""
    full = spec.fine_tune_type == "full"
    low, high = FULL_RATES if full else LORA_RATES
    rate = _peak_rate(spec.lr_schedule) if spec.lr_schedule is not None else spec.learning_rate
    if spec.optimizer in _WITH_ADAM and not low <= rate <= high:
        where = f"above {high:g}" if rate > high else f"below {low:g}"
        source = (
            "about a tenth of LoRA's" if full else "the papers on LoRA and QLoRA: 6e-5 to 5e-4, MLX-LM's default: 1e-5"
        )
        kind = "full fine-tuning" if full else spec.fine_tune_type
        text = (
            f"the learning rate reaches {rate:.3g}, {where}: usual for {kind} with Adam are {low:g} to {high:g} "
            f"({source}); an update averages {spec.batch_size * spec.grad_accumulation_steps} rows"
        )
        yield Caution(code="learning_rate", text=text)
    if spec.lr_schedule is not None and (text := _schedule(spec, spec.lr_schedule)):
        yield Caution(code="schedule", text=text)


def of_data(spec: JobSpec, data: DataSummary) -> Iterator[Caution]:
    """Yield the warnings about the data under these settings."""
    epochs = data.epochs(spec)
    if epochs > MOST_EPOCHS:
        iters = MOST_EPOCHS * data.batches_per_epoch
        text = f"{epochs:.0f} times through the training set; {MOST_EPOCHS} times are {iters:,} iterations"
        yield Caution(code="epochs", text=text)
    if data.unsupervised:
        text = f"{data.unsupervised:,} of {data.rows:,} training rows have no token to learn and are left out"
        yield Caution(code="unsupervised", text=text)
    if data.rows and (share := data.truncated / data.rows) > MUCH_TRUNCATED:
        rows = f"{data.truncated:,} training rows ({share:.0%})"
        yield Caution(code="truncated", text=f"{rows} are longer than {spec.max_seq_length:,} tokens and are cut")
    validated = data.valid_rows if spec.val_batches < 0 else min(data.valid_rows, spec.val_batches * spec.batch_size)
    if not validated:
        why = "no validation set" if not data.valid_rows else "val_batches is 0"
        text = f"{why}: there is no best adapter, and overfitting goes unnoticed"
        yield Caution(code="no_validation", text=text)
    elif validated < FEW_VALIDATION_ROWS:
        text = f"{validated} validation rows are few: under {FEW_VALIDATION_ROWS} the report can say little"
        if validated < data.valid_rows:
            text += f"; val_batches {spec.val_batches} leaves out the other {data.valid_rows - validated:,}: raise it"
        yield Caution(code="few_validation_rows", text=text)
    if data.also_trained or data.nearly_trained:
        near = f" and {data.nearly_trained:,} nearly" if data.nearly_trained else ""
        rows = f"{data.also_trained:,} of {data.valid_rows:,} validation rows are training rows too{near}"
        yield Caution(code="duplicates", text=f"{rows}: the validation loss is too low")


def of_time(ends_at: float, due_at: float | None, *, ends: str, due: str) -> list[Caution]:
    """Return the warning about a deadline that will be missed; `ends` and `due` are the times in words."""
    if due_at is None or ends_at <= due_at:
        return []
    return [Caution(code="deadline", text=f"deadline {due} will be missed: done {ends}")]


def _peak_rate(schedule: LrSchedule) -> float:
    """Return the highest rate of a schedule: its first argument; a linear one may also climb to its second."""
    return max(schedule.arguments[:2] if schedule.name == "linear_schedule" else schedule.arguments[:1])


def _schedule(spec: JobSpec, schedule: LrSchedule) -> str:
    """A schedule counts updates; with gradient accumulation there are fewer of them than iterations."""
    updates = spec.iters // spec.grad_accumulation_steps
    run = f"the run makes {updates:,} updates ({spec.iters:,} iterations / {spec.grad_accumulation_steps})"
    if schedule.warmup >= updates:
        return f"the warm-up lasts {schedule.warmup:,} updates, but {run}"
    if (schedule.length or 0) > 2 * updates:
        return f"the schedule ends after {schedule.length:,} updates, but {run}: the rate hardly falls"
    return ""
