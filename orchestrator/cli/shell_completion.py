"""Values for shell completion: job ids, groups, presets and schema names. click completes verbs and options.

A shell runs `lq` for every completion, so this module imports little, creates nothing, and prints nothing else.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from jobs.model.states import ENDED, LIVE, RETRIABLE, Status
from jobs.model.text import counted
from orchestrator.cli.verbs import COMPLETE_VARIABLE
from orchestrator.core.paths import Home

if TYPE_CHECKING:
    from orchestrator.store.completion import NamedJob

APPLIES: dict[str, frozenset[Status]] = {
    "pause": frozenset({Status.QUEUED, Status.RUNNING, Status.WAITING}),
    "resume": frozenset({Status.HELD, Status.PAUSED, Status.WAITING}),
    "move": LIVE,
    "edit": frozenset({Status.HELD, Status.QUEUED}),
    "cancel": LIVE,
    "retry": RETRIABLE,  # with --set: ENDED
    "extend": frozenset({Status.SUCCEEDED}),
    "dismiss": ENDED - {Status.SUCCEEDED},
    "clean": ENDED,
    "chat": ENDED,
    "fuse": ENDED,
}
"""Statuses of the jobs that a verb applies to; a verb that is not listed applies to every job."""


def job_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the ids of jobs that the verb applies to: live jobs first, then newest first, without those typed."""
    statuses = ENDED if ctx.params.get("sets") else APPLIES.get(ctx.info_name or "", frozenset(Status))
    typed = {str(ref) for ref in (*ctx.params.get("refs", ()), ctx.params.get("ref"))}
    jobs = [job for job in _jobs() if job.status in statuses and str(job.id) not in typed]
    return [
        CompletionItem(str(job.id), help=f"{job.name} ({job.status})")
        for job in sorted(jobs, key=lambda job: (job.status in ENDED, job.status != Status.RUNNING))
        if str(job.id).startswith(incomplete)
    ]


def groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the groups, newest first, with the number of their jobs."""
    counts = Counter(job.group for job in _jobs() if job.group is not None and job.group.startswith(incomplete))
    # bash needs quotes around spaces; the scripts of zsh and fish quote a value themselves
    quoted = shlex.quote if os.environ.get(COMPLETE_VARIABLE, "").startswith("bash") else str
    return [CompletionItem(quoted(name), help=counted(count, "job")) for name, count in counts.items()]


def preset_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the presets with their purpose."""
    from configs.preset_files import presets

    return [CompletionItem(one.name, help=one.summary) for one in presets() if one.name.startswith(incomplete)]


def schema_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the names of the schemas with what they describe."""
    from orchestrator.results.catalogue import NAMES

    return [CompletionItem(name, help=of) for name, of in NAMES.items() if name.startswith(incomplete)]


def _jobs() -> Sequence[NamedJob]:
    """Return the newest jobs of this user's home."""
    from orchestrator.store.completion import named_jobs

    return named_jobs(Home.of(os.environ).store)
