"""`lq edit` and `lq move`."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.model.errors import InvalidInput, LqError, NotAllowed
from jobs.model.job import Job
from jobs.model.states import LIVE, Status
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import GROUP, JobSelection, job_option, overwrite_option, takes_job, takes_jobs
from orchestrator.cli.home_access import JobRef
from orchestrator.cli.output import ChangeOutput, change_options
from orchestrator.core.app import App

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.submission.edit import Edit
    from orchestrator.submission.submit import Checked

_EDITORS = ("sensible-editor", "nano", "vim", "vi")
"""Editors to try if neither VISUAL nor EDITOR is set."""


@click.command()
@takes_job
@overwrite_option
@change_options
def edit(app: App, job: Job, overwrite: bool, out: ChangeOutput) -> None:
    """Edit the settings of a job that has not started, in $VISUAL or $EDITOR.

    The settings are checked as by lq submit. If they are not valid, the job stays unchanged and your text is kept.
    The job does not start meanwhile.
    """
    from orchestrator.submission import edit as editing

    editor = _editor()
    home_access.require_wakeup(app)
    with editing.opened(app, job.id) as session, _deleting_unchanged(session):
        new = _edited(app, session, editor, overwrite=overwrite)
        try:
            if new is not None:
                editing.apply(app, session, new, time.time())
        except NotAllowed as error:
            raise NotAllowed(f"{error}; it is unchanged and your text is in {session.file}") from error
    changes = "unchanged" if new is None else "; ".join(editing.changes(session.spec, new.loaded.spec))
    for text in new.notes if new is not None else ():
        output.note(text)
    out.line(f"job {job.id} {app.store.jobs.get(job.id).status}: {changes}")
    out.changed(job.id)
    out.line(home_access.wake_worker(app))
    out.finish(app)


@contextmanager
def _deleting_unchanged(session: Edit) -> Iterator[None]:
    """Delete the file after the block if the user has not changed it."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if session.file.read_text(errors="replace") == session.text:
                session.file.unlink()


def _edited(app: App, session: Edit, editor: list[str], *, overwrite: bool) -> Checked | None:
    """Open the editor until the text is valid or the user gives up. None if the settings are unchanged."""
    from orchestrator.submission import edit as editing

    if session.left is not None:
        output.note(f"the text of an earlier edit that was not valid is opened; discard it with: rm {session.file}")
    session.file.touch(mode=0o600)
    session.file.write_text(session.left or session.text)
    while True:
        _run(editor, session.file)
        content = session.file.read_bytes()
        try:
            is_same = content == session.text.encode()
            new = None if is_same else editing.checked(app, session, content, overwrite=overwrite)
        except LqError as error:
            if not _confirms_retry(error):
                kept = f"the job is unchanged and your text is in {session.file}"
                raise type(error)(f"{error}; {kept}; edit it again: lq edit {session.was.id}") from error
        else:
            if new is not None and new.loaded.spec != session.spec:
                return new
            session.file.unlink()
            return None


def _confirms_retry(error: LqError) -> bool:
    """Ask on a terminal whether to open the editor again."""
    if not sys.stdin.isatty():
        return False
    click.echo(f"lq: {error}", err=True)
    try:
        return click.confirm("Open it again?", default=True, err=True)
    except click.Abort:
        return False


def _run(editor: list[str], file: Path) -> None:
    """Open the editor and wait until it exits. Ctrl-C goes to the editor only."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # the editor would inherit SIG_IGN
    try:
        code = subprocess.run([*editor, str(file)], check=False).returncode
    except OSError as error:
        raise InvalidInput(f"{editor[0]}: {error.strerror}; set EDITOR to another editor") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    if code:
        raise LqError(f"{editor[0]} failed with exit code {code}, so nothing was changed; set EDITOR to another editor")


def _editor() -> list[str]:
    """Return the command of the user's editor."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if command:
        try:
            return shlex.split(command)
        except ValueError as error:
            raise InvalidInput(f"EDITOR is not a command: {error}") from error
    path = next((path for name in _EDITORS if (path := shutil.which(name)) is not None), None)
    if path is None or not sys.stdin.isatty():
        raise InvalidInput("no editor found; set one: EDITOR=nano lq edit ID")
    return [path]


_MOVABLE = LIVE - {Status.RUNNING}


@click.command()
@takes_jobs(GROUP)
@click.option("--first", is_flag=True, help="Move before all other jobs.")
@click.option("--last", is_flag=True, help="Move after all other jobs.")
@job_option("--before", "Move directly before this job.")
@job_option("--after", "Move directly after this job.")
@click.option("--priority", metavar="N", type=click.IntRange(-(2**31), 2**31 - 1), help="Set the priority.")
@change_options
def move(
    selection: JobSelection,
    first: bool,
    last: bool,
    before: JobRef | None,
    after: JobRef | None,
    priority: int | None,
    out: ChangeOutput,
) -> None:
    """Move jobs within the queue. Several jobs keep the order given.

    A moved job gets the priority of its new place. A running job continues.
    """
    if sum((first, last, before is not None, after is not None, priority is not None)) != 1:
        raise click.UsageError("give one of --first, --last, --before ID, --after ID, --priority N")
    none = "no job{of} waits in the queue"
    with home_access.open_app() as app:
        jobs = args.select_jobs(app, selection, lambda job: job.status in _MOVABLE, none=none, or_else="--group NAME")
        before_id = home_access.find_job(app, before).id if before is not None else None
        after_id = home_access.find_job(app, after).id if after is not None else None
        with app.store.transaction():
            # --first and --after put each job at the same place, so the last one goes first
            for job in reversed(jobs) if first or after is not None else jobs:
                if priority is not None:
                    app.store.queue.set_priority(job.id, priority)
                else:
                    app.store.queue.move(job.id, before=before_id, after=after_id, last=last)
        ids = [entry.job.id for entry in app.store.queue.waiting()]
        for job in jobs:
            moved = app.store.jobs.get(job.id)
            position = f"{ids.index(job.id) + 1} of {len(ids)} in the queue" if job.id in ids else str(moved.status)
            out.line(f"job {job.id} moved: {position}, priority {moved.priority}")
            out.changed(job.id)
        out.finish(app)
