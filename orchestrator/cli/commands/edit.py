"""`lq edit`."""

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
from orchestrator.cli import home_access, output
from orchestrator.cli.args import overwrite_option
from orchestrator.cli.output import ChangeOutput, change_options
from orchestrator.cli.param_types import JobRef

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.submission.edit import Edit
    from orchestrator.submission.submit import Checked

_EDITORS = ("sensible-editor", "nano", "vim", "vi")
"""Editors to try if neither VISUAL nor EDITOR is set."""


@click.command()
@home_access.job_id_argument
@overwrite_option
@change_options
def edit(job_id: JobRef, overwrite: bool, out: ChangeOutput) -> None:
    """Edit the settings of a job that has not started, in $VISUAL or $EDITOR.

    The settings are checked as by lq submit. If they are not valid, the job stays unchanged and your text is kept.
    The job does not start meanwhile.
    """
    from orchestrator.submission import edit as editing

    with home_access.open_app() as app:
        job = home_access.find_job(app, job_id)
        editor = _editor()
        home_access.require_wakeup(app)
        with editing.opened(app, job.id) as session, _deleting_unchanged(session):
            new = _edited(app, session, editor, overwrite=overwrite)
            if new is not None:
                _apply(app, session, new)
        status = app.store.jobs.get(job.id).status
        if new is None:
            out.line(f"job {job.id} {status}: unchanged")
        else:
            for text in new.notes:
                output.note(text)
            out.line(f"job {job.id} {status}: {'; '.join(editing.changes(session.spec, new.loaded.spec))}")
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
        if content == session.text.encode():
            session.file.unlink()
            return None
        try:
            new = editing.checked(app, session, content, overwrite=overwrite)
        except LqError as error:
            if not _confirms_retry(error):
                kept = f"the job is unchanged and your text is in {session.file}"
                raise type(error)(f"{error}; {kept}; edit it again: lq edit {session.was.id}") from error
        else:
            if new.loaded.spec != session.spec:
                return new
            session.file.unlink()
            return None


def _apply(app: App, session: Edit, new: Checked) -> None:
    from orchestrator.submission import edit as editing

    try:
        editing.apply(app, session, new, time.time())
    except NotAllowed as error:
        raise NotAllowed(f"{error}; it is unchanged and your text is in {session.file}") from error


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
    """Open the editor and wait until it exits. Ctrl-C goes to the editor only.

    Raises:
        InvalidInput: the editor cannot be started.
        LqError: the editor failed.
        KeyboardInterrupt: Ctrl-C ended the editor.
    """
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
    """Return the command of the user's editor.

    Raises:
        InvalidInput: no editor was found, or EDITOR is not a command.
    """
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
