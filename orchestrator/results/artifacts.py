"""Results of the verbs that use the model of a job: generate, test, fuse, compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.model.events import MeasuredRewards
from jobs.model.states import Status
from jobs.policies.verdict import Difference
from orchestrator.report.facts import ValidationFacts


@dataclass(frozen=True, kw_only=True)
class GenerateResult:
    """The answer of a model."""

    id: int
    name: str
    model: str
    adapter: Path | None  # folder of the adapter; null with --base
    iteration: int | None  # iteration of the adapter; null with --base or if unknown
    prompt: str  # the prompt as given
    answer: str  # text of the answer
    prompt_tokens: int | None  # tokens of the prompt; null if MLX-LM prints no statistics, as the fields below
    tokens: int | None  # tokens of the answer
    prompt_tok_s: float | None  # prompt tokens per second
    tok_s: float | None  # answer tokens per second
    peak_bytes: int | None  # peak memory


@dataclass(frozen=True, kw_only=True)
class MeasuredLoss:
    """The loss over all rows of a set with its 95 % interval; the interval is null if the set has one row."""

    iteration: int | None  # iteration of the weights; 0 before training, null if unknown
    loss: float
    standard_error: float | None  # standard error of the loss
    loss_low: float | None  # lower end of the interval
    loss_high: float | None  # upper end of the interval
    perplexity: float | None  # exp(loss); null for a preference objective
    perplexity_low: float | None  # lower end of the interval
    perplexity_high: float | None  # upper end of the interval
    rows: int  # rows measured
    rewards: MeasuredRewards | None  # null without a preference objective


@dataclass(frozen=True, kw_only=True)
class RunLoss(MeasuredLoss):
    """A loss that the run itself measured."""

    kind: str  # test or validation


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(MeasuredLoss):
    """Loss and perplexity on a test set."""

    id: int
    name: str
    data: Path | None  # path of the test file; null if the data set is on the Hugging Face hub
    weights: str  # best, last, checkpoint, kept, before training, best so far or last so far
    tokens: int  # tokens measured
    seconds: float  # duration in seconds
    by_the_run: list[RunLoss]  # measurements of the run: of the same weights, and before training


@dataclass(frozen=True, kw_only=True)
class FuseResult:
    """A model and its adapter, fused in one folder."""

    id: int
    name: str
    model: str
    adapter: Path | None  # folder of the adapter
    iteration: int | None  # iteration of the adapter; null if unknown
    path: Path  # the new folder
    bytes: int  # size of the new folder


@dataclass(frozen=True, kw_only=True)
class ComparedJob:
    """A job of the comparison."""

    id: int
    name: str
    status: Status
    settings: Mapping[str, str]  # settings that differ between the jobs, by key
    results: Mapping[str, str]  # rows of the table of results, by title
    validation: ValidationFacts
    best_minus_first: Difference | None  # best validation loss minus that of the first job, compared row by row


@dataclass(frozen=True, kw_only=True)
class GroupBest:
    """The best job of a group."""

    id: int
    name: str
    loss: float  # its lowest validation loss, in nats per token; per row for preferences
    adapter: Path | None  # folder of its adapter, absolute
    runner_up: int | None  # id of the second best job; null if there is none
    runner_up_minus_best: Difference | None  # compared row by row; null if that is not possible
    not_told_apart: list[int]  # ids of the jobs whose difference from the best is not significant
    jobs: int  # number of jobs that are ranked
    text: list[str]  # summary, one line of text each


@dataclass(frozen=True, kw_only=True)
class CompareResult:
    """Two or more jobs, compared."""

    group: str | None  # with --group: its name; else null
    best_of: GroupBest | None  # with --group: null if no job has a validation and an adapter, or the objectives differ
    jobs: list[ComparedJob]  # in the order given; with --group the best first
    not_compared_because: str | None  # why the validations are not compared row by row
    picture: Path  # file of the loss curves, absolute
