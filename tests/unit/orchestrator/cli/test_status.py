"""`lq status` and its neighbours on a terminal of 80 columns, in a pipe, and as a process."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import BESIDE_PYTHON, InProcess
from tests.unit.orchestrator.cli_homes import LONG_DETAIL, Home, Seen, one_of_each

FORBIDDEN = ("mlx", "mlx_lm", "transformers", "matplotlib", "apprise", "huey", "pydantic", "alembic")
STRANGE_NAME = "[red]qwen[/] :smile: [/nothing] 日本語 " + "x" * 40
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7])[;m]")


def on_a_terminal(home: Path, *words: str, columns: int, **environment: str) -> str:
    """Return what `lq WORDS` writes to a terminal of so many columns."""
    keyboard, screen = os.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    own = {"LQ_HOME": str(home), "TERM": "xterm-256color", **environment}
    with subprocess.Popen([BESIDE_PYTHON / "lq", *words], stdout=screen, env=inherited | own) as lq:
        os.close(screen)
        written = b"".join(_until_closed(keyboard))
    os.close(keyboard)
    assert lq.returncode == 0
    return written.decode().replace("\r\n", "\n")


def _until_closed(keyboard: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(keyboard, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            return


def plain(text: str) -> list[str]:
    """Return the lines without colours."""
    return _ESCAPE.sub("", text).splitlines()


def a_long_night(home: Home) -> list[Job]:
    """Fill a home with the widest figures a night brings."""
    far = Seen(iteration=14_987, train_loss=123.456, val_loss=98.765, it_s=0.0123)
    broken = Seen(iteration=9, train_loss=float("nan"), val_loss=float("-inf"), it_s=120.0)
    for _ in range(10):
        home.cancelled()
    failed = home.ended(Status.FAILED, Reason.KILLED, LONG_DETAIL, name=STRANGE_NAME, seen=broken)
    return [home.running(STRANGE_NAME, seen=far, iters=15_000), failed]


def test_status_fits_eighty_columns_and_cuts_nothing_that_matters(home: Home) -> None:
    running, failed = a_long_night(home)
    lines = plain(on_a_terminal(home.path, "status", columns=80))
    assert [line for line in lines if cell_len(line) > 80] == []
    rows = {int(row[0]): line for line in lines if (row := line.split()) and row[0].isdigit()}
    assert len(rows) == 12, "one line a job: nothing wraps"
    assert rows[running.id].split()[1].startswith("[red]qwe")
    said = " ".join(" ".join(lines).split())
    for figures in ("99% 14,987 of 15,000", "loss 123.456", "validation 98.765 best 98.765 at 14,987", "0.0123 it/s"):
        assert figures in said
    assert {"failed", "0%", "nan"} <= set(rows[failed.id].split())
    assert f"job {failed.id} failed: killed: {LONG_DETAIL}" in said, "in as many lines as it needs"


def test_status_says_when_jobs_that_do_not_run_go_on(home: Home) -> None:
    ids = one_of_each(home)
    held = home.queued("later")
    home.store.jobs.hold(held.id, "held by the user", 1.0)
    home.store.queue.pause("jobs 3 and 4 both died of crashed within ten minutes", 1.0)
    text = InProcess(home.path)("status").out
    assert "queue: paused since 1970-01-01" in text
    assert "jobs 3 and 4 both died of crashed within ten minutes\n" in text
    assert re.search(
        rf"^job {ids[Status.WAITING]} waiting, resumes on \w+ \d.*: crashed: exit code 1$", text, re.MULTILINE
    )
    assert f"job {ids[Status.PAUSED]} paused, resumes with lq resume {ids[Status.PAUSED]}: stopped_by_user: " in text
    assert f"job {held.id} held, resumes with lq resume {held.id}: stopped_by_user: held by the user\n" in text
    lines = plain(on_a_terminal(home.path, "status", columns=80))
    assert [line for line in lines if cell_len(line) > 80] == []


def test_status_in_a_pipe_is_plain_and_cuts_nothing(home: Home) -> None:
    _, failed = a_long_night(home)
    answer = InProcess(home.path)("status")
    assert "\x1b" not in answer.out
    assert answer.out.count(STRANGE_NAME) == 2
    assert f"job {failed.id} failed: killed: {LONG_DETAIL}\n" in answer.out
    assert answer.err == ""


def test_status_colours_a_terminal_unless_told_not_to(home: Home) -> None:
    one_of_each(home)
    coloured = on_a_terminal(home.path, "status", columns=80)
    colourless = on_a_terminal(home.path, "status", columns=80, NO_COLOR="1")
    assert _COLOUR.search(coloured)
    assert not _COLOUR.search(colourless)
    hour = re.compile(r"~\d\d:\d\d")  # of a forecast: a minute may have passed between the two
    told = [
        [hour.sub("~", line) for line in plain(text) if "memory free" not in line] for text in (coloured, colourless)
    ]
    assert told[0] == told[1]


def test_status_of_a_wide_terminal_shows_long_names(home: Home) -> None:
    home.queued(STRANGE_NAME)
    assert STRANGE_NAME in "\n".join(plain(on_a_terminal(home.path, "status", columns=200)))


@pytest.mark.parametrize("verb", ["show", "logs", "report", "wait"])
def test_verbs_that_read_can_be_piped_into_something_that_stops_reading(home: Home, verb: str) -> None:
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED)
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(BESIDE_PYTHON / "lq"), verb, str(job.id)]
    done = subprocess.run(
        words, stdout=writer, stderr=subprocess.PIPE, env=os.environ | {"LQ_HOME": str(home.path)}, check=False
    )
    os.close(writer)
    assert done.stderr == b""


def imported_by(code: str, home: Path) -> set[str]:
    """Return the top-level modules that are there after some code ran in a process of its own."""
    script = f"import json, sys\n{code}\nsys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"LQ_HOME": str(home)},
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


def test_status_waits_for_no_library_it_does_not_need(home: Home) -> None:
    one_of_each(home)
    found = imported_by("from orchestrator.cli.verbs import run\nassert run(['status']) == 0", home.path)
    assert {"sqlalchemy", "rich"} <= found
    assert found.isdisjoint(FORBIDDEN)


def test_the_worker_never_loads_the_trainer(tmp_path: Path) -> None:
    modules = "worker.main, worker.control, submission.submit, notify.apprise_sender, notify.messages, core.huey_queue"
    imports = "".join(f"import orchestrator.{module}\n" for module in modules.split(", "))
    found = imported_by(imports + "import workers.process.supervisor, workers.checkpoints.adapters", tmp_path)
    assert {"huey", "sqlalchemy"} <= found
    assert found.isdisjoint({"mlx", "mlx_lm", "transformers", "matplotlib"})


@pytest.mark.parametrize("words", [(), ("notify",), ("config",)])
def test_a_verb_without_words_says_what_there_is(words: tuple[str, ...], tmp_path: Path) -> None:
    answer = InProcess(tmp_path / "none")(*words)
    assert answer.out.startswith(f"Usage: {' '.join(('lq', *words))} ")
    assert answer.err == ""
    assert not (tmp_path / "none").exists()
