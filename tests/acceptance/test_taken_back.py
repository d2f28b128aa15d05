"""A run taken back by its user, with a trainer that really trains; and Ctrl-C at the terminal of `lq run`."""

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


def stopped_half_way(lq: Lq, file: Path) -> Training:
    """Return a job that was cancelled after some iterations, while its trainer stood still."""
    training = lq.submit(file)
    training.trained(50)
    os.kill(training.trainer(), signal.SIGSTOP)  # who asks it wakes it
    lq("cancel", training.id)
    return training


@pytest.mark.longest
def test_a_run_taken_back_to_a_checkpoint_ends_as_if_nothing_had_happened(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = stopped_half_way(lq, workshop.job_file(tmp_path / "job.yaml", lq={"keep": {"last": 20}}))
    assert "kept are 12, 20, 32, 40" in lq("retry", training.id, "--from", 33, expect=5).err
    assert f"job {training.id} queued; goes on from iteration 32" in lq("retry", training.id, "--from", 32).out
    training.wait()
    assert result(training) == undisturbed.result
    second = training.facts()["attempts"][1]
    assert (second["first_iteration"], second["quality"]) == (32, "exact")
    assert "again from iteration 32" in (training.folder.report / "report.md").read_text()
    lq("verify", training.id)


@pytest.mark.longest
def test_a_run_begun_afresh_ends_as_if_nothing_had_happened_however_often_it_is_killed(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = stopped_half_way(lq, workshop.job_file(tmp_path / "job.yaml"))
    lq("worker", "stop")
    lq.settings(autostart=False)
    assert f"job {training.id} queued; begins again at iteration 0" in lq("retry", training.id, "--fresh").out
    worker = lq.start_worker()
    kill(training.starting(2))  # before it has a checkpoint of its own: the old ones still lie there
    kill(worker)
    lq.start_worker()
    again = training.until(Kind.STARTED, lambda event: event.attempt > 1)
    assert (again.data["iteration"], again.data["resume_quality"]) == (0, "fresh")
    training.wait()
    assert result(training) == undisturbed.result
    lq("verify", training.id)


class Terminal:
    """`lq run` in a terminal, as one sees it."""

    def __init__(self, lq: Lq, file: Path) -> None:
        """Type `lq run FILE`."""
        self._keyboard, screen = os.openpty()
        self._seen = b""
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
        """Press keys; `^C` is the interrupt."""
        os.write(self._keyboard, keys.replace("^C", "\x03").encode())

    def until(self, text: str) -> None:
        """Look at the screen until something stands there."""
        until(lambda: self._look() and text in self._seen.decode(errors="replace"), f"{text!r} on the screen")

    def ended(self) -> int:
        """Return the exit code, as soon as it has ended."""
        until(lambda: self._look() and self.process.poll() is not None, "lq run to end")
        return self.process.returncode

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._keyboard)

    def _look(self) -> bool:
        with suppress(OSError):  # how Linux says that the other end is closed
            while select.select([self._keyboard], [], [], 0.05)[0] and (found := os.read(self._keyboard, 1 << 16)):
                self._seen += found
        return True


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(lq: Lq, file: Path) -> Iterator[Terminal]:
    """Give a terminal in which a job is followed, and trains."""
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
@pytest.mark.usefixtures("undisturbed")  # so that the kernels are there
def test_ctrl_c_asks_and_never_stops_a_training_by_itself(
    lq: Lq, workshop: Workshop, tmp_path: Path, keys: str, code: int, status: str
) -> None:
    with terminal(lq, workshop.job_file(tmp_path / "job.yaml", iters=100_000)) as shown:
        shown.type("^C")
        shown.until("[d]etach, [p]ause, [c]ancel?")
        shown.type(keys)
        assert shown.ended() == code
    (job,) = lq.look("status")["jobs"]
    assert job["status"] == status
    if status == "running":
        lq("cancel", "--all")


@pytest.mark.usefixtures("undisturbed")  # so that the kernels are there
def test_a_run_for_machines_prints_events_and_nothing_else(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    said = lq("run", workshop.job_file(tmp_path / "job.yaml", iters=8), "--json", seconds=200)
    told = [json.loads(line)["kind"] for line in said.out.splitlines()]  # `Lq` holds each against its schema
    assert (told[0], told[-1]) == ("started", "ended")
    assert said.err.splitlines()[-2:] == [
        "job 1 succeeded: trained to its last iteration",
        f"report: {lq.home / 'jobs' / '1-job' / 'report' / 'report.md'}",
    ]
