"""edit: a job's settings in the user's editor, before the job starts."""

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
from orchestrator.cli.output import Voice, takes_voice
from orchestrator.cli.param_types import JobRef

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.submission.edit import Edit
    from orchestrator.submission.submit import Checked

_USUAL = ("sensible-editor", "nano", "vim", "vi")
"""Editors that are looked for where neither VISUAL nor EDITOR names one."""


@click.command()
@home_access.job_id_argument
@click.option("--overwrite", is_flag=True, help="Let the finished adapter replace what lies in adapter_path now.")
@takes_voice
def edit(job_id: JobRef, overwrite: bool, voice: Voice) -> None:
    """Open the settings of job ID, which has not begun, in $VISUAL or $EDITOR, and take what is saved.

    It is checked as by lq submit; a text with a mistake changes nothing and is kept. The job does not start meanwhile.
    """
    from orchestrator.submission import edit as editing

    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        editor = _editor()
        home_access.require_bell(app)
        with editing.opened(app, job.id) as session, _kept_if_changed(session):
            new = _edited(app, session, editor, overwrite=overwrite)
            if new is not None:
                _take(app, session, new)
        now = app.store.jobs.get(job.id)
        if new is None:
            voice.say(f"job {job.id}: nothing was changed; it is {now.status} as before")
        else:
            for text in new.notes:
                output.note(text)
            voice.say(f"job {job.id} {now.status}: {'; '.join(editing.changes(session.spec, new.loaded.spec))}")
        voice.done(job.id)
        voice.say(home_access.wake_worker(app))
        voice.end(app)


@contextmanager
def _kept_if_changed(session: Edit) -> Iterator[None]:
    """Leave a text that was not taken where it is; one nobody changed goes."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if session.file.read_text(errors="replace") == session.text:
                session.file.unlink()


def _edited(app: App, session: Edit, editor: list[str], *, overwrite: bool) -> Checked | None:
    """Have the text edited until it can be taken, or the user gives up; None where it asks for the very same job."""
    from orchestrator.submission import edit as editing

    if session.left is not None:
        output.note(f"this is what an edit before made of it, which was not taken; without it: rm {session.file}")
    _write(session.file, session.left or session.text)
    while True:
        _run(editor, session.file)
        content = session.file.read_bytes()
        if content == session.text.encode():
            session.file.unlink()
            return None
        try:
            new = editing.checked(app, session, content, overwrite=overwrite)
        except LqError as error:
            if not _wants_again(error):
                kept = f"job {session.was.id} stays as it was, and your text is kept in {session.file}"
                raise type(error)(f"{error}; {kept}; go on with it: lq edit {session.was.id}") from error
        else:
            if new.loaded.spec != session.spec:
                return new
            session.file.unlink()
            return None


def _take(app: App, session: Edit, new: Checked) -> None:
    from orchestrator.submission import edit as editing

    try:
        editing.take(app, session, new, time.time())
    except NotAllowed as error:
        raise NotAllowed(f"{error}, and goes on as it was; the text is kept in {session.file}") from error


def _wants_again(error: LqError) -> bool:
    """Ask whether the editor should open again; nobody can be asked without a terminal."""
    if not sys.stdin.isatty():
        return False
    click.echo(f"lq: {error}", err=True)
    try:
        return click.confirm("Open it again?", default=True, err=True)
    except click.Abort:
        return False


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


def _run(editor: list[str], file: Path) -> None:
    """Open the editor, and wait until it is closed. A Ctrl-C meanwhile is the editor's, which may go on.

    Raises:
        InvalidInput: it cannot be started.
        LqError: it failed.
        KeyboardInterrupt: the Ctrl-C ended it.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the editor would inherit
    try:
        code = subprocess.run([*editor, str(file)], check=False).returncode
    except OSError as error:
        raise InvalidInput(f"{editor[0]}: {error.strerror}; name another editor in EDITOR") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    if code:
        raise LqError(f"{editor[0]} ended with exit code {code}, so nothing was changed; try another EDITOR")


def _editor() -> list[str]:
    """Return the words that start the user's editor.

    Raises:
        InvalidInput: there is none, or it is not a command.
    """
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named:
        try:
            return shlex.split(named)
        except ValueError as error:
            raise InvalidInput(f"EDITOR is not a command: {error}") from error
    found = next((path for name in _USUAL if (path := shutil.which(name)) is not None), None)
    if found is None or not sys.stdin.isatty():
        raise InvalidInput("no editor to open it in; name one: EDITOR=nano lq edit …")
    return [found]
