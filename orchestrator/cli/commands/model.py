"""`lq chat`, `lq generate`, `lq test` and `lq fuse`: the model of a job."""

from __future__ import annotations

import codecs
import functools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from jobs.model.errors import InvalidInput
from jobs.model.job import Job
from jobs.model.states import Status
from orchestrator.artifacts import mlx_cli
from orchestrator.artifacts import weights as model_weights
from orchestrator.cli import output
from orchestrator.cli.args import Parsed, seconds_option, takes_job
from orchestrator.cli.output import json_option
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.scheduling import device_lock, eligibility
from orchestrator.scheduling.device_lock import Beside

if TYPE_CHECKING:
    from orchestrator.artifacts.evaluate import WeightsMeasurement
    from orchestrator.artifacts.weights import TunedModel, Weights

T = TypeVar("T")

IDLE_S = 1800.0
_IDLE_CHECK_S = 10.0
_READ_BYTES = 1 << 16
_RULE = "=" * 10
_STATISTICS = re.compile(
    rf"\n{_RULE}\nPrompt: (?P<prompt_tokens>\d+) tokens, (?P<prompt_tok_s>\S+) tokens-per-sec\n"
    r"Generation: (?P<tokens>\d+) tokens, (?P<tok_s>\S+) tokens-per-sec\nPeak memory: (?P<peak_gb>\S+) GB\n\Z"
)
"""What mlx_lm.generate prints after the answer (mlx_lm/generate.py, generate)."""

_NO_ANSWER = re.compile(rf"\n{_RULE}\nNo text generated for this prompt\n\Z")

_mlx_options = click.argument("options", metavar="[-- OPTION...]", nargs=-1, type=click.UNPROCESSED)
_base_option = click.option("--base", is_flag=True, help="Use the model without the adapter.")


def _device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to do while a job trains; the verb gets a `Beside` as `beside`."""

    @functools.wraps(command)
    def with_beside(*, anyway: bool, queue: bool, **others: Any) -> Any:
        if anyway and queue:
            raise click.UsageError("--anyway and --queue cannot be used together")
        return command(beside=Beside.ANYWAY if anyway else Beside.WAIT if queue else Beside.REFUSE, **others)

    anyway = click.option("--anyway", is_flag=True, help="Run while a job trains; both become slower.")
    queue = click.option("--queue", is_flag=True, help="Wait until no job trains, and start before the next one.")
    return anyway(queue(with_beside))


@contextmanager
def _device(app: App, verb: str, job: Job, beside: Beside) -> Iterator[None]:
    """Use the device within a block; no job starts meanwhile."""
    with device_lock.used(app, verb, job.id, beside=beside, tell=output.note):
        yield


def _tuned_model(app: App, job: Job, *, base: bool) -> TunedModel:
    """Find the model and the adapter. Print a note if the job did not succeed."""
    tuned = model_weights.tuned(app, job, base=base)
    if job.status is not Status.SUCCEEDED and tuned.adapter is not None:
        output.note(f"job {job.id} is {job.status}; using published weights: {tuned.why or 'unknown'}")
    return tuned


# --- chat ---


@click.command()
@takes_job
@_base_option
@seconds_option("--idle", "idle_s", "End after this many seconds without input if a job waits", IDLE_S)
@_device_options
@_mlx_options
def chat(app: App, job: Job, base: bool, idle_s: float, beside: Beside, options: Sequence[str]) -> None:
    """Chat with the model of a job and its best adapter in mlx_lm.chat.

    No job starts meanwhile. Options after -- are passed to mlx_lm.chat:

    lq chat 3 -- --temp 0.7 --max-tokens 500
    """
    tuned = _tuned_model(app, job, base=base)
    with _device(app, "chat", job, beside):
        output.note(f"job {job.id} ({job.name}), {tuned.words}")
        with mlx_cli.started(mlx_cli.MLX_LM, tuned.arguments("chat", *options)) as popen:
            waiting = _until_idle(app, popen, idle_s)
    if waiting is None:
        mlx_cli.require_done(popen, name="mlx_lm.chat", errors=None)
        return
    click.echo()
    output.note(f"chat ended after {fmt.duration(idle_s)} without input: job {waiting.id} ({waiting.name}) waits")


def _until_idle(app: App, popen: subprocess.Popen[bytes], idle_s: float) -> Job | None:
    """Wait until the chat has ended, or end it if it is idle while a job waits; then return that job."""
    started = time.time()
    while True:
        try:
            popen.wait(min(_IDLE_CHECK_S, max(idle_s / 4, 0.1)))
        except subprocess.TimeoutExpired:
            idle = time.time() - max(started, _last_input())
            if idle >= idle_s and (waiting := eligibility.kept_by_device(app)) is not None:
                mlx_cli.end(popen)
                return waiting
        else:
            return None


def _last_input() -> float:
    """Return when the terminal was last read, in unix seconds, as `w` does; 0.0 if unknown."""
    try:
        return os.fstat(sys.stdin.fileno()).st_atime
    except (OSError, ValueError):
        return 0.0


# --- generate ---


@click.command()
@takes_job
@click.option("--prompt", "-p", "prompt", metavar="TEXT", help="The prompt; - reads it from stdin (the default).")
@click.option("--max-tokens", metavar="N", type=click.IntRange(min=1), help="Generate at most N tokens (100).")
@_base_option
@_device_options
@json_option
@_mlx_options
def generate(
    app: App,
    job: Job,
    prompt: str | None,
    max_tokens: int | None,
    base: bool,
    beside: Beside,
    as_json: bool,
    options: Sequence[str],
) -> None:
    """Generate one answer with the model of a job and its best adapter, and print only the answer.

    Options after -- are passed to mlx_lm.generate:

    lq generate 3 -p "What is LoRA?" -- --temp 0.7
    """
    tuned = _tuned_model(app, job, base=base)
    text = _prompt(prompt)
    limit = ["--max-tokens", str(max_tokens)] if max_tokens is not None else []
    with _device(app, "generate", job, beside):
        printed = _generate(tuned.arguments("generate", "--prompt", "-", *limit, *options), text, silent=as_json)
    if as_json:
        _print_json(tuned, text, printed)


def _prompt(prompt: str | None) -> str:
    """Return the prompt, from stdin if it is not given."""
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("give a prompt: -p TEXT, or -p - to read it from stdin")
    text = sys.stdin.read() if prompt in (None, "-") else prompt
    if not text or not text.strip():
        raise InvalidInput("the prompt is empty; give one: -p TEXT")
    return text


def _generate(arguments: Sequence[str], prompt: str, *, silent: bool) -> str:
    """Run mlx_lm.generate, print the answer while it arrives unless silent, and return all output."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as errors:
        stdin.write(prompt.encode())
        stdin.seek(0)
        streams = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": errors}
        with mlx_cli.started(mlx_cli.MLX_LM, arguments, **streams) as popen:
            assert popen.stdout is not None
            printed = _follow(popen.stdout, silent=silent)
        mlx_cli.require_done(popen, name="mlx_lm.generate", errors=errors)
    return printed


def _follow(stdout: IO[bytes], *, silent: bool) -> str:
    """Read to the end, and print the text that is certainly part of the answer."""
    decoder, output_text, printed = codecs.getincrementaldecoder("utf-8")("replace"), "", 0
    while raw := os.read(stdout.fileno(), _READ_BYTES):
        output_text += decoder.decode(raw)
        answer = _partial_answer(output_text)
        if not silent and len(answer) > printed:
            click.echo(answer[printed:], nl=False)
            printed = len(answer)
    answer, _ = _split(output_text)
    if not silent and answer:
        click.echo(answer[printed:], nl=not answer.endswith("\n"))
    return output_text


def _partial_answer(output_text: str) -> str:
    """Return the answer so far, without an end that could be the start of the statistics."""
    begin = f"{_RULE}\n"
    if not output_text.startswith(begin):
        return ""
    body, rule = output_text.removeprefix(begin), f"\n{_RULE}"
    if rule in body:
        return body[: body.rindex(rule)]
    cut = next(length for length in range(len(rule), -1, -1) if body.endswith(rule[:length]))
    return body[: len(body) - cut]


def _split(output_text: str) -> tuple[str, dict[str, str]]:
    """Return the answer and the statistics; these are empty if an option of the user suppressed them."""
    if not output_text.startswith(f"{_RULE}\n"):
        return output_text, {}
    body = output_text.removeprefix(f"{_RULE}\n")
    statistics = _STATISTICS.search(body)
    if statistics is not None:
        return body[: statistics.start()], statistics.groupdict()
    return _NO_ANSWER.sub("", f"\n{body}").removeprefix("\n"), {}


def _print_json(tuned: TunedModel, prompt: str, printed: str) -> None:
    from orchestrator.results.artifacts import GenerateResult
    from orchestrator.results.build import from_attributes

    answer, found = _split(printed)
    integers = {name: int(found[name]) if found else None for name in ("prompt_tokens", "tokens")}
    speeds = {name: float(found[name]) if found else None for name in ("prompt_tok_s", "tok_s")}
    peak = round(float(found["peak_gb"]) * 1e9) if found else None
    about = {"id": tuned.job.id, "name": tuned.job.name, "prompt": prompt, "answer": answer, "peak_bytes": peak}
    output.print_json(from_attributes(GenerateResult, tuned, **about, **integers, **speeds))


# --- test ---


def _checkpoint(text: str) -> str | int:
    """Parse an iteration, `best` or `last`."""
    if text not in ("best", "last") and not text.isdecimal():
        raise ValueError(f"{text!r} is not an iteration, best or last.")
    return int(text) if text.isdecimal() else text


@click.command()
@takes_job
@click.option(
    "--checkpoint",
    metavar="ITERATION|best|last",
    type=Parsed("checkpoint", _checkpoint),
    default="best",
    help="Weights to evaluate; 0 for those before training (best).",
)
@click.option("--data", metavar="FOLDER", type=click.Path(path_type=Path), help="Read test.jsonl from another folder.")
@_device_options
@json_option
def test(app: App, job: Job, checkpoint: str | int, data: Path | None, beside: Beside, as_json: bool) -> None:
    """Evaluate the weights of a job on its test.jsonl: loss and perplexity with 95 % intervals.

    lq report and lq compare show the result.
    """
    from orchestrator.artifacts import evaluate

    spec_json = app.store.jobs.spec_json(job.id)
    folder = data.expanduser().absolute() if data is not None else None
    model_weights.require_model(job, json.loads(spec_json)["model"])
    file = model_weights.test_file(job, spec_json, folder)
    weights = model_weights.weights(app, job, checkpoint)
    with _device(app, "test", job, beside):
        tested, measurement = evaluate.measure(job, weights, folder)
        evaluate.keep(job, weights, file, tested)
    others = evaluate.measured_by_run(app, job, weights.iteration)
    if not as_json:
        _print_tested(job, weights, file, tested, others)
        return
    from orchestrator.results.artifacts import EvaluationResult, RunLoss

    about = {"id": job.id, "name": job.name, "data": file, "weights": weights.words}
    cost = {"tokens": sum(measurement.tokens), "seconds": measurement.seconds}
    by_the_run = [_tested_result(RunLoss, other) for other in others]
    output.print_json(_tested_result(EvaluationResult, tested, **about, **cost, by_the_run=by_the_run))


def _tested_result(model: type[T], tested: WeightsMeasurement, **others: Any) -> T:
    """Build a result with the loss and the perplexity."""
    from orchestrator.results.build import from_attributes

    perplexity, low, high = tested.perplexity
    interval = {"loss_low": tested.low, "loss_high": tested.high, "perplexity_low": low, "perplexity_high": high}
    return from_attributes(model, tested, perplexity=perplexity, **interval, **others)


def _print_tested(
    job: Job, weights: Weights, file: Path | None, tested: WeightsMeasurement, others: Sequence[WeightsMeasurement]
) -> None:
    of = "" if weights.iteration is None else f" of iteration {weights.iteration:,}"
    click.echo(f"job {job.id} {job.name}: weights{of} ({weights.words}), {fmt.counted(tested.rows, 'row')} of")
    click.echo(f"  {file if file is not None else 'the test set'}")
    perplexity, low, high = tested.perplexity
    click.echo(f"loss        {fmt.loss(tested.loss)}{_interval(tested.low, tested.high, fmt.loss)}")
    if perplexity is not None:
        click.echo(f"perplexity  {fmt.figure(perplexity)}{_interval(low, high, fmt.figure)}")
    if (rewards := tested.rewards) is not None:
        click.echo(f"accuracy    {fmt.percent(rewards.accuracy)}, margin {fmt.figure(rewards.margin)}")
    for other in others:
        when = "before training" if other.iteration == 0 else f"at {other.iteration:,}"
        loss = fmt.loss_with_interval(other.loss, other.low, other.high)
        click.echo(f"{other.kind} of the run {when}: {loss}, {fmt.counted(other.rows, 'row')}")


def _interval(low: float | None, high: float | None, word: Callable[[float], str]) -> str:
    return f"  (95 % interval {word(low)} to {word(high)})" if low is not None and high is not None else ""


# --- fuse ---


@click.command()
@takes_job
@click.option("--save-path", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the model (JOB/fused).")
@click.option("--force", is_flag=True, help="Replace an existing model in that folder.")
@_device_options
@json_option
@_mlx_options
def fuse(
    app: App, job: Job, save_path: Path | None, force: bool, beside: Beside, as_json: bool, options: Sequence[str]
) -> None:
    """Fuse the model of a job with its best adapter into one model folder.

    Options after -- are passed to mlx_lm.fuse:

    lq fuse 3 -- --dequantize
    """
    from orchestrator.artifacts import fuse as fusing

    tuned = _tuned_model(app, job, base=False)
    target = save_path.expanduser().absolute() if save_path is not None else job.dir.path / "fused"
    fusing.require_target(target, tuned, force=force, options=options)
    with _device(app, "fuse", job, beside):
        fused = fusing.fuse(tuned, target, force=force, options=options)
    if as_json:
        from orchestrator.results.artifacts import FuseResult
        from orchestrator.results.build import from_attributes

        fields = {"id": job.id, "name": job.name, "path": fused.path, "bytes": fused.bytes}
        output.print_json(from_attributes(FuseResult, tuned, **fields))
        return
    quoted = shlex.quote(str(fused.path))
    click.echo(f"job {job.id} {job.name}: fused with {tuned.words}, {fmt.size(fused.bytes)}, in")
    click.echo(f"  {fused.path}")
    click.echo(f"generate:\n  mlx_lm.generate --model {quoted} --prompt 'Write your question here'")
    click.echo(f"serve:\n  mlx_lm.server --model {quoted}")
    if save_path is None:
        click.echo(f"lq clean {job.id} deletes this folder; move it to keep it")
