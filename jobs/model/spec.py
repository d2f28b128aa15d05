"""JobSpec: what the user asked for. MLX-LM's LoRA YAML key for key, plus `lq:`.

Defaults are MLX-LM 0.32's (mlx_lm/lora.py, CONFIG_DEFAULTS) with two exceptions: validation and test run over
the whole set unless the file limits them (MLX-LM draws 25 and 500 random batches). Beside these, `train` is true,
because lq queues nothing else, and `adapter_path` absent, because every job has a folder of its own.
Reading files, naming lines and suggesting keys is configs/load.py's work.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from jobs.model import time_windows

NotifyEvent = Literal[
    "submitted", "started", "recovered", "spike_handled", "needs_you", "deadline", "failed", "finished"
]
"""What a job can notify about."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|min|m|h)?\s*", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_ERRORS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*se\s*", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)


def parse_duration(value: object) -> object:
    """Turn `10min`, `90s`, `1h` into seconds; leave everything else to the type check."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        return float(found[1]) * _SECONDS[(found[2] or "s").lower()]
    if isinstance(value, str):
        raise ValueError("a duration like 90s, 10min or 1h")
    return value


def parse_size(value: object) -> object:
    """Turn `512MB` or `2G` into bytes (1 KB = 1024, as MLX-LM counts); leave everything else to the type check."""
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))
    if isinstance(value, str):
        raise ValueError("a size like 512MB or 2GB")
    return value


def parse_limit(value: object) -> object:
    """Keep `85%` as it is and turn `12GB` into bytes; what a percentage is of is known on the machine only."""
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value)):
        if not 1 <= float(found[1]) <= 100:
            raise ValueError("a share from 1% to 100%, or a size like 12GB")
        return f"{float(found[1]):g}%"
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError("a share like 85% or a size like 12GB") from error


def parse_share(value: object) -> object:
    """Take `10%`, from 0% to 100%."""
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value)) and float(found[1]) <= 100:
        return f"{float(found[1]):g}%"
    raise ValueError("a share from 0% to 100%")


def parse_delta(value: object) -> object:
    """Take a number of nats, or `1se`: so many standard errors of the paired difference."""
    if isinstance(value, str) and (found := _ERRORS.fullmatch(value)):
        return f"{float(found[1]):g}se"
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
        raise ValueError("a job's id, from 1, or its name")
    return value


Predecessor = Annotated[int | str, AfterValidator(_predecessor)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Delta = Annotated[float | str, BeforeValidator(parse_delta)]
Limit = Annotated[int | str, BeforeValidator(parse_limit)]
Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]


class FrozenModel(BaseModel):
    """A frozen value that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class LoraParameters(FrozenModel):
    """`lora_parameters` of MLX-LM."""

    rank: int = Field(8, gt=0, description="inner dimension of the adapter")
    scale: float = Field(20.0, description="multiplies the adapter's output; PEFT's alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter, 0..1")
    keys: tuple[str, ...] | None = Field(None, description="the layers' linear modules to adapt; all when absent")


class LrSchedule(FrozenModel):
    """`lr_schedule` of MLX-LM; it takes the place of `learning_rate`."""

    name: str = Field(description="a schedule of mlx.optimizers.schedulers, such as cosine_decay")
    arguments: tuple[float, ...] = Field(
        min_length=1, description="its arguments; the first is the rate it starts from"
    )
    warmup: int = Field(0, ge=0, description="updates of linear warm-up before it")
    warmup_init: float = Field(0.0, description="learning rate at the start of the warm-up")


class Retry(FrozenModel):
    """`lq.retry`: what happens after a death."""

    max_restarts: int = Field(
        5, ge=0, description="deaths in a row that are answered by a restart; new progress starts the count anew"
    )
    crash_loop: int = Field(
        3, ge=1, description="restarts of any kind without new progress; one more death ends the job as crash_loop"
    )


class MemorySettings(FrozenModel):
    """`lq.memory`: what a run may take, and what lq may change when it takes more."""

    limit: Limit = Field("85%", description="of what the device recommends, in percent or bytes")
    allow_truncation: bool = Field(False, description="cut long rows when nothing else makes a run fit")
    probe: bool = Field(True, description="try the longest batch before the first update of every attempt")


class StallLimits(FrozenModel):
    """`lq.stall`: how long a phase may go without progress, counted while the machine is awake."""

    load: Seconds = Field(1800.0, description="loading the model and the data")
    first_iteration: Seconds = Field(1200.0, description="until the first reports are in")
    least: Seconds = Field(90.0, description="training: six times the slowest of the last 20 reports, at least this")
    most: Seconds = Field(900.0, description="training: and at most this")
    validation: Seconds = Field(3600.0, description="a validation, at most")
    save: Seconds = Field(300.0, description="writing a checkpoint")


class Spike(FrozenModel):
    """`lq.spike`: the loss guard, which goes back where the loss explodes."""

    enabled: bool = Field(True, description="off: what it sees is told, and nothing is done")
    max_rollbacks: int = Field(3, ge=0, description="times it goes back before the job ends as diverged")


class EarlyStop(FrozenModel):
    """`lq.early_stop`: end the run when validation has stopped getting better."""

    patience: int = Field(10, ge=1, description="validations in a row without a better one")
    min_delta: Delta = Field(0.001, description="what counts as better: nats, or standard errors such as 1se")

    @property
    def nats(self) -> float:
        """The least gain in nats per token; 0 where it is given in standard errors."""
        return 0.0 if isinstance(self.min_delta, str) else self.min_delta

    @property
    def standard_errors(self) -> float:
        """The least gain in standard errors of the paired difference; 0 where it is given in nats."""
        return float(self.min_delta.removesuffix("se")) if isinstance(self.min_delta, str) else 0.0


class Checkpointing(FrozenModel):
    """`lq.checkpoint`: how often, beside `save_every`."""

    every: Seconds = Field(600.0, description="at most this long between two checkpoints, such as 10min")


class Keep(FrozenModel):
    """`lq.keep`: which checkpoints stay while the run goes on."""

    last: int = Field(2, ge=1, description="the newest so many")
    best: int = Field(1, ge=1, description="the best so many by validation")
    milestones: Annotated[str, BeforeValidator(parse_share)] = Field(
        "10%", description="one adapter without its optimizer at every such share of the run; 0% for none"
    )

    @property
    def milestone_share(self) -> float:
        """The share as a number, 0..1."""
        return float(self.milestones.rstrip("%")) / 100


class Power(FrozenModel):
    """`lq.power`: train only while the machine is fed and cool enough. What it does not tell never stops a job."""

    require_ac: bool = Field(False, description="train only on mains power")
    min_battery: int | None = Field(
        None, ge=1, le=100, description="on battery, train only at this charge or above, in percent"
    )
    thermal: Literal["fair", "serious", "critical"] | None = Field(
        None, description="stop while the machine is this hot: fair, serious or critical; never for heat when absent"
    )


class Notify(FrozenModel):
    """`lq.notify`: which of the machine's services hear about this job, and when."""

    on: tuple[NotifyEvent, ...] | None = Field(None, description="events to tell; what the service says when absent")
    tags: tuple[str, ...] | None = Field(None, description="only services with one of these tags; all when absent")
    each: bool = Field(False, description="tell when each job of a group has finished, not only when the last has")


class LqSpec(FrozenModel):
    """What lq adds to MLX-LM's file, under the key `lq`."""

    format: Literal[1] = Field(1, description="version of this file's format")
    name: Annotated[str, AfterValidator(_slug_name)] | None = Field(
        None, description="the job's name; the file's when absent"
    )
    group: Annotated[str, AfterValidator(_slug_name)] | None = Field(
        None, description="jobs of one group are listed, cancelled and compared together; a sweep is one by itself"
    )
    priority: int = Field(0, description="higher runs first")
    after: tuple[Predecessor, ...] = Field((), description="ids or names of jobs that must have succeeded before")
    after_any: tuple[Predecessor, ...] = Field(
        (), description="ids or names of jobs that must have ended before, however"
    )
    strict: bool = Field(False, description="while this job may not start, none behind it starts")
    window: Annotated[str, BeforeValidator(check_window)] | None = Field(
        None, description="hours in which it trains, such as 22:00-07:30; outside it writes a checkpoint and waits"
    )
    deadline: Annotated[str, BeforeValidator(_deadline)] | None = Field(
        None, description="when it should be done, such as 07:30 or 2026-12-24 18:00; you are told when it will not be"
    )
    power: Power = Power()
    idle: Seconds | None = Field(
        None, description="train only while nobody has used the machine for so long, such as 10min"
    )
    batching: Literal["bucketed", "shuffled"] = Field(
        "bucketed",
        description="bucketed: rows of like length together, every epoch anew; shuffled: MLX-LM's effective order",
    )
    retry: Retry = Retry()
    grad_clip: float | None = Field(None, gt=0, description="largest global norm of an update's gradients")
    spike: Spike = Spike()
    early_stop: EarlyStop | None = Field(None, description="end the run when validation has stopped getting better")
    segment: int | None = Field(None, gt=0, description="end and resume the trainer every so many iterations")
    memory: MemorySettings = MemorySettings()
    stall: StallLimits = StallLimits()
    checkpoint: Checkpointing = Checkpointing()
    keep: Keep = Keep()
    notify: Notify = Notify()
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), max_length=20, description="questions answered before and after training, for the report"
    )

    @property
    def waits_for_something(self) -> bool:
        """Whether anything but its turn may keep the job from starting."""
        power = self.power
        asked = (self.after, self.after_any, self.window, self.idle, power.require_ac, power.min_battery, power.thermal)
        return any(asked)


class JobSpec(FrozenModel):
    """One fine-tuning run: every key of MLX-LM's LoRA YAML, and `lq`."""

    model: str = Field(
        "Qwen/Qwen3-0.6b",
        min_length=1,
        description="folder of the model, or its name on the Hugging Face hub",
    )
    train: Literal[True] = Field(True, description="lq queues training runs; leave it true")
    fine_tune_type: Annotated[Literal["lora", "dora", "full"], BeforeValidator(_lower)] = Field(
        "lora", description="what is trained"
    )
    optimizer: Annotated[Literal["adam", "adamw", "muon", "sgd", "adafactor"], BeforeValidator(_lower)] = Field(
        "adam", description="MLX's optimizer"
    )
    optimizer_config: dict[str, dict[str, Any]] = Field(default_factory=dict, description="arguments by optimizer name")
    data: str = Field(
        "mlx-community/WikiSQL",
        min_length=1,
        description="folder with train, valid and test .jsonl, or a hub data set",
    )
    hf_dataset: dict[str, Any] | tuple[dict[str, Any], ...] | None = Field(
        None, description="MLX-LM's hub data set mapping"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, dropout and data order")
    num_layers: int = Field(16, ge=-1, description="layers to train, from the last; -1 for all")
    batch_size: int = Field(4, gt=0, description="rows per iteration")
    iters: int = Field(1000, gt=0, description="iterations (micro-batches)")
    val_batches: int = Field(-1, ge=-1, description="validation batches; -1 for the whole set, 0 for none")
    learning_rate: float = Field(1e-5, gt=0, description="used where no lr_schedule is given")
    steps_per_report: int = Field(10, gt=0, description="iterations per report")
    steps_per_eval: int = Field(200, gt=0, description="iterations between validations")
    resume_adapter_file: str | None = Field(None, description="start from these adapter weights")
    adapter_path: str | None = Field(None, description="publish the finished adapter here too")
    save_every: int = Field(100, gt=0, description="iterations between checkpoints")
    test: bool = Field(False, description="measure test.jsonl at the end")
    test_batches: int = Field(-1, ge=-1, description="test batches; -1 for the whole set")
    max_seq_length: int = Field(2048, gt=1, description="tokens; longer rows are cut")
    config: str | None = Field(None, description="MLX-LM's own -c; ignored")
    grad_checkpoint: bool = Field(False, description="recompute activations to save memory")
    grad_accumulation_steps: int = Field(1, gt=0, description="iterations per update")
    clear_cache_threshold: Bytes = Field(0, description="free the allocator's cache when it exceeds this")
    lr_schedule: LrSchedule | None = Field(None, description="learning-rate schedule, advanced once per update")
    lora_parameters: LoraParameters = LoraParameters()
    mask_prompt: bool = Field(False, description="learn from the answer only")
    report_to: str | None = Field(None, description="wandb, swanlab or both, as in MLX-LM")
    project_name: str | None = Field(None, description="project for report_to")
    trust_remote_code: bool = Field(
        False, description="run code that comes with the model; off unless the file says so"
    )
    prompt_feature: str = Field("prompt", min_length=1, description="key of the prompt in completion rows")
    completion_feature: str = Field("completion", min_length=1, description="key of the answer in completion rows")
    chat_feature: str = Field("messages", min_length=1, description="key of the messages in chat rows")
    text_feature: str = Field("text", min_length=1, description="key of the text in text rows")
    lq: LqSpec = LqSpec()

    @property
    def name(self) -> str:
        """The job's name; configs.load fills it in from the file's name."""
        return self.lq.name or "job"
