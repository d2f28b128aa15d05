"""The commands a report ends with: each works when pasted into a shell. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from jobs.model.states import Status
from orchestrator.report.facts import Facts


def next_steps(facts: Facts) -> list[str]:
    """Return the lines of the section: only commands that apply to this job."""
    steps = [(title, command) for title, applies, command in _STEPS if applies(facts)]
    lines = ["## Next steps"]
    for title, command in steps:
        lines += ["", f"{title}:", "", "```sh", command(facts), "```"]
    return lines


def lq(facts: Facts, verb: str) -> str:
    """Return `lq VERB ID`, with the home where it is not the default one."""
    home = f"LQ_HOME={shlex.quote(facts.job.home)} " if facts.job.home else ""
    return f"{home}lq {verb} {facts.job.id}"


def _mlx(facts: Facts, verb: str, *options: str, adapter: str | None = None) -> str:
    assert facts.settings is not None
    path = adapter or facts.adapter.path
    command = (f"mlx_lm.{verb}", "--model", facts.settings.model, "--adapter-path", path, *options)
    trust = ("--trust-remote-code",) if facts.settings.trust_remote_code else ()
    return shlex.join((*command, *trust))


def _generate(facts: Facts, adapter: str | None = None) -> str:
    prompt = facts.answers[0].prompt if facts.answers else "Write your question here"
    return _mlx(facts, "generate", "--prompt", prompt, adapter=adapter)


def _compare_checkpoints(facts: Facts) -> str:
    """Lay the last weights out as MLX-LM loads them, and ask them what the best ones were asked."""
    last = Path(facts.job.job_dir) / "last"
    adapters = Path(facts.adapter.path)
    steps = (
        ("mkdir", "-p", str(last)),
        ("cp", str(adapters / "adapter_config.json"), str(last)),
        ("cp", str(adapters / "final_adapters.safetensors"), str(last / "adapters.safetensors")),
    )
    laid_out = " && ".join(shlex.join(step) for step in steps)
    return f"{laid_out} && {_generate(facts, str(last))}"


def _test(facts: Facts) -> str:
    assert facts.settings is not None
    settings = facts.settings
    longest = ("--max-seq-length", str(settings.max_seq_length))
    return _mlx(facts, "lora", "--data", settings.data, "--test", "--test-batches", "-1", "--batch-size", "1", *longest)


def _fuse(facts: Facts) -> str:
    return _mlx(facts, "fuse", "--save-path", str(Path(facts.job.job_dir) / "fused"))


def _loads(facts: Facts) -> bool:
    return facts.adapter.best is not None and facts.settings is not None


def _has_another_last(facts: Facts) -> bool:
    best, final = facts.adapter.best, facts.adapter.final
    return _loads(facts) and best is not None and final is not None and best.sha256 != final.sha256


def _has_test_rows(facts: Facts) -> bool:
    return _loads(facts) and any(file.name == "test.jsonl" and file.rows for file in facts.data)


def may_retry(facts: Facts) -> bool:
    """Say whether `lq retry` takes this job."""
    return facts.job.status in (Status.FAILED, Status.CANCELLED)


_STEPS: tuple[tuple[str, Callable[[Facts], bool], Callable[[Facts], str]], ...] = (
    ("Ask the fine-tuned model", _loads, _generate),
    ("Ask the last weights the same", _has_another_last, _compare_checkpoints),
    ("Measure the test set", _has_test_rows, _test),
    ("Write one model folder that needs no adapter", _loads, _fuse),
    ("Try the job again", may_retry, lambda facts: lq(facts, "retry")),
    ("Read this report in the browser", lambda facts: True, lambda facts: f"{lq(facts, 'report')} --open"),
    ("See the job", lambda facts: True, lambda facts: lq(facts, "show")),
)
