"""Every verb with wrong input, without jobs, in a closed pipe, without colours and in a narrow terminal."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator

import pytest
from rich.cells import cell_len

from jobs.model.states import Status
from orchestrator.cli.verbs import VERBS, run
from tests.harness import BESIDE_PYTHON, InProcess
from tests.unit.orchestrator.cli.test_status import on_a_terminal
from tests.unit.orchestrator.cli_homes import Home, one_of_each

GARBAGE = ("%%%\x1b[31m", "99", "3-", "-1", "9" * 30, "", "--nonsense")
OF_A_JOB = ("edit", "extend", "show", "logs", "report", "chat", "generate", "test", "fuse")
OF_JOBS = ("wait", "pause", "resume", "move", "cancel", "retry", "dismiss", "compare", "verify", "prune", "clean")
MORE = {"move": ("--first",), "extend": ("--iters", "9000"), "generate": ("-p", "x")}
READ = {
    "status": (),
    "plan": (),
    "show": ("{ended}",),
    "logs": ("{ended}",),
    "verify": ("{ended}",),
    "wait": ("{ended}",),
    "notify": ("list",),
    "config": ("presets",),
    "completion": ("zsh",),
    "help": ("submit",),
}
"""Verbs that print much, with arguments."""


@pytest.mark.parametrize("word", GARBAGE, ids=repr)
@pytest.mark.parametrize("verb", VERBS)
def test_garbage_prints_one_line(
    home: Home, verb: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LQ_HOME", str(home.path))
    assert run([verb, word, *MORE.get(verb, ())]) in (2, 3, 102)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("lq: ")
    assert err.strip().isprintable()
    assert "unexpected:" not in err


@pytest.mark.parametrize("verb", OF_A_JOB + OF_JOBS)
def test_unknown_job_is_one_line(home: Home, verb: str) -> None:
    one_of_each(home)
    answer = InProcess(home.path, EDITOR="true")(verb, 99, *MORE.get(verb, ()), expect=102 if verb == "wait" else 3)
    assert (answer.out, answer.err) == ("", "lq: no job 99; see: lq status --all\n")


@pytest.mark.parametrize("verb", OF_JOBS)
def test_nothing_selected_names_the_options(home: Home, verb: str) -> None:
    if verb in ("wait", "clean"):  # they have a default
        return
    answer = InProcess(home.path)(verb, *MORE.get(verb, ()), expect=2)
    assert "--group NAME" in answer.err
    assert answer.err.count("\n") == 1


@contextlib.contextmanager
def closed_pipe() -> Iterator[int]:
    """Give a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@pytest.mark.parametrize("verb", READ)
def test_closed_output_is_no_error(home: Home, verb: str) -> None:
    ended = str(one_of_each(home)[Status.SUCCEEDED])
    words = [str(BESIDE_PYTHON / "lq"), verb, *(word.format(ended=ended) for word in READ[verb])]
    environment = os.environ | {"LQ_HOME": str(home.path)}
    with closed_pipe() as pipe:
        piped = subprocess.run(words, stdout=pipe, stderr=subprocess.PIPE, env=environment, check=False)
    without = ["sh", "-c", '"$@" >&- <&-', "sh", *words]
    closed = subprocess.run(without, stderr=subprocess.PIPE, env=environment, check=False)
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert (closed.returncode, closed.stderr) == (0, b"") or verb == "verify", "of files that do not exist"
    assert b"unexpected" not in closed.stderr


def test_wait_keeps_its_code_in_closed_pipe(home: Home) -> None:
    failed = one_of_each(home)[Status.FAILED]
    with closed_pipe() as pipe:
        done = subprocess.run(
            [BESIDE_PYTHON / "lq", "wait", str(failed)],
            stdout=pipe,
            stderr=subprocess.PIPE,
            env=os.environ | {"LQ_HOME": str(home.path)},
            check=False,
        )
    assert (done.returncode, done.stderr) == (100, b"")


@pytest.mark.parametrize(
    "words", [("status",), ("plan",), ("show", "6"), ("logs", "6"), ("help", "submit"), ("--help",)]
)
def test_narrow_terminal_without_colours(home: Home, words: tuple[str, ...]) -> None:
    one_of_each(home)
    shown = on_a_terminal(home.path, *words, columns=40, NO_COLOR="1")
    assert "\x1b[3" not in shown
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    unbreakable = [line for line in text.splitlines() if cell_len(line) > 40 and str(home.path) not in line]
    assert not [line for line in unbreakable if not re.fullmatch(r" *\S+| +lq .*", line)]
