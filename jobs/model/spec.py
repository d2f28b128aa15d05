"""JobSpec: the content of a job file, MLX-LM's LoRA YAML key for key, plus `lq:`.

The defaults are those of MLX-LM 0.32 (mlx_lm/lora.py, CONFIG_DEFAULTS), with these exceptions: validation and test use
the whole set (MLX-LM draws 25 and 500 random batches), `train` is true, and `adapter_path` is empty, because every job
has its own folder. configs/load.py reads the files.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from jobs.model import time_windows
from jobs.model.base import FrozenModel
from jobs.model.objective import Objective, Supervised

NotifyEvent = Literal[
    "submitted", "started", "recovered", "spike_handled", "needs_you", "deadline", "failed", "finished"
]
"""The events of a job that lq sends messages about."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|min|m|h)?\s*", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_ERRORS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*se\s*", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)


def parse_duration(value: object) -> object:
    """Convert `10min`, `90s`, `1h` to seconds; the type check handles other values."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _SECONDS[(match[2] or "s").lower()]
    if isinstance(value, str):
        raise ValueError("a duration like 90s, 10min or 1h")
    return value


def parse_size(value: object) -> object:
    """Convert `512MB` or `2G` to bytes (1 KB = 1024, as in MLX-LM); the type check handles other values."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))
    if isinstance(value, str):
        raise ValueError("a size like 512MB or 2GB")
    return value


def parse_limit(value: object) -> object:
    """Convert `12GB` to bytes and keep `85%`, which the machine resolves."""
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        if not 1 <= float(match[1]) <= 100:
            raise ValueError("a share from 1% to 100%, or a size like 12GB")
        return f"{float(match[1]):g}%"
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError("a share like 85% or a size like 12GB") from error


def parse_share(value: object) -> object:
    """Check a share from 0% to 100%."""
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)) and float(match[1]) <= 100:
        return f"{float(match[1]):g}%"
    raise ValueError("a share from 0% to 100%")


def parse_delta(value: object) -> object:
    """Check a number of nats, or `1se`: a number of standard errors of the paired difference."""
    if isinstance(value, str) and (match := _ERRORS.fullmatch(value)):
        return f"{float(match[1]):g}se"
    if isinstance(value, str):
        raise ValueError("a number of nats like 0.001, or of standard errors like 1se")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _slug_name(value: str) -> str:
    if not value.strip() or len(value) > 80 or any(not char.isprintable() for char in value):
        raise ValueError("a name of 1 to 80 printable characters")
    return value.strip()


def check_window(value: object) -> object:
    """Check `23:00-07:00`."""
    time_windows.parse_window(value if isinstance(value, str) else "")
    return value


def _deadline(value: object) -> object:
    time_windows.parse_due(value if isinstance(value, str) else "")
    return value


def _predecessor(value: int | str) -> int | str:
    if isinstance(value, bool) or (isinstance(value, int) and not 1 <= value < 2**63) or value == "":
        raise ValueError("the id of a job, from 1, or its name")
    return value


Name = Annotated[str, AfterValidator(_slug_name)]
Predecessor = Annotated[int | str, AfterValidator(_predecessor)]
_DurationText = Annotated[str, Field(pattern=rf"^{_DURATION.pattern}$")]
_SizeText = Annotated[str, Field(pattern=r"^\s*\d+(\.\d+)?\s*[kKmMgGtT]?i?[bB]?\s*$")]
_Positive = Annotated[float, Field(gt=0)]
_Natural = Annotated[int, Field(ge=0)]
Seconds = Annotated[_Positive, BeforeValidator(parse_duration, json_schema_input_type=_Positive | _DurationText)]
Delta = Annotated[float | str, BeforeValidator(parse_delta)]
Limit = Annotated[int | str, BeforeValidator(parse_limit)]
Bytes = Annotated[_Natural, BeforeValidator(parse_size, json_schema_input_type=_Natural | _SizeText)]


class LoraParameters(FrozenModel):
    """`lora_parameters` of MLX-LM."""

    rank: int = Field(8, gt=0, description="inner dimension of the adapter")
    scale: float = Field(20.0, description="multiplies the adapter's output; PEFT's alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter, 0..1")
    keys: tuple[str, ...] | None = Field(None, description="linear modules to adapt; default: all of them")


class LrSchedule(FrozenModel):
    """`lr_schedule` of MLX-LM; it replaces `learning_rate`."""

    name: str = Field(description="a schedule of mlx.optimizers.schedulers, such as cosine_decay")
    arguments: tuple[float, ...] = Field(
        min_length=1, description="arguments of the schedule; the first is the initial rate; steps: updates, or 100%"
    )
    warmup: int = Field(0, ge=0, description="updates of linear warm-up before the schedule, or a share such as 10%")
    warmup_init: float = Field(0.0, description="learning rate at the start of the warm-up")

    @property
    def length_argument(self) -> int | None:
        """The index of the argument that is the length in updates; None if the schedule has no end."""
        index = {"cosine_decay": 1, "linear_schedule": 2}.get(self.name)
        return index if index is not None and index < len(self.arguments) else None

    @property
    def length(self) -> int | None:
        """Updates after which the rate stays as it is; None if the schedule has no end."""
        index = self.length_argument
        return None if index is None else self.warmup + int(self.arguments[index])

    @property
    def last_rate(self) -> float:
        """The rate after the end of a schedule that has one."""
        return self.arguments[1] if self.name == "linear_schedule" else (*self.arguments, 0.0)[2]


class Retry(FrozenModel):
    """`lq.retry`: restarts after a crash."""

    max_restarts: int = Field(
        5, ge=0, description="maximum number of consecutive crashes with a restart; new progress resets the count"
    )
    crash_loop: int = Field(
        3, ge=1, description="maximum number of restarts without new progress; the next crash ends the job"
    )


class MemorySettings(FrozenModel):
    """`lq.memory`: the memory limit of a run, and how lq enforces it."""

    limit: Limit = Field("85%", description="memory limit: a share of what the device recommends, or a size")
    allow_truncation: bool = Field(False, description="truncate long rows if no other change makes a run fit")
    probe: bool = Field(True, description="run the longest batch once before the first update of every attempt")


class StallLimits(FrozenModel):
    """`lq.stall`: how long a phase can go without progress, while the machine is awake."""

    load: Seconds = Field(1800.0, description="limit for loading the model and the data")
    first_iteration: Seconds = Field(1200.0, description="limit before the first three reports")
    least: Seconds = Field(
        90.0, description="minimum limit while training; the limit is 6 times the slowest of 20 reports"
    )
    most: Seconds = Field(900.0, description="maximum limit while training")
    validation: Seconds = Field(3600.0, description="maximum limit for a validation")
    save: Seconds = Field(300.0, description="limit for writing a checkpoint")


class Spike(FrozenModel):
    """`lq.spike`: the loss guard, which rolls the run back if the loss explodes."""

    enabled: bool = Field(True, description="false: report loss anomalies, take no action")
    max_rollbacks: int = Field(3, ge=0, description="most rollbacks; the next alarm ends the job as diverged")


class EarlyStop(FrozenModel):
    """`lq.early_stop`: end the run when the validation loss stops improving."""

    patience: int = Field(10, ge=1, description="consecutive validations without an improvement")
    min_delta: Delta = Field(0.001, description="minimum improvement: nats, or standard errors such as 1se")

    @property
    def nats(self) -> float:
        """The minimum improvement in nats per token; 0 if it is given in standard errors."""
        return 0.0 if isinstance(self.min_delta, str) else self.min_delta

    @property
    def standard_errors(self) -> float:
        """The minimum improvement in standard errors of the paired difference; 0 if it is given in nats."""
        return float(self.min_delta.removesuffix("se")) if isinstance(self.min_delta, str) else 0.0


class Checkpointing(FrozenModel):
    """`lq.checkpoint`: checkpoints in addition to those of `save_every`."""

    every: Seconds = Field(600.0, description="maximum time between two checkpoints, such as 10min")


class Keep(FrozenModel):
    """`lq.keep`: the checkpoints that lq keeps during a run."""

    last: int = Field(2, ge=1, description="number of newest checkpoints")
    best: int = Field(1, ge=1, description="number of best checkpoints by validation loss")
    milestones: Annotated[str, BeforeValidator(parse_share)] = Field(
        "10%", description="keep an adapter without optimizer state at every such share of the run; 0%: none"
    )

    @property
    def milestone_share(self) -> float:
        """The share as a number, 0..1."""
        return float(self.milestones.rstrip("%")) / 100


class Power(FrozenModel):
    """`lq.power`: train only with enough power and while cool. Values that the machine does not report are ignored."""

    require_ac: bool = Field(False, description="train only on external power")
    min_battery: int | None = Field(
        None, ge=1, le=100, description="on battery, train only at this charge or above, in percent"
    )
    thermal: Literal["fair", "serious", "critical"] | None = Field(
        None, description="stop at this thermal state: fair, serious or critical; default: never"
    )


class Notify(FrozenModel):
    """`lq.notify`: which services receive messages about this job, and when."""

    on: tuple[NotifyEvent, ...] | None = Field(None, description="events to send; default: those of the service")
    tags: tuple[str, ...] | None = Field(None, description="only services with one of these tags; default: all")
    each: bool = Field(False, description="send a message for each job of a group, not only for the last")


class LqSpec(FrozenModel):
    """The keys of lq, under `lq` in the job file."""

    format: Literal[1] = Field(1, description="version of the file format")
    name: Name | None = Field(None, description="name of the job; default: that of the file")
    group: Name | None = Field(
        None, description="group for listing, cancelling and comparing jobs together; a sweep is a group"
    )
    priority: int = Field(0, description="jobs with a higher priority run first")
    after: tuple[Predecessor, ...] = Field((), description="ids or names of jobs that must succeed first")
    after_any: tuple[Predecessor, ...] = Field((), description="ids or names of jobs that must end first, in any way")
    strict: bool = Field(False, description="while this job cannot start, no later job starts")
    window: Annotated[str, BeforeValidator(check_window)] | None = Field(
        None, description="time window for training, such as 22:00-07:30; outside of it the job waits"
    )
    deadline: Annotated[str, BeforeValidator(_deadline)] | None = Field(
        None, description="time by which the job should end, such as 07:30 or 2026-12-24 18:00"
    )
    power: Power = Power()
    idle: Seconds | None = Field(None, description="train only if the machine has been idle this long, such as 10min")
    objective: Objective = Field(
        Supervised(), description="what the run minimizes: sft, dpo, orpo, simpo, cpo or kto, or a mapping"
    )
    batching: Literal["bucketed", "shuffled"] = Field(
        "bucketed", description="bucketed: batches of rows of similar length; shuffled: the order of MLX-LM"
    )
    loss_weighting: Literal["token", "batch"] | None = Field(
        None,
        description="token: all tokens of an update have the same weight; batch: MLX-LM's mean of each batch; default: "
        "token if bucketed, batch if shuffled",
    )
    epochs: float | None = Field(None, gt=0, description="passes over the training rows, instead of iters")
    retry: Retry = Retry()
    grad_clip: float | None = Field(
        None, gt=0, description="maximum global norm of the gradients of an update; default: no limit"
    )
    spike: Spike = Spike()
    early_stop: EarlyStop | None = Field(
        None, description="end the run when the validation loss stops improving; default: off"
    )
    segment: int | None = Field(None, gt=0, description="restart the trainer every N iterations; default: never")
    memory: MemorySettings = MemorySettings()
    stall: StallLimits = StallLimits()
    checkpoint: Checkpointing = Checkpointing()
    keep: Keep = Keep()
    notify: Notify = Notify()
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None,
        max_length=20,
        description="prompts answered before and after training, for the report; default: three validation rows",
    )

    @property
    def weighs_tokens(self) -> bool:
        """Whether every token of an update has the same weight in the loss. Preferences weigh rows."""
        if not isinstance(self.objective, Supervised):
            return False
        return self.loss_weighting == "token" or (self.loss_weighting is None and self.batching == "bucketed")

    @property
    def waits_for_something(self) -> bool:
        """Whether anything but the jobs ahead of it can delay the start of the job."""
        power = self.power
        asked = (self.after, self.after_any, self.window, self.idle, power.require_ac, power.min_battery, power.thermal)
        return any(asked)


class JobSpec(FrozenModel):
    """A job file: every key of MLX-LM's LoRA YAML, and `lq`."""

    model: str = Field("Qwen/Qwen3-0.6b", min_length=1, description="folder of the model, or its name on the hub")
    train: Literal[True] = Field(True, description="must be true: lq only queues training")
    fine_tune_type: Annotated[Literal["lora", "dora", "full"], BeforeValidator(_lower)] = Field(
        "lora", description="kind of fine-tuning"
    )
    optimizer: Annotated[Literal["adam", "adamw", "muon", "sgd", "adafactor"], BeforeValidator(_lower)] = Field(
        "adam", description="optimizer of MLX"
    )
    optimizer_config: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="arguments of the optimizers, by name"
    )
    data: str = Field(
        "mlx-community/WikiSQL",
        min_length=1,
        description="folder with train.jsonl, valid.jsonl and test.jsonl, or a hub data set",
    )
    hf_dataset: dict[str, Any] | tuple[dict[str, Any], ...] | None = Field(
        None, description="data sets of the hub, as in MLX-LM"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of weights, dropout and data order")
    num_layers: int = Field(16, ge=-1, description="number of layers to train, counted from the last; -1: all")
    batch_size: int = Field(4, gt=0, description="rows per iteration")
    iters: int = Field(1000, gt=0, description="number of iterations (micro-batches)")
    val_batches: int = Field(-1, ge=-1, description="validation batches; -1: the whole set, 0: none")
    learning_rate: float = Field(1e-5, gt=0, description="learning rate without lr_schedule")
    steps_per_report: int = Field(10, gt=0, description="iterations per report")
    steps_per_eval: int = Field(200, gt=0, description="iterations between validations")
    resume_adapter_file: str | None = Field(None, description="adapter weights to start from")
    adapter_path: str | None = Field(None, description="folder for another copy of the finished adapter")
    save_every: int = Field(100, gt=0, description="iterations between checkpoints")
    test: bool = Field(False, description="measure test.jsonl at the end")
    test_batches: int = Field(-1, ge=-1, description="test batches; -1: the whole set")
    max_seq_length: int = Field(2048, gt=1, description="maximum tokens of a row; longer rows are truncated")
    config: str | None = Field(None, description="MLX-LM's -c option; ignored")
    grad_checkpoint: bool = Field(False, description="recompute activations to save memory")
    grad_accumulation_steps: int = Field(1, gt=0, description="iterations per update")
    clear_cache_threshold: Bytes = Field(0, description="size of the allocator's cache at which it is freed")
    lr_schedule: LrSchedule | None = Field(None, description="learning-rate schedule, advanced once per update")
    lora_parameters: LoraParameters = LoraParameters()
    mask_prompt: bool = Field(False, description="train on the answer only")
    report_to: str | None = Field(None, description="wandb, swanlab or both, as in MLX-LM")
    project_name: str | None = Field(None, description="project for report_to")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    prompt_feature: str = Field("prompt", min_length=1, description="key of the prompt in completion rows")
    completion_feature: str = Field("completion", min_length=1, description="key of the answer in completion rows")
    chat_feature: str = Field("messages", min_length=1, description="key of the messages in chat rows")
    text_feature: str = Field("text", min_length=1, description="key of the text in text rows")
    lq: LqSpec = LqSpec()

    @property
    def warmup_iterations(self) -> int:
        """Iterations of the warm-up of the learning-rate schedule."""
        return self.lr_schedule.warmup * self.grad_accumulation_steps if self.lr_schedule is not None else 0

    @property
    def name(self) -> str:
        """The name of the job; configs.load sets it to the name of the file by default."""
        return self.lq.name or "job"
