"""`lq retry --from` and `--fresh` with real training, and Ctrl-C in `lq run`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import BESIDE_PYTHON, Lq, Training, Workshop, kill, result, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]


def cancelled_halfway(lq: Lq, file: Path) -> Training:
    """Return a job that was cancelled after some iterations."""
    training = lq.submit(file)
    training.trained(50)
    os.kill(training.trainer(), signal.SIGSTOP)  # the request wakes it
    lq("cancel", training.id)
    return training


@pytest.mark.longest
def test_retry_from_a_checkpoint_is_exact(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = cancelled_halfway(lq, workshop.job_file(tmp_path / "job.yaml", lq={"keep": {"last": 20}}))
    assert "12, 20, 32, 40" in lq("retry", training.id, "--from", 33, expect=5).err
    lq("retry", training.id, "--from", 32)
    training.wait()
    assert result(training) == undisturbed.result
    second = training.facts()["attempts"][1]
    assert (second["first_iteration"], second["quality"]) == (32, "exact")
    assert "again from iteration 32" in (training.folder.report / "report.md").read_text()
    lq("verify", training.id)


@pytest.mark.longest
def test_retry_fresh_survives_kills(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = cancelled_halfway(lq, workshop.job_file(tmp_path / "job.yaml"))
    lq("worker", "stop")
    lq.settings(autostart=False)
    lq("retry", training.id, "--fresh")
    worker = lq.start_worker()
    kill(training.starting(2))  # before its first checkpoint, while the old ones exist
    kill(worker)
    lq.start_worker()
    again = training.until(Kind.STARTED, lambda event: event.attempt > 1)
    assert (again.data["iteration"], again.data["resume_quality"]) == (0, "fresh")
    training.wait()
    assert result(training) == undisturbed.result
    lq("verify", training.id)


class Terminal:
    """`lq run` in a pseudo-terminal."""

    def __init__(self, lq: Lq, file: Path) -> None:
        """Run `lq run FILE`."""
        self._keyboard, screen = os.openpty()
        self._output = b""
        self.process = subprocess.Popen(
            [BESIDE_PYTHON / "lq", "run", file],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env=os.environ | {"LQ_HOME": str(lq.home), "TERM": "xterm", "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(screen)

    def type(self, keys: str) -> None:
        """Type keys; `^C` is Ctrl-C."""
        os.write(self._keyboard, keys.replace("^C", "\x03").encode())

    def until(self, text: str) -> None:
        """Wait until the output contains a text."""
        until(lambda: self._read() and text in self._output.decode(errors="replace"), f"{text!r} on the screen")

    def ended(self) -> int:
        """Wait for the end and return the exit code."""
        until(lambda: self._read() and self.process.poll() is not None, "lq run to end")
        return self.process.returncode

    def close(self) -> None:
        """Kill the process and close the terminal."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._keyboard)

    def _read(self) -> bool:
        with suppress(OSError):  # Linux raises it if the other end is closed
            while select.select([self._keyboard], [], [], 0.05)[0] and (found := os.read(self._keyboard, 1 << 16)):
                self._output += found
        return True


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(lq: Lq, file: Path) -> Iterator[Terminal]:
    """Return a terminal in which `lq run` shows a running job."""
    made = Terminal(lq, file)
    try:
        made.until("it/s")
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("keys", "code", "status"),
    [
        ("p\r", 101, "paused"),
        pytest.param("what\rcancel\r", 103, "cancelled", marks=pytest.mark.longest),
        ("\r", 0, "running"),
        pytest.param("^C", 0, "running", marks=pytest.mark.longest),
    ],
)
@pytest.mark.usefixtures("undisturbed")  # compiles the kernels
def test_ctrl_c_asks_what_to_do(lq: Lq, workshop: Workshop, tmp_path: Path, keys: str, code: int, status: str) -> None:
    with terminal(lq, workshop.job_file(tmp_path / "job.yaml", iters=100_000)) as shown:
        shown.type("^C")
        shown.until("[d]etach, [p]ause, [c]ancel?")
        shown.type(keys)
        assert shown.ended() == code
    (job,) = lq.look("status")["jobs"]
    assert job["status"] == status
    if status == "running":
        lq("cancel", "--all")


@pytest.mark.usefixtures("undisturbed")  # compiles the kernels
def test_run_json_prints_only_events(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    answer = lq("run", workshop.job_file(tmp_path / "job.yaml", iters=8), "--json", seconds=200)
    kinds = [json.loads(line)["kind"] for line in answer.out.splitlines()]  # `Lq` checks each line against its schema
    assert (kinds[0], kinds[-1]) == ("started", "ended")
    assert answer.err.splitlines()[-1].endswith(f"{lq.home}/jobs/1-job/report/report.md")
