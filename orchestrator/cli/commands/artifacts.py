"""chat, generate, fuse and test: what one does with a job's model after the run."""

from __future__ import annotations

import codecs
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
from typing import IO, TYPE_CHECKING, Any

import click

from jobs.model.errors import InvalidInput
from jobs.model.job import Job
from jobs.model.states import Status
from orchestrator.artifacts import mlx_cli
from orchestrator.artifacts import weights as afterwards
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import JobRef
from orchestrator.formatting import text as fmt
from orchestrator.scheduling import device_lock, eligibility
from orchestrator.scheduling.device_lock import Beside

if TYPE_CHECKING:
    from orchestrator.artifacts.evaluate import WeightsMeasurement
    from orchestrator.artifacts.fuse import FusedModel
    from orchestrator.artifacts.weights import TunedModel, Weights
    from orchestrator.core.app import App

IDLE_S = 1800.0
_IDLE_LOOKS_S = 10.0
_READ_BYTES = 1 << 16

_RULE = "=" * 10
_FIGURES = re.compile(
    rf"\n{_RULE}\nPrompt: (?P<prompt_tokens>\d+) tokens, (?P<prompt_tok_s>\S+) tokens-per-sec\n"
    r"Generation: (?P<tokens>\d+) tokens, (?P<tok_s>\S+) tokens-per-sec\nPeak memory: (?P<peak_gb>\S+) GB\n\Z"
)
"""What mlx_lm.generate prints after an answer (mlx_lm/generate.py, generate)."""

_NO_ANSWER = re.compile(rf"\n{_RULE}\nNo text generated for this prompt\n\Z")


def beside_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb wait for the device, or share it."""
    anyway = click.option("--anyway", is_flag=True, help="Run beside a job that trains; both are slower then.")
    queue = click.option("--queue", is_flag=True, help="Wait until no job trains; none starts before this.")
    return anyway(queue(command))


mlx_options = click.argument("options", metavar="[-- OPTION...]", nargs=-1, type=click.UNPROCESSED)
_base_option = click.option("--base", is_flag=True, help="The model as it was, without the adapter.")


@contextmanager
def _with_device(app: App, verb: str, job: Job, *, anyway: bool, queue: bool) -> Iterator[None]:
    if anyway and queue:
        raise click.UsageError("--anyway does not wait, --queue does; give one of them")
    beside = Beside.ANYWAY if anyway else Beside.WAIT if queue else Beside.REFUSE
    with device_lock.used(app, verb, job.id, beside=beside, tell=output.note):
        yield


def _tuned(app: App, job: Job, *, base: bool) -> TunedModel:
    """Find model and adapter, and say what is unusual about it."""
    found = afterwards.tuned(app, job, base=base)
    if job.status is not Status.SUCCEEDED and found.adapter is not None:
        output.note(f"job {job.id} is {job.status}; these are weights that were published: {found.why or 'unknown'}")
    return found


# --- chat ---


@click.command()
@home_access.job_id_argument
@_base_option
@click.option(
    "--idle",
    "idle_s",
    metavar="S",
    type=home_access.SECONDS,
    default=IDLE_S,
    help="End where a job waits and nothing was typed for so many seconds (1800).",
)
@beside_options
@mlx_options
def chat(job_id: JobRef, base: bool, idle_s: float, anyway: bool, queue: bool, options: Sequence[str]) -> None:
    """Chat with a job's model and its best adapter, in MLX-LM's chat.

    No job starts meanwhile; so it ends itself where one waits and nobody types. What stands after --
    goes to mlx_lm.chat as it is:

    lq chat 3 -- --temp 0.7 --max-tokens 500
    """
    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        tuned = _tuned(app, job, base=base)
        with _with_device(app, "chat", job, anyway=anyway, queue=queue):
            output.note(f"job {job.id} ({job.name}), {tuned.words}")
            with mlx_cli.started(mlx_cli.MLX_LM, tuned.arguments("chat", *options)) as popen:
                waiting = _until_forgotten(app, popen, idle_s)
        if waiting is None:
            mlx_cli.require_done(popen, name="mlx_lm.chat", errors=None)
            return
        click.echo()
        output.note(
            f"the chat is ended: job {waiting.id} ({waiting.name}) waits, and nothing was typed for "
            f"{fmt.duration(idle_s)}"
        )


def _until_forgotten(app: App, popen: subprocess.Popen[bytes], idle_s: float) -> Job | None:
    """Wait until a chat has ended, or is forgotten while a job waits; then return that job."""
    began = time.time()
    while True:
        try:
            popen.wait(min(_IDLE_LOOKS_S, max(idle_s / 4, 0.1)))
        except subprocess.TimeoutExpired:
            idle = time.time() - max(began, _last_typed())
            if idle >= idle_s and (waiting := eligibility.kept_by_device(app)) is not None:
                mlx_cli.end(popen)
                return waiting
        else:
            return None


def _last_typed() -> float:
    """Return when something was last read from the terminal, in unix seconds, as `w` has it; 0.0 where unknown."""
    try:
        return os.fstat(sys.stdin.fileno()).st_atime
    except (OSError, ValueError):
        return 0.0


# --- generate ---


@click.command()
@home_access.job_id_argument
@click.option("--prompt", "-p", "prompt", metavar="TEXT", help="What to ask; - or nothing reads it from stdin.")
@click.option("--max-tokens", "max_tokens", metavar="N", type=click.IntRange(min=1), help="At most so many (100).")
@_base_option
@beside_options
@json_option
@mlx_options
def generate(
    job_id: JobRef,
    prompt: str | None,
    max_tokens: int | None,
    base: bool,
    anyway: bool,
    queue: bool,
    as_json: bool,
    options: Sequence[str],
) -> None:
    """Ask a job's model once, with its best adapter; prints the answer and nothing else.

    What stands after -- goes to mlx_lm.generate as it is:

    lq generate 3 -p "What is LoRA?" -- --temp 0.7
    """
    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        tuned = _tuned(app, job, base=base)
        asked = _asked(prompt)
        most = ["--max-tokens", str(max_tokens)] if max_tokens is not None else []
        with _with_device(app, "generate", job, anyway=anyway, queue=queue):
            said = _generate(tuned.arguments("generate", "--prompt", "-", *most, *options), asked, silent=as_json)
    answer, figures = _split(said)
    if as_json:
        output.print_json(_generated(tuned, asked, answer, figures))


def _asked(prompt: str | None) -> str:
    """Return the prompt, read from stdin where it is not given."""
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("say what to ask: -p TEXT, or -p - to read it from stdin")
    asked = sys.stdin.read() if prompt in (None, "-") else prompt
    if not asked or not asked.strip():
        raise InvalidInput("the prompt is empty; say what to ask: -p TEXT")
    return asked


def _generate(arguments: Sequence[str], asked: str, *, silent: bool) -> str:
    """Run MLX-LM's command; print the answer as it comes, unless asked not to, and return all that was said."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as errors:
        stdin.write(asked.encode())
        stdin.seek(0)
        streams = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": errors}
        with mlx_cli.started(mlx_cli.MLX_LM, arguments, **streams) as popen:
            assert popen.stdout is not None
            said = _followed(popen.stdout, silent=silent)
        mlx_cli.require_done(popen, name="mlx_lm.generate", errors=errors)
    return said


def _followed(stdout: IO[bytes], *, silent: bool) -> str:
    """Read to the end, and print what certainly belongs to the answer as soon as it is there."""
    decoder, said, printed = codecs.getincrementaldecoder("utf-8")("replace"), "", 0
    while raw := os.read(stdout.fileno(), _READ_BYTES):
        said += decoder.decode(raw)
        answer = _begun(said)
        if not silent and len(answer) > printed:
            click.echo(answer[printed:], nl=False)
            printed = len(answer)
    answer, _ = _split(said)
    if not silent and answer:
        click.echo(answer[printed:], nl=not answer.endswith("\n"))
    return said


def _begun(said: str) -> str:
    """Return what is certain of an answer that has begun: nothing that could be the beginning of what follows it."""
    begin = f"{_RULE}\n"
    if not said.startswith(begin):
        return ""
    body, rule = said.removeprefix(begin), f"\n{_RULE}"
    if rule in body:
        return body[: body.rindex(rule)]
    cut = next(length for length in range(len(rule), -1, -1) if body.endswith(rule[:length]))
    return body[: len(body) - cut]


def _split(said: str) -> tuple[str, dict[str, str]]:
    """Return the answer, and what MLX-LM says of its speed; nothing where the user had it say less."""
    if not said.startswith(f"{_RULE}\n"):
        return said, {}
    body = said.removeprefix(f"{_RULE}\n")
    found = _FIGURES.search(body)
    if found is not None:
        return body[: found.start()], found.groupdict()
    return _NO_ANSWER.sub("", f"\n{body}").removeprefix("\n"), {}


def _generated(tuned: TunedModel, asked: str, answer: str, figures: dict[str, str]) -> dict[str, Any]:
    return {
        "id": tuned.job.id,
        "name": tuned.job.name,
        "model": tuned.model,
        "adapter": str(tuned.adapter) if tuned.adapter is not None else None,
        "iteration": tuned.iteration,
        "prompt": asked,
        "answer": answer,
        "prompt_tokens": int(figures["prompt_tokens"]) if figures else None,
        "tokens": int(figures["tokens"]) if figures else None,
        "prompt_tok_s": float(figures["prompt_tok_s"]) if figures else None,
        "tok_s": float(figures["tok_s"]) if figures else None,
        "peak_bytes": round(float(figures["peak_gb"]) * 1e9) if figures else None,
    }


# --- fuse ---


@click.command()
@home_access.job_id_argument
@click.option("--save-path", metavar="DIR", type=click.Path(path_type=Path), help="Where; else fused/ in its folder.")
@click.option("--force", is_flag=True, help="Replace a model that lies there, once the new one is whole.")
@beside_options
@json_option
@mlx_options
def fuse(
    job_id: JobRef,
    save_path: Path | None,
    force: bool,
    anyway: bool,
    queue: bool,
    as_json: bool,
    options: Sequence[str],
) -> None:
    """Write a job's model and its best adapter as one model folder that needs no adapter.

    What stands after -- goes to mlx_lm.fuse as it is:

    lq fuse 3 -- --dequantize
    """
    from orchestrator.artifacts import fuse as fusing

    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        tuned = _tuned(app, job, base=False)
        target = save_path.expanduser().absolute() if save_path is not None else fusing.default_path(tuned)
        fusing.require_target(target, tuned, force=force, options=options)
        with _with_device(app, "fuse", job, anyway=anyway, queue=queue):
            fused = fusing.fuse(tuned, target, force=force, options=options)
    if as_json:
        output.print_json(_fused(tuned, fused))
    else:
        _tell_fused(tuned, fused, own_folder=save_path is None)


def _fused(tuned: TunedModel, fused: FusedModel) -> dict[str, Any]:
    return {
        "id": tuned.job.id,
        "name": tuned.job.name,
        "model": tuned.model,
        "adapter": str(tuned.adapter),
        "iteration": tuned.iteration,
        "path": str(fused.path),
        "bytes": fused.bytes,
    }


def _tell_fused(tuned: TunedModel, fused: FusedModel, *, own_folder: bool) -> None:
    where = shlex.quote(str(fused.path))
    click.echo(f"job {tuned.job.id} {tuned.job.name}: fused with {tuned.words}, {fmt.size(fused.bytes)}, in")
    click.echo(f"  {fused.path}")
    click.echo("ask it:")
    click.echo(f"  mlx_lm.generate --model {where} --prompt 'Write your question here'")
    click.echo("serve it:")
    click.echo(f"  mlx_lm.server --model {where}")
    if own_folder:
        click.echo(f"lq clean {tuned.job.id} would delete it with the rest; move it to keep it")


# --- test ---


class _Which(click.ParamType[str | int]):
    name = "checkpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Read an iteration, or one of two words."""
        if value in ("best", "last"):
            return str(value)
        if not str(value).isdecimal():
            self.fail(f"{value!r} is no iteration, and neither best nor last.", param, ctx)
        return int(value)


@click.command()
@home_access.job_id_argument
@click.option(
    "--checkpoint",
    "which",
    metavar="ITERATION|best|last",
    type=_Which(),
    default="best",
    help="Which weights; 0 for those before training (best).",
)
@click.option("--data", metavar="FOLDER", type=click.Path(path_type=Path), help="Another folder with a test.jsonl.")
@beside_options
@json_option
def test(job_id: JobRef, which: str | int, data: Path | None, anyway: bool, queue: bool, as_json: bool) -> None:
    """Measure a job's weights on its test.jsonl: loss and perplexity with 95 % intervals, over every row."""
    from orchestrator.artifacts import evaluate

    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        spec_json = app.store.jobs.spec_json(job.id)
        folder = data.expanduser().absolute() if data is not None else None
        afterwards.require_model(job, json.loads(spec_json)["model"])
        file = afterwards.test_file(job, spec_json, folder)
        weights = afterwards.weights(app, job, which)
        with _with_device(app, "test", job, anyway=anyway, queue=queue):
            found, measurement = evaluate.measure(job, weights, folder)
        others = evaluate.measured_by_run(app, job, weights.iteration)
    if as_json:
        more = {"tokens": sum(measurement.tokens), "seconds": measurement.seconds}
        output.print_json(_tested(job, weights, file, found) | more | {"by_the_run": [_entry(one) for one in others]})
    else:
        _tell_tested(job, weights, file, found, others)


def _tested(job: Job, weights: Weights, file: Path | None, found: WeightsMeasurement) -> dict[str, Any]:
    named = {"id": job.id, "name": job.name, "data": str(file) if file is not None else None}
    return named | {"weights": weights.words} | {key: value for key, value in _entry(found).items() if key != "kind"}


def _entry(one: WeightsMeasurement) -> dict[str, Any]:
    perplexity, low, high = one.perplexity
    return {
        "kind": one.kind,
        "iteration": one.iteration,
        "loss": one.loss,
        "standard_error": one.standard_error,
        "loss_low": one.low,
        "loss_high": one.high,
        "perplexity": perplexity,
        "perplexity_low": low,
        "perplexity_high": high,
        "rows": one.rows,
    }


def _tell_tested(
    job: Job, weights: Weights, file: Path | None, found: WeightsMeasurement, others: Sequence[WeightsMeasurement]
) -> None:
    of = "" if weights.iteration is None else f" of iteration {weights.iteration:,}"
    click.echo(f"job {job.id} {job.name}: weights{of} ({weights.words}), {fmt.counted(found.rows, 'row')} of")
    click.echo(f"  {file if file is not None else 'the test set of its data'}")
    perplexity, low, high = found.perplexity
    click.echo(f"loss        {fmt.loss(found.loss)}{_interval(found.low, found.high, fmt.loss)}")
    click.echo(f"perplexity  {fmt.figure(perplexity)}{_interval(low, high, fmt.figure)}")
    for one in others:
        click.echo(_measured_by_run(one))


def _interval(low: float | None, high: float | None, word: Callable[[float], str]) -> str:
    return f"  (95 % interval {word(low)} to {word(high)})" if low is not None and high is not None else ""


def _measured_by_run(one: WeightsMeasurement) -> str:
    what = "the run's test" if one.kind == "test" else "its validation"
    when = "before training" if one.iteration == 0 else f"at {one.iteration:,}"
    measured = fmt.loss_with_interval(one.loss, one.low, one.high)
    return f"{what} {when}: {measured}, {fmt.counted(one.rows, 'row')}"
