"""The values of a report: what was measured of one job, and what rules found. `asdict` makes report.json.

Times are unix seconds, losses nats per token. None means that the value is not known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jobs.model.outcomes import Outcome
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.verdict import Difference, Verdict

SCHEMA = 1
"""Version of report.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobFacts:
    """Which job, where it stands, where it lies."""

    id: int
    name: str
    status: Status
    reason: str | None  # a Reason code
    detail: str | None  # one line for a person
    job_dir: str  # absolute
    home: str | None  # $LQ_HOME to name in commands; None where it is the default one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """When, and for how long."""

    submitted_at: float
    started_at: float | None
    ended_at: float | None  # None while the job lives
    reported_at: float
    wall_seconds: float | None  # first start to end, or to the report
    trained_seconds: float | None  # lives of all attempts together, loading included


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user asked for, as frozen at submit."""

    model: str
    data: str
    fine_tune_type: str
    rank: int | None  # None for a full fine-tune, as scale and dropout
    scale: float | None
    dropout: float | None
    num_layers: int  # -1 for all
    optimizer: str
    learning_rate: float  # of the schedule's start where there is one
    lr_schedule: str | None
    batch_size: int  # rows per iteration
    grad_accumulation_steps: int  # iterations per update
    effective_batch: int  # rows per update
    max_seq_length: int  # tokens
    grad_checkpoint: bool
    mask_prompt: bool
    seed: int
    batching: str
    save_every: int  # iterations
    steps_per_eval: int  # iterations
    steps_per_report: int  # iterations
    resume_adapter_file: str | None
    adapter_path: str | None
    trust_remote_code: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it came, and at what speed."""

    iterations_done: int
    iterations_asked: int
    rows_seen: int | None
    epochs: float | None  # rows seen / rows of train.jsonl
    tokens: int | None  # trained tokens
    it_s: float | None  # median over the reports
    tok_s: float | None  # median over the reports
    peak_bytes: int | None  # highest peak of any report


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossAt:
    """A train loss and where it was reported."""

    iteration: int
    loss: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainLoss:
    """The train loss, by report."""

    first: LossAt | None
    last: LossAt | None
    lowest: LossAt | None  # of the finite ones
    reports: int
    not_finite: int  # reports whose loss is NaN or infinite
    not_applied: int | None  # iterations whose update was not applied; None where that was not counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement of the validation or the test set."""

    iteration: int
    loss: float
    standard_error: float | None  # by row
    low: float | None  # of its 95 % interval; None where neither rows nor an error are known
    high: float | None
    perplexity: float  # exp(loss)
    examples: int  # rows
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationFacts:
    """The measurements of the validation set that matter most."""

    base: Measurement | None  # iteration 0: before training
    best: Measurement | None  # lowest finite loss, the earlier one of equals
    final: Measurement | None  # the last one
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTest:
    """The validation of a checkpoint, measured again after a resume: the proof of an exact one."""

    iteration: int | None
    measured: float | None
    recorded: float | None
    equal: bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttemptFacts:
    """One life of the child process, and what its beginning cost."""

    number: int
    started_at: float
    ended_at: float | None
    seconds: float  # its life, or so far
    first_iteration: int | None
    last_iteration: int | None
    resumed_from: str | None
    quality: str | None  # a Quality code
    outcome: str | None  # an Outcome code, None while it lives
    reason: str | None
    detail: str | None
    exit_code: int | None
    signal: int | None
    idle_seconds: float | None  # from the end of the attempt before it; None for the first
    came_to: int | None  # iteration at which the attempts before it had stopped; None for the first
    repeated_iterations: int | None  # trained a second time because of this restart
    given_up_iterations: int  # beyond where the loss guard went back to; the run went another way from there
    catch_up_seconds: float | None  # from its start until it was at `came_to` again
    self_test: SelfTest | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """A checkpoint that was reported."""

    iteration: int
    path: str  # relative to the job's folder
    size_bytes: int
    on_disk: bool
    val_loss: float | None  # measured at the same iteration
    recommended: bool  # the best by validation, which is what was published


@dataclasses.dataclass(frozen=True, kw_only=True)
class IncidentFacts:
    """Something the report must mention."""

    time: float
    attempt: int | None
    code: str
    text: str
    evidence: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """A published file of weights."""

    name: str
    iteration: int | None
    size_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """The folder MLX-LM loads."""

    path: str  # absolute
    best: AdapterFile | None  # adapters.safetensors: best by validation; what --adapter-path loads
    final: AdapterFile | None  # final_adapters.safetensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of rows, as it was at submit."""

    name: str
    rows: int | None
    size_bytes: int | None
    sha256: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrajectoryRow:
    """Where the run stood at one iteration."""

    iteration: int
    train_loss: float | None  # of the last report at or before it
    val_loss: float | None  # measured at it
    tokens: int | None
    peak_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the report says, before it is worded."""

    job: JobFacts
    times: Times
    settings: Settings | None  # None where config.yaml cannot be read
    stages: tuple[Stage, ...]  # of the run plan; empty where run_plan.json cannot be read
    progress: Progress
    train_loss: TrainLoss
    validation: ValidationFacts
    tests: tuple[Measurement, ...]
    attempts: tuple[AttemptFacts, ...]
    checkpoints: tuple[CheckpointFacts, ...]
    incidents: tuple[IncidentFacts, ...]
    adapter: AdapterFacts
    data: tuple[DataFile, ...]
    trajectory: tuple[TrajectoryRow, ...]
    hardware: Hardware
    dataset: Dataset | None  # None where the trainer did not say, as below
    parameters: Parameters | None
    answers: tuple[Answer, ...]
    findings: Findings
    versions: Mapping[str, str]
    host: Mapping[str, str]
    unread: tuple[str, ...]  # files the report would have used, and why it could not; one line each

    @property
    def restarts(self) -> tuple[AttemptFacts, ...]:
        """Every attempt but the first."""
        return self.attempts[1:]

    @property
    def planned_restarts(self) -> int:
        """How many of them follow a stop that was asked for: a pause, a closed window, the end of a segment."""
        return sum(before.outcome == Outcome.STOPPED for before in self.attempts[:-1])

    @property
    def repeated_iterations(self) -> int:
        """Iterations trained a second time, over all restarts that say so."""
        return sum(attempt.repeated_iterations or 0 for attempt in self.attempts)

    @property
    def given_up_iterations(self) -> int:
        """Iterations whose weights the loss guard gave up."""
        return sum(attempt.given_up_iterations for attempt in self.attempts)

    @property
    def test(self) -> Measurement | None:
        """The test set under the weights that were published; else as it was measured last."""
        best = self.adapter.best
        trained = [test for test in self.tests if test.iteration]
        published = (test for test in trained if best is not None and test.iteration == best.iteration)
        return next(published, trained[-1] if trained else None)

    @property
    def last_checkpoint(self) -> CheckpointFacts | None:
        """The newest checkpoint that is still on disk."""
        return next((record for record in reversed(self.checkpoints) if record.on_disk), None)


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where a float cannot hold it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the run took of the machine, and what the machine did meanwhile."""

    limit_bytes: int | None  # what `lq.memory.limit` came to
    peak_bytes: int | None  # the most that MLX held
    footprint_bytes: int | None  # the most that the trainer took
    headroom_bytes: int | None  # limit less the larger of the two
    swap_first_bytes: int | None  # of the whole machine, at the first report
    swap_most_bytes: int | None
    it_s_first: float | None  # median of the first tenth of the reports
    it_s_last: float | None  # of the last tenth
    sleeps: int
    slept_seconds: float
    battery_before: float | None  # charge, 0..1
    battery_after: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenisedFile:
    """A data file as the trainer saw it."""

    name: str  # train, valid or test
    rows: int
    tokens: int | None  # after long rows were cut
    supervised_tokens: int | None  # that are learned
    truncated: int | None  # rows that were cut
    shortest: int | None  # tokens of a row, before it was cut; as all below
    median: float | None
    p95: float | None
    longest: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twin:
    """A row that stands in the training set too."""

    row: int  # in its own file, from 1
    train_row: int
    share: float  # of shingles in common; 1 where they are equal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a file has in common with the training set."""

    name: str  # valid or test
    rows: int
    exact: int
    near: int | None  # None where it was not sought
    examples: tuple[Twin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The data set, tokenised."""

    files: tuple[TokenisedFile, ...]
    max_seq_length: int | None  # tokens; longer rows are cut
    padding_share: float | None  # of all positions of the batches
    repeated_inside: int | None  # training rows that repeat an earlier one
    overlaps: tuple[Overlap, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """What of the model was trained, counted as MLX-LM does."""

    trained: int
    total: int
    targets: tuple[str, ...]  # modules of a layer, such as self_attn.q_proj; none for a full fine-tune
    layers: int

    @property
    def share(self) -> float:
        """Trained parameters in parts of all."""
        return self.trained / self.total if self.total else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said to one of `lq.prompts`, before and after."""

    prompt: str
    before: str | None
    after: str | None
    iteration: int | None  # of the weights that answered after
    max_tokens: int | None  # after which an answer was cut


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of the train loss (phases.py has the rules)."""

    name: str  # initial learning, spike, recovery, convergence, or further training between them
    first: int  # iteration
    last: int
    loss_first: float  # level at its beginning: the running median of the reports
    loss_last: float
    peak_iteration: int | None  # of a spike: its highest report
    peak_loss: float | None
    seconds: float  # between its reports, without what lay between attempts
    back: bool | None  # of a recovery: whether the loss came back to where it had been


@dataclasses.dataclass(frozen=True, kw_only=True)
class Happening:
    """An entry of the timeline."""

    time: float | None  # unix seconds
    iteration: int | None
    attempt: int | None
    code: str
    what: str
    evidence: str
    action: str
    cost_iterations: int | None  # None where there is none or it is not known
    cost_seconds: float | None
    cost: str  # in words
    numbers: Mapping[str, Any]  # what the rule saw


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuiltyRow:
    """A row that the autopsy of a spike ranked."""

    place: str  # file and line
    loss: float  # its own, under the weights that were gone back to


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """Where the run departed from what was requested."""

    first_iteration: int
    changes: str  # setting asked -> run, ...
    because: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """A data file measured before training and with the weights to be used."""

    name: str  # validation or test
    before: float  # nats per token
    after: float
    iteration: int  # of the weights measured after
    rows: int
    difference: Difference | None  # after minus before


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ruling:
    """The verdict, and the numbers beside it."""

    verdict: Verdict
    advice: str
    seconds_after_good: float | None  # of training, after the first checkpoint as good as the best
    final_minus_best: Difference | None
    train_after_best: Difference | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that rules found."""

    ruling: Ruling | None  # None while the job lives
    phases: tuple[Phase, ...]
    happenings: tuple[Happening, ...]  # by time
    changes: tuple[Change, ...]
    guilty: tuple[GuiltyRow, ...]  # worst first
    gains: tuple[Gain, ...]  # over the model before training
