"""The values of a report: what was measured of one job, and what rules found. `asdict` makes report.json.

Times are unix seconds, losses nats per token. None means that the value is not known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jobs.model.events import MeasuredRewards
from jobs.model.job import Incident
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.verdict import Difference, Verdict

SCHEMA = 1
"""Version of report.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingStatus:
    """A status that is decided but not stored yet."""

    status: Status
    reason: str | None = None  # a Reason code
    detail: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobFacts:
    """The job and its status."""

    id: int
    name: str
    status: Status
    reason: str | None  # a Reason code
    detail: str | None  # in one line
    job_dir: str  # absolute
    home: str | None  # $LQ_HOME to name in commands; None for the default home


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Times and durations of the job."""

    submitted_at: float
    started_at: float | None
    ended_at: float | None  # None if the job has not ended
    reported_at: float  # unix seconds
    wall_seconds: float | None  # first start to end, or to the report
    trained_seconds: float | None  # all attempts together, loading included


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The requested settings, as stored at submit."""

    model: str
    data: str  # folder or name of the data set
    fine_tune_type: str  # lora, dora or full
    rank: int | None  # None for a full fine-tune; as scale and dropout
    scale: float | None  # scale of LoRA; None for a full fine-tune
    dropout: float | None  # dropout of LoRA; None for a full fine-tune
    num_layers: int  # -1 for all
    optimizer: str  # its name in MLX-LM
    learning_rate: float  # the first one of a schedule
    lr_schedule: str | None  # name of the schedule; None if the learning rate is constant
    batch_size: int  # rows per iteration
    grad_accumulation_steps: int  # iterations per update
    effective_batch: int  # rows per update
    max_seq_length: int  # tokens
    grad_checkpoint: bool
    mask_prompt: bool  # train on completions only
    objective: str  # what the run minimizes, such as `dpo (beta 0.1, loss sigmoid)`; sft without preferences
    seed: int  # random seed
    batching: str  # how rows are grouped into batches: bucketed or shuffled
    save_every: int  # iterations
    steps_per_eval: int  # iterations
    steps_per_report: int  # iterations
    resume_adapter_file: str | None  # adapter from which training started; None for a new adapter
    adapter_path: str | None  # target folder of the finished adapter
    trust_remote_code: bool  # code of the model may run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Iterations, tokens, speed and memory of the run."""

    iterations_done: int  # iterations trained
    iterations_asked: int  # iterations in the job file
    rows_seen: int | None  # number of rows trained
    epochs: float | None  # rows seen / rows of train.jsonl
    tokens: int | None  # trained tokens
    it_s: float | None  # median over the reports
    tok_s: float | None  # median over the reports
    peak_bytes: int | None  # highest peak of any report


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossAt:
    """The train loss of one report."""

    iteration: int
    loss: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainLoss:
    """The train loss of the run."""

    first: LossAt | None
    last: LossAt | None
    lowest: LossAt | None  # of the finite ones
    reports: int  # number of reports
    not_finite: int  # reports whose loss is NaN or infinite
    not_applied: int | None  # iterations whose update was not applied; None if not counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement of the validation or the test set."""

    iteration: int
    loss: float
    standard_error: float | None  # by row
    low: float | None  # of its 95 % interval; None if neither rows nor an error are known
    high: float | None  # upper end of the 95 % interval; None if low is None
    perplexity: float | None  # exp(loss); None for a preference objective
    examples: int  # rows
    seconds: float
    rewards: MeasuredRewards | None = None  # of a preference objective, whose losses are nats per row


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationFacts:
    """The first, the best and the last validation."""

    base: Measurement | None  # iteration 0: before training
    best: Measurement | None  # lowest finite loss, the earlier one of equals
    final: Measurement | None  # the last one
    count: int  # number of measurements


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTest:
    """The validation loss of a checkpoint, measured again after a resume. Equality proves an exact resume."""

    iteration: int | None = None
    measured: float | None = None  # loss after the resume, in nats per token
    recorded: float | None = None  # loss in the checkpoint, in nats per token
    equal: bool | None = None  # equal to the last bit


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttemptFacts:
    """One attempt, and the cost of its restart."""

    number: int  # number, from 1
    started_at: float
    ended_at: float | None
    seconds: float  # until its end, or until the report
    first_iteration: int | None  # completed iterations at the start
    last_iteration: int | None  # completed iterations at the end, or as last reported
    resumed_from: str | None  # name of the checkpoint; None for a fresh start
    quality: str | None  # a Quality code
    outcome: str | None  # an Outcome code; None if it has not ended
    reason: str | None  # reason code; None until it has ended
    detail: str | None
    exit_code: int | None
    signal: int | None
    idle_seconds: float | None  # from the end of the attempt before it; None for the first
    came_to: int | None  # last iteration of the attempts before it; None for the first
    repeated_iterations: int | None  # trained twice because of this restart
    given_up_iterations: int  # iterations beyond the rollback point that this attempt started from
    catch_up_seconds: float | None  # from its start until it reached `came_to` again
    self_test: SelfTest | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """A checkpoint that the trainer reported."""

    iteration: int
    path: str  # relative to the job's folder
    size_bytes: int
    on_disk: bool  # it still exists
    val_loss: float | None  # measured at the same iteration
    recommended: bool  # the best by validation, which is what was published


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A measurement of `lq test`, kept in report/evaluations.json."""

    time: float
    weights: str  # which weights, in words
    iteration: int | None  # of the weights; None if unknown
    data: str | None  # path of the test file; None if the data set is on the hub
    sha256: str | None  # hash of the test file
    loss: float
    low: float | None  # lower end of its 95 % interval; null if unknown
    high: float | None  # upper end
    rows: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """A published file of weights."""

    name: str
    iteration: int | None
    size_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """The adapter folder, which MLX-LM can load."""

    path: str  # absolute
    best: AdapterFile | None  # adapters.safetensors, the best by validation
    final: AdapterFile | None  # final_adapters.safetensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFile:
    """A data file at the time of submit."""

    name: str
    rows: int | None
    size_bytes: int | None
    sha256: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrajectoryRow:
    """The run at one iteration."""

    iteration: int
    train_loss: float | None  # of the last report at or before it
    val_loss: float | None  # measured at it
    accuracy: float | None  # of a preference objective: share of validation rows that agree, 0 to 1
    margin: float | None  # of a preference objective: mean chosen reward minus mean rejected reward, of validation rows
    tokens: int | None  # tokens trained so far
    peak_bytes: int | None  # highest allocation of MLX so far


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """All values of a report."""

    job: JobFacts
    times: Times
    settings: RunSettings | None  # None if config.yaml cannot be read
    stages: tuple[Stage, ...]  # of the run plan; empty if run_plan.json cannot be read
    progress: Progress
    train_loss: TrainLoss
    validation: ValidationFacts
    tests: tuple[Measurement, ...]
    evaluations: tuple[Evaluation, ...]  # by lq test after the run, the oldest first
    attempts: tuple[AttemptFacts, ...]
    checkpoints: tuple[CheckpointFacts, ...]
    incidents: tuple[Incident, ...]
    adapter: AdapterFacts
    data: tuple[DataFile, ...]
    trajectory: tuple[TrajectoryRow, ...]
    hardware: Hardware
    dataset: Dataset | None  # None if the trainer did not report it
    parameters: Parameters | None
    answers: tuple[Answer, ...]
    findings: Findings
    versions: Mapping[str, str]  # versions of lq, Python and the libraries, by name
    host: Mapping[str, str]  # machine on which the job was submitted
    unread: tuple[str, ...]  # files that could not be read, one line each
    written_by: str  # version of lq

    @property
    def loss_unit(self) -> str:
        """The unit of losses: a preference objective has one loss for each row."""
        supervised = self.settings is None or self.settings.objective == "sft"
        return "nats per token" if supervised else "nats per row"

    @property
    def restarts(self) -> tuple[AttemptFacts, ...]:
        """Every attempt but the first."""
        return self.attempts[1:]

    @property
    def test(self) -> Measurement | None:
        """The test of the published weights, or the last one."""
        best = self.adapter.best
        trained = [test for test in self.tests if test.iteration]
        published = (test for test in trained if best is not None and test.iteration == best.iteration)
        return next(published, trained[-1] if trained else None)

    @property
    def latest_evaluations(self) -> tuple[Evaluation, ...]:
        """The latest measurement of each pair of weights and data."""
        latest = {(one.iteration, one.sha256, one.data if one.sha256 is None else ""): one for one in self.evaluations}
        return tuple(sorted(latest.values(), key=lambda one: one.time))


def perplexity(loss: float) -> float:
    """Return exp(loss), or infinity if that is too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """Memory, speed, sleep and battery during the run."""

    limit_bytes: int | None  # the value of `lq.memory.limit` in bytes
    peak_bytes: int | None  # highest peak of MLX
    footprint_bytes: int | None  # highest footprint of the trainer
    headroom_bytes: int | None  # limit minus the larger of the two
    swap_first_bytes: int | None  # of the whole machine, at the first report
    swap_most_bytes: int | None  # highest swap of the machine
    it_s_first: float | None  # median of the first tenth of the reports
    it_s_last: float | None  # of the last tenth
    sleeps: int  # how often the machine slept
    slept_seconds: float  # total sleep in seconds
    battery_before: float | None  # charge, 0..1
    battery_after: float | None  # battery charge at the end, 0 to 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizedFile:
    """A tokenised data file."""

    name: str  # train, valid or test
    rows: int
    tokens: int | None = None  # after truncation
    supervised_tokens: int | None = None  # that count for the loss
    truncated: int | None = None  # truncated rows
    shortest: int | None = None  # tokens of the shortest row before truncation
    median: float | None = None  # tokens of the row in the middle
    p95: float | None = None  # tokens of a row: 95th percentile
    longest: int | None = None  # tokens of the longest row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twin:
    """A row that is in the training set too."""

    row: int  # row of its own file, from 1
    train_row: int  # row of the training set, from 1
    share: float  # share of common shingles; 1 if the rows are equal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """Rows that a file has in common with the training set."""

    name: str  # valid or test
    rows: int
    exact: int  # rows that are equal to a training row
    measured: int | None = None  # of these, rows that validations or tests measure; None if not reported
    near: int | None = None  # nearly equal rows; None if not searched
    examples: tuple[Twin, ...] = ()  # some of these rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The tokenised data set."""

    files: tuple[TokenizedFile, ...]
    max_seq_length: int | None  # tokens; longer rows are truncated
    padding_share: float | None  # of all positions of the batches
    repeated_inside: int | None  # training rows that repeat an earlier one
    overlaps: tuple[Overlap, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """The trained part of the model, counted as MLX-LM does."""

    trained: int  # parameters that are trained
    total: int  # parameters of the model
    targets: tuple[str, ...] = ()  # modules of a layer, such as self_attn.q_proj; none for a full fine-tune
    layers: int = 0  # layers with trained parameters

    @property
    def share(self) -> float:
        """Share of the parameters that are trained."""
        return self.trained / self.total if self.total else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """The answers to one of `lq.prompts` or to the question of a validation row, before and after training."""

    prompt: str = ""  # the prompt
    before: str | None  # the answer before training
    after: str | None  # the answer after training
    iteration: int | None  # of the weights of the second answer
    max_tokens: int | None = None  # length limit of an answer
    row: int | None = None  # row of valid.jsonl, from 1; None for one of lq.prompts
    reference: str | None = None  # the answer in that row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of the train loss (rules: analysis/phases.py)."""

    name: str  # initial learning, spike, recovery, convergence, or further training between them
    first: int  # iteration
    last: int  # last iteration
    loss_first: float  # level at its beginning: the running median of the reports
    loss_last: float  # loss level at the end
    peak_iteration: int | None  # of a spike: its highest report
    peak_loss: float | None  # loss of the highest report of a spike, in nats per token
    seconds: float  # between its reports, without the time between attempts
    back: bool | None  # of a recovery: whether the loss returned to its level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Happening:
    """An entry of the timeline."""

    time: float | None  # unix seconds
    iteration: int | None
    attempt: int | None
    code: str  # code of the event
    what: str  # the event as text
    evidence: str  # evidence as text
    action: str  # what lq did
    cost_iterations: int | None  # None if unknown or not applicable
    cost_seconds: float | None  # lost time in seconds; None if there is none or it is unknown
    cost: str  # in words
    numbers: Mapping[str, Any]  # the evidence of the incident


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuiltyRow:
    """A row that the autopsy of a spike measured."""

    place: str  # file and line
    loss: float  # under the weights of the rollback point


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A change of the requested settings."""

    first_iteration: int  # first iteration of the change
    changes: str  # setting requested -> run, ...
    because: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """The loss of a data file before training and with the best weights."""

    name: str  # validation or test
    before: float  # nats per token
    after: float  # loss with the published weights, in nats per token
    iteration: int  # of the best weights
    rows: int  # number of rows
    difference: Difference | None  # after minus before


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ruling:
    """The verdict and its numbers."""

    verdict: Verdict
    advice: str  # recommended next step
    seconds_after_good: float | None  # of training after the first checkpoint that is as good as the best
    final_minus_best: Difference | None
    train_after_best: Difference | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """All conclusions of the rules."""

    ruling: Ruling | None  # None if the job has not ended
    phases: tuple[Phase, ...]
    happenings: tuple[Happening, ...]  # by time
    changes: tuple[Change, ...]
    guilty: tuple[GuiltyRow, ...]  # worst first
    gains: tuple[Gain, ...]  # compared with the model before training
