"""A module that exits with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from workers.process.tethered import INTERRUPTED, TETHER


@contextmanager
def run(folder: Path, program: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a program as a tethered module; yield the process and the parent's end of the pipe."""
    (folder / "own_module.py").write_text(program)
    tether, hold = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "workers.process.tethered", "own_module", "--word"],
        pass_fds=(tether,),
        env=os.environ | {TETHER: str(tether), "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[4]}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as popen:
        os.close(tether)
        try:
            yield popen, hold
        finally:
            popen.kill()
    with suppress(OSError):  # if the test closed it
        os.close(hold)


def test_exits_when_pipe_closes(tmp_path: Path) -> None:
    with run(tmp_path, "print('begun', flush=True)\nimport time\ntime.sleep(100)") as (popen, hold):
        assert popen.stdout is not None
        assert popen.stdout.readline() == "begun\n"
        os.close(hold)
        assert popen.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("program", "code", "out", "err"),
    [
        ("import sys\nprint(__name__, sys.argv[1:])", 0, "__main__ ['--word']\n", ""),
        ("raise ValueError('two\\nlines')", 1, "", "ValueError: two lines\n"),
        ("input()", 0, "", ""),
        ("raise KeyboardInterrupt", INTERRUPTED, "", ""),
        ("raise SystemExit(7)", 7, "", ""),
    ],
)
def test_error_is_one_line(tmp_path: Path, program: str, code: int, out: str, err: str) -> None:
    with run(tmp_path, program) as (popen, _):
        assert popen.communicate(timeout=20) == (out, err)
        assert popen.returncode == code
