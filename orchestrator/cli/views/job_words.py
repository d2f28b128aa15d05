"""What a person types to name jobs: an id, a range of ids, a name. Read here; reach.py and selection.py look them up.

Whoever completes such words in a shell does it here, at the two ParamTypes.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_RANGE = re.compile(r"(\d{1,30})-(\d{1,30})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobWord:
    """One word that names a job, or several."""

    text: str  # as typed
    first: int | None  # the lowest id it names; None where it can only be a name
    last: int | None  # the highest

    @property
    def is_range(self) -> bool:
        """Whether it names ids from one to another."""
        return self.first != self.last

    def __str__(self) -> str:
        """Return it as typed."""
        return self.text


class OneJob(click.ParamType[JobWord]):
    """A job's id, or its name."""

    name = "job id or name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JobWord:
        """Read an id or a name; which jobs there are is asked later."""
        if isinstance(value, JobWord):
            return value
        text = str(value)
        if not re.fullmatch(r"\d+", text):
            if not text.strip():
                self.fail("a job is named by its id or its name, and this is empty.", param, ctx)
            return JobWord(text=text, first=None, last=None)
        number = int(text)
        if number < 1:
            self.fail(f"{text} is no job: ids begin at 1.", param, ctx)
        return JobWord(text=text, first=number, last=number)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Offer the ids that the verb is for."""
        from orchestrator.cli.commands import completion

        return completion.job_ids(ctx, incomplete)


class SomeJobs(OneJob):
    """An id, a range of ids such as `3-7` (both ends belong to it), or a name."""

    name = "job id, range or name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JobWord:
        """Read an id, a range or a name."""
        found = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return super().convert(value, param, ctx)
        first, last = int(found[1]), int(found[2])
        if first > last:
            self.fail(f"{value} runs backwards; write {last}-{first}.", param, ctx)
        if first < 1:
            self.fail(f"{value}: ids begin at 1; write 1-{last}.", param, ctx)
        return JobWord(text=value, first=first, last=last)


ONE_JOB = OneJob()
SOME_JOBS = SomeJobs()
