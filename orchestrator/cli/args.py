"""Arguments and options that several verbs share: which jobs, which values override a job file.

A job that is named by itself must be one that the verb applies to. Of a range, a group or --all, the verb skips the
jobs that it does not apply to.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import click

from jobs.model.errors import NoSuchJob, NotAllowed
from jobs.model.job import Job
from jobs.model.states import Status
from orchestrator.cli import home_access
from orchestrator.cli.param_types import SOME_JOBS, JobRef
from orchestrator.core.app import App

GROUP, ALL, FAILED = "--group", "--all", "--failed"

_HELP = {
    GROUP: "Select every job of a group.",
    ALL: "Select every job the command applies to.",
    FAILED: "Select every failed job, or with --group those of the group.",
}

set_option = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a config value, e.g. lora_parameters.rank=16. Repeatable.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Overwrite the adapter in adapter_path when the job ends."
)


def group_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option --group.

    Args:
        text: its help.
    """
    return click.option(GROUP, "group", metavar="NAME", shell_complete=home_access.complete_groups, help=text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSelection:
    """The jobs that the user selected, before they are looked up."""

    refs: tuple[JobRef, ...] = ()
    group: str | None = None
    every: bool = False
    failed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was selected."""
        return not (self.refs or self.group is not None or self.every or self.failed)

    @property
    def suffix(self) -> str:
        """Ranges and group for a message, such as " of group 'g'" or " of 3-7"; empty for --all."""
        parts = [ref.text for ref in self.refs if ref.is_range]
        parts += [f"group '{self.group}'"] if self.group is not None else []
        return f" of {' and '.join(parts)}" if parts else ""


def takes_jobs(
    *options: str, required: bool = False, **help_texts: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the argument ID... to a verb. The verb gets a `JobSelection` as `selection`.

    Args:
        options: those of `--group`, `--all` and `--failed` that the verb accepts.
        required: whether the user must give at least one ID.
        help_texts: help of an option instead of the usual one, by `group`, `all` and `failed`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_selection(
            *,
            refs: tuple[JobRef, ...],
            group: str | None = None,
            every: bool = False,
            failed: bool = False,
            **others: Any,
        ) -> Any:
            if every and (refs or group is not None or failed):
                raise click.UsageError("--all cannot be combined with IDs, --group or --failed")
            if failed and refs:
                raise click.UsageError("--failed cannot be combined with IDs")
            return command(selection=JobSelection(refs=refs, group=group, every=every, failed=failed), **others)

        decorated: Callable[..., Any] = with_selection
        for option in reversed(options):
            decorated = _option(option, help_texts.get(option.removeprefix("--"), _HELP[option]))(decorated)
        metavar = "ID..." if required else "[ID...]"
        return click.argument("refs", metavar=metavar, type=SOME_JOBS, nargs=-1, required=required)(decorated)

    return decorate


def _option(option: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    if option == GROUP:
        return group_option(text)
    return click.option(option, "every" if option == ALL else "failed", is_flag=True, help=text)


def select_jobs(
    app: App,
    selection: JobSelection,
    applies: Callable[[Job], bool] = lambda _: True,
    *,
    none: str,
    or_else: str | None = None,
) -> list[Job]:
    """Return the selected jobs, each once, in the order given.

    Args:
        applies: whether the verb applies to a job that was not named by itself.
        none: error if the verb applies to none of them; `{of}` stands for the selection.
        or_else: options that can replace an ID, for the error if nothing was selected; None if an empty selection is
            allowed.

    Raises:
        NoSuchJob: the job or the group does not exist.
        InvalidInput: several jobs have the same name.
        NotAllowed: the verb applies to none of them.
    """
    if selection.is_empty and or_else is not None:
        raise click.UsageError(f"name a job, or {or_else}")
    named = {ref: [home_access.find_job(app, ref)] for ref in selection.refs if not ref.is_range}
    ranges = {ref: _in_range(app, ref) for ref in selection.refs if ref.is_range}
    jobs = [job for ref in selection.refs for job in named.get(ref) or filter(applies, ranges.get(ref, ()))]
    jobs += filter(applies, _of_options(app, selection))
    if not jobs and not selection.is_empty:
        raise NotAllowed(none.format(of=selection.suffix))
    return list({job.id: job for job in jobs}.values())


def select_any_status(app: App, selection: JobSelection) -> list[Job]:
    """Return the selected jobs in any status. With --all the result can be empty."""
    if selection.every:
        return home_access.list_jobs(app, every=True)
    return select_jobs(app, selection, none="no job{of} has failed", or_else="--group NAME, --failed or --all")


def _in_range(app: App, ref: JobRef) -> list[Job]:
    """Return the jobs of a range. Ids without a job are skipped, unless all of them are."""
    first, last = ref.first or 1, min(ref.last or 1, home_access.MAX_ID)
    jobs = app.store.jobs.between(first, last) if home_access.has_store(app) and first <= last else []
    jobs = jobs or (app.store.jobs.named(ref.text) if home_access.has_store(app) else [])
    if not jobs:
        raise NoSuchJob(f"no job has an id from {ref.first} to {ref.last}; see: lq status --all")
    return jobs


def _of_options(app: App, selection: JobSelection) -> Iterable[Job]:
    """Return the jobs of --group, --all and --failed."""
    if selection.group is not None:
        jobs = home_access.jobs_of_group(app, selection.group)
    elif selection.every or selection.failed:
        jobs = sorted(home_access.list_jobs(app, every=True), key=lambda job: job.id)
    else:
        return ()
    return [job for job in jobs if job.status is Status.FAILED] if selection.failed else jobs
