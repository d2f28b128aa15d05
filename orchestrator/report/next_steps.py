"""The commands a report ends with: each works when pasted into a shell. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from jobs.states import Status
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


def _mlx(facts: Facts, verb: str, *options: str) -> str:
    assert facts.settings is not None
    command = (f"mlx_lm.{verb}", "--model", facts.settings.model, "--adapter-path", facts.adapter.path, *options)
    trust = ("--trust-remote-code",) if facts.settings.trust_remote_code else ()
    return shlex.join((*command, *trust))


def _generate(facts: Facts) -> str:
    return _mlx(facts, "generate", "--prompt", "Write your question here")


def _fuse(facts: Facts) -> str:
    return _mlx(facts, "fuse", "--save-path", str(Path(facts.job.job_dir) / "fused"))


def _loads(facts: Facts) -> bool:
    return facts.adapter.best is not None and facts.settings is not None


def may_retry(facts: Facts) -> bool:
    """Say whether `lq retry` takes this job."""
    return facts.job.status in (Status.FAILED, Status.CANCELLED)


_STEPS: tuple[tuple[str, Callable[[Facts], bool], Callable[[Facts], str]], ...] = (
    ("Ask the fine-tuned model", _loads, _generate),
    ("Write one model folder that needs no adapter", _loads, _fuse),
    ("Try the job again", may_retry, lambda facts: lq(facts, "retry")),
    ("See the job", lambda facts: True, lambda facts: lq(facts, "show")),
)
