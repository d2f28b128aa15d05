"""Arguments and options that several verbs share, and the types of their values.

A job that is named by itself must be one that the verb applies to. Of a range, a group or --all, the verb skips the
jobs that it does not apply to.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import Status
from orchestrator.cli import home_access
from orchestrator.cli.home_access import JobRef
from orchestrator.core.app import App

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = Callable[..., Any]
T = TypeVar("T")

_RANGE = re.compile(r"(\d{1,30})-(\d{1,30})")
_UNITS_S = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}
_DURATION = re.compile(rf"(\d{{1,6}}) ?({'|'.join(sorted(_UNITS_S, key=len, reverse=True))})")
_HOUR = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
TIME_FORMATS = "10min, 2h, 22:00 or 2026-01-31T22:00"


# --- types ---


class Parsed(click.ParamType[T]):
    """A type whose values a function reads from text; the function raises ValueError for an invalid text."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        """Take the function."""
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Parse the text; a default stays as it is."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _job(text: str) -> JobRef:
    """Parse an id or a name, without looking the job up."""
    if not re.fullmatch(r"\d+", text):
        if not text.strip():
            raise ValueError("empty job name; give an id or a name.")
        if not text.isprintable():
            raise ValueError("a job name has no control characters.")
        return JobRef(text=text, first=None, last=None)
    if int(text) < 1:
        raise ValueError(f"{text} is not a job id: ids begin at 1.")
    return JobRef(text=text, first=int(text), last=int(text))


def _row(text: str) -> tuple[str, int]:
    """Parse `N`, a row of the training set, or `valid:N`, `test.jsonl:N`."""
    match = re.fullmatch(r"(?:(train|valid|test)(?:\.jsonl)?:)?(\d{1,12})", text)
    if match is None or int(match[2]) < 1:
        raise ValueError(f"{text} is not a row: write 12, valid:12 or test:12; rows begin at 1.")
    return match[1] or "train", int(match[2])


def _jobs(text: str) -> JobRef:
    """Parse an id, a name, or a range of ids such as `3-7`, both ends included."""
    if (id_range := _RANGE.fullmatch(text)) is None:
        return _job(text)
    first, last = int(id_range[1]), int(id_range[2])
    if first > last:
        raise ValueError(f"{text} runs backwards; write {last}-{first}.")
    if first < 1:
        raise ValueError(f"{text}: ids begin at 1; write 1-{last}.")
    return JobRef(text=text, first=first, last=last)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise ValueError(f"{text!r} is not a valid number of seconds.")
    if seconds < 0:
        raise ValueError(f"{text} is not in the range x>=0.")
    return seconds


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error


def _age(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or match[2] not in "hdw":
        raise ValueError(f"{text!r} is not an age like 30d, 2w or 12h")
    return int(match[1]) * _UNITS_S[match[2]]


def _since(text: str) -> float:
    moment = parse_time(text.strip(), time.time())
    if moment is None:
        raise ValueError(f"{text!r} is not a time; write {TIME_FORMATS}")
    return moment


def parse_time(text: str, now: float) -> float | None:
    """Return a moment in unix seconds; None if the text is not a duration before now, a past hour or an ISO date."""
    if (ago := _DURATION.fullmatch(text)) is not None:
        return now - int(ago[1]) * _UNITS_S[ago[2]]
    try:
        if (hour := _HOUR.fullmatch(text)) is None:
            return datetime.fromisoformat(text).timestamp()  # local time if it names no zone
        today = datetime.fromtimestamp(now)  # noqa: DTZ006 local time on purpose
        then = today.replace(hour=int(hour[1]), minute=int(hour[2]), second=int(hour[3] or 0), microsecond=0)
        return (then if then.timestamp() <= now else then - timedelta(days=1)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


ONE_JOB = Parsed("job id or name", _job)
SOME_JOBS = Parsed("job id, range or name", _jobs)
ROW = Parsed("row", _row)
SECONDS = Parsed("number of seconds", _seconds)
AGE = Parsed("age", _age)
PATTERN = Parsed("pattern", _pattern)
SINCE = Parsed("time", _since)


# --- options ---

GROUP, ALL, FAILED = "--group", "--all", "--failed"
_HELP = {
    GROUP: "Select every job of a group.",
    ALL: "Select every job the command applies to.",
    FAILED: "Select every failed job, or with --group those of the group.",
}


def _complete_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    from orchestrator.cli import shell_completion

    return shell_completion.job_ids(ctx, param, incomplete)


def _complete_groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    from orchestrator.cli import shell_completion

    return shell_completion.groups(ctx, param, incomplete)


def job_option(option: str, text: str) -> Callable[[Command], Command]:
    """Return an option that names another job; `text` is its help."""
    return click.option(option, metavar="ID", type=ONE_JOB, shell_complete=_complete_ids, help=text)


def group_option(text: str) -> Callable[[Command], Command]:
    """Return the option --group; `text` is its help."""
    return click.option(GROUP, "group", metavar="NAME", shell_complete=_complete_groups, help=text)


def seconds_option(option: str, name: str, text: str, default: float | None = None) -> Callable[[Command], Command]:
    """Return an option with a number of seconds; `text` is its help."""
    shown = f"{text} ({default:.0f})." if default is not None else f"{text}."
    return click.option(option, name, metavar="S", type=SECONDS, default=default, help=shown)


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


class JobFileVerb(click.Command):
    """A verb that takes job files. `-c FILE`, as mlx_lm.lora takes it, is FILE; its other options belong into FILE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; explain an option of mlx_lm.lora."""
        given = [word.removeprefix("--config=") for word in args if word not in ("-c", "--config")]
        try:
            return super().parse_args(ctx, given)
        except click.UsageError as error:
            settings = dict(_training_options(args))
            if not settings:
                raise
            lines = ", ".join(f"'{key}: {value}'" for key, value in settings.items())
            key, value = next(iter(settings.items()))
            raise click.UsageError(
                f"options of mlx_lm.lora belong into the job file: write {lines}, "
                f"or override a file: {ctx.command_path} FILE --set {key}={value}",
                ctx=ctx,
            ) from error


def _training_options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of mlx_lm.lora in a command line, as keys of a job file and their values."""
    from jobs.model.spec import JobSpec

    for word, following in zip(args, [*args[1:], "--"], strict=False):
        key, equals, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if word.startswith("--") and key in JobSpec.model_fields and key not in ("config", "lq"):
            yield key, value if equals else "true" if following.startswith("--") else following


def files_argument(*, required: bool) -> Callable[[Command], Command]:
    """Return the argument FILE..."""
    metavar = "FILE..." if required else "[FILE...]"
    return click.argument("files", metavar=metavar, type=click.Path(path_type=Path), nargs=-1, required=required)


def takes_job(command: Command, *, required: bool = True) -> Command:
    """Add the argument ID to a verb. The verb gets the job and the open app.

    Args:
        required: False if the verb works without ID on the job that runs, or else on the last one that ran.
    """

    @functools.wraps(command)
    def with_job(*, ref: JobRef | None, **others: Any) -> Any:
        with home_access.open_app() as app:
            job = home_access.find_job(app, ref) if ref is not None else home_access.present_job(app)
            return command(app=app, job=job, **others)

    metavar = "ID" if required else "[ID]"
    argument = click.argument("ref", metavar=metavar, type=ONE_JOB, required=required, shell_complete=_complete_ids)
    return argument(with_job)


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


def takes_jobs(*options: str, **help_texts: str) -> Callable[[Command], Command]:
    """Add the argument ID... to a verb. The verb gets a `JobSelection` as `selection`.

    Args:
        options: those of `--group`, `--all` and `--failed` that the verb accepts.
        help_texts: help of an option instead of the usual one, by `group`, `all` and `failed`.
    """

    def decorate(command: Command) -> Command:
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

        decorated: Command = with_selection
        for option in reversed(options):
            text = help_texts.get(option.removeprefix("--"), _HELP[option])
            flag = click.option(option, "every" if option == ALL else "failed", is_flag=True, help=text)
            decorated = (group_option(text) if option == GROUP else flag)(decorated)
        argument = click.argument("refs", metavar="[ID...]", type=SOME_JOBS, nargs=-1, shell_complete=_complete_ids)
        return argument(decorated)

    return decorate


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
        or_else: options that can replace an ID, for the error if nothing was selected; None allows that.
    """
    if selection.is_empty and or_else is not None:
        raise click.UsageError(f"name a job, or use {or_else}")
    named = {ref: [home_access.find_job(app, ref)] for ref in selection.refs if not ref.is_range}
    ranges = {ref: home_access.jobs_in_range(app, ref) for ref in selection.refs if ref.is_range}
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


def _of_options(app: App, selection: JobSelection) -> Iterable[Job]:
    """Return the jobs of --group, --all and --failed."""
    if selection.group is not None:
        jobs = home_access.jobs_of_group(app, selection.group)
    elif selection.every or selection.failed:
        jobs = sorted(home_access.list_jobs(app, every=True), key=lambda job: job.id)
    else:
        return ()
    return [job for job in jobs if job.status is Status.FAILED] if selection.failed else jobs
