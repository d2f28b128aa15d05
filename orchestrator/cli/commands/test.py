"""`lq test`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobs.model.job import Job
from orchestrator.artifacts import weights as model_weights
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.model_options import device, device_options
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import JobRef
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from orchestrator.artifacts.evaluate import WeightsMeasurement
    from orchestrator.artifacts.weights import Weights

T = TypeVar("T")


class _CheckpointChoice(click.ParamType[str | int]):
    name = "checkpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Parse an iteration, `best` or `last`."""
        if value in ("best", "last"):
            return str(value)
        if not str(value).isdecimal():
            self.fail(f"{value!r} is not an iteration, best or last.", param, ctx)
        return int(value)


@click.command()
@home_access.job_id_argument
@click.option(
    "--checkpoint",
    metavar="ITERATION|best|last",
    type=_CheckpointChoice(),
    default="best",
    help="Weights to evaluate; 0 for those before training (best).",
)
@click.option("--data", metavar="FOLDER", type=click.Path(path_type=Path), help="Read test.jsonl from another folder.")
@device_options
@json_option
def test(job_id: JobRef, checkpoint: str | int, data: Path | None, anyway: bool, queue: bool, as_json: bool) -> None:
    """Evaluate the weights of a job on its test.jsonl: loss and perplexity with 95 % intervals."""
    from orchestrator.artifacts import evaluate

    with home_access.open_app() as app:
        job = home_access.find_job(app, job_id)
        spec_json = app.store.jobs.spec_json(job.id)
        folder = data.expanduser().absolute() if data is not None else None
        model_weights.require_model(job, json.loads(spec_json)["model"])
        file = model_weights.test_file(job, spec_json, folder)
        weights = model_weights.weights(app, job, checkpoint)
        with device(app, "test", job, anyway=anyway, queue=queue):
            tested, measurement = evaluate.measure(job, weights, folder)
        others = evaluate.measured_by_run(app, job, weights.iteration)
    if not as_json:
        _print_text(job, weights, file, tested, others)
        return
    from orchestrator.results.artifacts import EvaluationResult, RunLoss

    result = _result(
        EvaluationResult,
        tested,
        id=job.id,
        name=job.name,
        data=file,
        weights=weights.words,
        tokens=sum(measurement.tokens),
        seconds=measurement.seconds,
        by_the_run=[_result(RunLoss, other) for other in others],
    )
    output.print_json(result)


def _result(model: type[T], tested: WeightsMeasurement, **others: Any) -> T:
    """Build a result with the loss and the perplexity."""
    from orchestrator.results.build import from_attributes

    perplexity, low, high = tested.perplexity
    interval = {"loss_low": tested.low, "loss_high": tested.high, "perplexity_low": low, "perplexity_high": high}
    return from_attributes(model, tested, perplexity=perplexity, **interval, **others)


def _print_text(
    job: Job, weights: Weights, file: Path | None, tested: WeightsMeasurement, others: Sequence[WeightsMeasurement]
) -> None:
    of = "" if weights.iteration is None else f" of iteration {weights.iteration:,}"
    click.echo(f"job {job.id} {job.name}: weights{of} ({weights.words}), {fmt.counted(tested.rows, 'row')} of")
    click.echo(f"  {file if file is not None else 'the test set'}")
    perplexity, low, high = tested.perplexity
    click.echo(f"loss        {fmt.loss(tested.loss)}{_interval(tested.low, tested.high, fmt.loss)}")
    click.echo(f"perplexity  {fmt.figure(perplexity)}{_interval(low, high, fmt.figure)}")
    for other in others:
        click.echo(_run_line(other))


def _interval(low: float | None, high: float | None, word: Callable[[float], str]) -> str:
    return f"  (95 % interval {word(low)} to {word(high)})" if low is not None and high is not None else ""


def _run_line(tested: WeightsMeasurement) -> str:
    when = "before training" if tested.iteration == 0 else f"at {tested.iteration:,}"
    loss = fmt.loss_with_interval(tested.loss, tested.low, tested.high)
    return f"{tested.kind} of the run {when}: {loss}, {fmt.counted(tested.rows, 'row')}"
