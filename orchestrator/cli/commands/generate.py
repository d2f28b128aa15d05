"""`lq generate`."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import click

from jobs.model.errors import InvalidInput
from orchestrator.artifacts import mlx_cli
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.model_options import base_option, device, device_options, mlx_options, tuned_model
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import JobRef

if TYPE_CHECKING:
    from orchestrator.artifacts.weights import TunedModel

_READ_BYTES = 1 << 16
_RULE = "=" * 10
_STATISTICS = re.compile(
    rf"\n{_RULE}\nPrompt: (?P<prompt_tokens>\d+) tokens, (?P<prompt_tok_s>\S+) tokens-per-sec\n"
    r"Generation: (?P<tokens>\d+) tokens, (?P<tok_s>\S+) tokens-per-sec\nPeak memory: (?P<peak_gb>\S+) GB\n\Z"
)
"""What mlx_lm.generate prints after the answer (mlx_lm/generate.py, generate)."""

_NO_ANSWER = re.compile(rf"\n{_RULE}\nNo text generated for this prompt\n\Z")


@click.command()
@home_access.job_id_argument
@click.option("--prompt", "-p", "prompt", metavar="TEXT", help="The prompt; - reads it from stdin (the default).")
@click.option("--max-tokens", metavar="N", type=click.IntRange(min=1), help="Generate at most N tokens (100).")
@base_option
@device_options
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
    """Generate one answer with the model of a job and its best adapter, and print only the answer.

    Options after -- are passed to mlx_lm.generate:

    lq generate 3 -p "What is LoRA?" -- --temp 0.7
    """
    with home_access.open_app() as app:
        job = home_access.find_job(app, job_id)
        tuned = tuned_model(app, job, base=base)
        text = _prompt(prompt)
        limit = ["--max-tokens", str(max_tokens)] if max_tokens is not None else []
        with device(app, "generate", job, anyway=anyway, queue=queue):
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

    answer, statistics = _split(printed)
    result = from_attributes(
        GenerateResult,
        tuned,
        id=tuned.job.id,
        name=tuned.job.name,
        prompt=prompt,
        answer=answer,
        prompt_tokens=int(statistics["prompt_tokens"]) if statistics else None,
        tokens=int(statistics["tokens"]) if statistics else None,
        prompt_tok_s=float(statistics["prompt_tok_s"]) if statistics else None,
        tok_s=float(statistics["tok_s"]) if statistics else None,
        peak_bytes=round(float(statistics["peak_gb"]) * 1e9) if statistics else None,
    )
    output.print_json(result)
