"""`lq status` on a terminal, in a pipe and as a process; the libraries that verbs import."""

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
    """Return what `lq WORDS` writes to a terminal."""
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
        except OSError:  # Linux: the other end is closed
            return


def plain(text: str) -> list[str]:
    """Return the lines without colours."""
    return _ESCAPE.sub("", text).splitlines()


def fill(home: Home) -> list[Job]:
    """Add jobs with the widest figures that occur; return a running and a failed one."""
    far = Seen(iteration=14_987, train_loss=123.456, val_loss=98.765, it_s=0.0123)
    broken = Seen(iteration=9, train_loss=float("nan"), val_loss=float("-inf"), it_s=120.0)
    for _ in range(10):
        home.cancelled()
    failed = home.ended(Status.FAILED, Reason.KILLED, LONG_DETAIL, name=STRANGE_NAME, seen=broken)
    return [home.running(STRANGE_NAME, seen=far, iters=15_000), failed]


def test_status_fits_a_real_terminal(home: Home) -> None:
    running, failed = fill(home)
    lines = plain(on_a_terminal(home.path, "status", columns=80))
    assert [line for line in lines if cell_len(line) > 80] == []
    rows = {int(row[0]): row for line in lines if (row := line.split()) and row[0].isdigit()}
    assert len(rows) == 12
    assert rows[running.id][1].startswith("[red]qwe")
    assert {"failed", "0%", "nan"} <= set(rows[failed.id])
    words = " ".join(" ".join(lines).split())
    for figures in ("99% 14,987 of 15,000", "123.456", "best 98.765 at 14,987", "0.0123 it/s", LONG_DETAIL):
        assert figures in words


def test_status_in_a_pipe_cuts_nothing(home: Home) -> None:
    fill(home)
    answer = InProcess(home.path, COLUMNS="40")("status")
    assert "\x1b" not in answer.out
    assert answer.out.count(STRANGE_NAME) == 2
    assert any(line.endswith(LONG_DETAIL) for line in answer.out.splitlines())
    assert answer.err == ""


def test_no_color_changes_only_colours(home: Home) -> None:
    one_of_each(home)
    coloured = on_a_terminal(home.path, "status", columns=80)
    colourless = on_a_terminal(home.path, "status", columns=80, NO_COLOR="1")
    assert _COLOUR.search(coloured)
    assert not _COLOUR.search(colourless)
    # without colours rich leaves out the rest of a bar; times and free memory change between two calls
    variable = re.compile(r"[━╸╺]+|\d\d:\d\d|[\d.]+ GB of")
    first, second = ([variable.sub("", line).split() for line in plain(text)] for text in (coloured, colourless))
    assert first == second


@pytest.mark.parametrize("verb", ["show", "logs", "report", "wait"])
def test_closed_pipe_is_no_error(home: Home, verb: str) -> None:
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
    """Return the top-level modules that a process imports while it runs some code."""
    script = f"import json, sys\n{code}\nsys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"LQ_HOME": str(home)},
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


def test_status_imports_few_libraries(home: Home) -> None:
    one_of_each(home)
    InProcess(home.path)("status")  # reads settings.yaml, once
    imported = imported_by("from orchestrator.cli.verbs import run\nassert run(['status']) == 0", home.path)
    assert {"sqlalchemy", "rich"} <= imported
    assert imported.isdisjoint(FORBIDDEN)


def test_worker_imports_no_trainer(tmp_path: Path) -> None:
    modules = "worker.main, worker.control, submission.submit, notify.apprise_sender, notify.messages, core.huey_queue"
    imports = "".join(f"import orchestrator.{module}\n" for module in modules.split(", "))
    imported = imported_by(imports + "import workers.process.supervisor, workers.checkpoints.adapters", tmp_path)
    assert {"huey", "sqlalchemy"} <= imported
    assert imported.isdisjoint({"mlx", "mlx_lm", "transformers", "matplotlib"})


@pytest.mark.parametrize("words", [(), ("notify",), ("config",)])
def test_bare_group_verbs_show_their_help(words: tuple[str, ...], tmp_path: Path) -> None:
    answer = InProcess(tmp_path / "none")(*words)
    assert answer.out.startswith(f"Usage: {' '.join(('lq', *words))} ")
    assert answer.err == ""
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("slots: many\n", "settings.yaml:1: slots"),
        ("a: [\n", "settings.yaml:2"),
        ("notify: {services: [{url: x}]}", "url"),
    ],
)
def test_broken_settings_show_in_status(home: Home, text: str, fault: str) -> None:
    lq = InProcess(home.path)
    file = home.path / "settings.yaml"
    file.touch(mode=0o600)
    for content, shows in (("slots: 2\n", False), (text, True), ("slots: 3\n", False)):
        file.write_text(content)
        for _ in range(2):  # a valid file is read only once
            lines = [line for line in lq("status").out.splitlines() if line.startswith("settings:")]
            assert len(lines) == shows
            assert not shows or fault in lines[0]
        assert (lq.json("status")["settings"] is not None) == shows
