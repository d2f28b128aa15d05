"""Which jobs a verb is about, said in the same way everywhere: ids, ranges, names, --group, --all, --failed.

A job that is named by itself must be one the verb can be used on. Of a range, a group or all jobs those it cannot be
used on stay as they are.
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
    GROUP: "Every job of this group.",
    ALL: "Every job this can be used on.",
    FAILED: "Every job that failed; with --group those of the group.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The jobs somebody means, not looked up yet."""

    words: tuple[JobRef, ...] = ()
    group: str | None = None
    every: bool = False
    failed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return not (self.words or self.group is not None or self.every or self.failed)

    @property
    def of(self) -> str:
        """Of whom something is said: " of group 'g'", " of 3-7"; nothing where it is said of all jobs."""
        kind = [f"group '{self.group}'"] if self.group is not None else []
        ranges = [word.text for word in self.words if word.is_range]
        return f" of {' and '.join([*ranges, *kind])}" if ranges or kind else ""


def takes_jobs(
    *options: str, required: bool = False, metavar: str | None = None, **help_texts: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a verb take jobs; it is called with `choice`.

    Args:
        options: which of `--group`, `--all` and `--failed` it takes beside ids, ranges and names.
        required: whether a word must be there.
        metavar: what the words are called in the help.
        help_texts: in the place of the usual help of an option, by `group`, `all` and `failed`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_choice(
            *,
            job_words: tuple[JobRef, ...],
            group: str | None = None,
            every: bool = False,
            failed: bool = False,
            **others: Any,
        ) -> Any:
            choice = Choice(words=job_words, group=group, every=every, failed=failed)
            _require_clear(choice)
            return command(choice=choice, **others)

        taken: Callable[..., Any] = with_choice
        for option in reversed(options):
            taken = _option(option, help_texts.get(option.removeprefix("--"), _HELP[option]))(taken)
        named = metavar or ("ID..." if required else "[ID...]")
        return click.argument("job_words", metavar=named, type=SOME_JOBS, nargs=-1, required=required)(taken)

    return decorate


def _option(option: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    if option == GROUP:
        return click.option(GROUP, "group", metavar="NAME", shell_complete=home_access.offer_groups, help=text)
    return click.option(option, "every" if option == ALL else "failed", is_flag=True, help=text)


def _require_clear(choice: Choice) -> None:
    """Refuse what contradicts itself."""
    if choice.every and (choice.words or choice.group is not None or choice.failed):
        raise click.UsageError("--all means every job already; name jobs, or say --all")
    if choice.failed and choice.words:
        raise click.UsageError("--failed chooses the jobs by itself; name jobs, or say --failed")


def jobs_of(
    app: App, choice: Choice, applies: Callable[[Job], bool] = lambda _: True, *, none: str, or_else: str | None = None
) -> list[Job]:
    """Return the jobs that are meant, each once, in the order named; of several at a time those the verb is for.

    Args:
        app: where they are.
        choice: who is meant.
        applies: whether the verb can be used on a job that was not named by itself.
        none: what to say where it is for none of them; `{of}` stands for whom was asked.
        or_else: what could have been said where nothing was; None where nothing may be said.

    Raises:
        NoSuchJob: no job has one of these ids or names, or no group this name.
        InvalidInput: a name that several jobs have.
        NotAllowed: the verb is for none of them.
    """
    if choice.is_empty and or_else is not None:
        raise click.UsageError(f"name a job, or {or_else}")
    named = {word: [home_access.one_job(app, word)] for word in choice.words if not word.is_range}
    ranges = {word: _between(app, word) for word in choice.words if word.is_range}
    found = [job for word in choice.words for job in named.get(word) or filter(applies, ranges.get(word, ()))]
    found += filter(applies, _together(app, choice))
    if not found and not choice.is_empty:
        raise NotAllowed(none.format(of=choice.of))
    return list({job.id: job for job in found}.values())


def jobs_to_look_at(app: App, choice: Choice) -> list[Job]:
    """Return the jobs that are meant, in whatever state; where all are, none at all is no mistake."""
    if choice.every:
        return home_access.all_jobs(app, every=True)
    return jobs_of(app, choice, none="no job{of} has failed", or_else="--group NAME, --failed or --all")


def _between(app: App, word: JobRef) -> list[Job]:
    """Return the jobs of a range; ids nobody has are passed over, unless there is none at all."""
    first, last = word.first or 1, min(word.last or 1, home_access.LARGEST_ID)
    found = app.store.jobs.between(first, last) if home_access.has_store(app) and first <= last else []
    found = found or (app.store.jobs.named(word.text) if home_access.has_store(app) else [])
    if not found:
        raise NoSuchJob(f"no job has an id from {word.first} to {word.last}; see: lq status --all")
    return found


def _together(app: App, choice: Choice) -> Iterable[Job]:
    """Return the jobs of a group, or all of them; where only those that failed are meant, only those."""
    if choice.group is not None:
        jobs = home_access.jobs_of_group(app, choice.group)
    elif choice.every or choice.failed:
        jobs = sorted(home_access.all_jobs(app, every=True), key=lambda job: job.id)
    else:
        return ()
    return [job for job in jobs if job.status is Status.FAILED] if choice.failed else jobs
