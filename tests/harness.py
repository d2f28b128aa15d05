"""What the acceptance tests use: the command line of `lq`, jobs read from their files, and processes by pid.

The tests change jobs through the command line only, and read events.jsonl and the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
import yaml

from jobs.model.events import Event, Kind
from jobs.model.job_dir import JobDir
from orchestrator.cli.verbs import run
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.store.store import Store
from tests.documented import require_printed
from workers.events import log as event_log

BESIDE_PYTHON = Path(sys.executable).parent
"""Folder of the console scripts of this environment."""

PATIENCE_S = 90.0
"""Seconds to wait for what usually takes a few seconds; a busy machine can need more."""

FIRST_EVER_S = 400.0
"""Seconds for the first run on a machine, on which MLX compiles its CPU kernels with g++."""

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, *, seconds: float = PATIENCE_S, every: float = 0.01) -> T:
    """Poll until a condition holds, and return its value.

    Args:
        condition: returns None or False until it holds.
        what: description for the error.
        seconds: time limit.
        every: seconds between two polls.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)
    return value


# --- processes ---


def lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def kill(pid: int) -> None:
    """Kill a process with -9 and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid), f"process {pid} to be gone")


def kill_while(pid: int, condition: Callable[[], bool], what: str) -> None:
    """Kill a process while a condition holds; stop it first, and let it continue if the condition has ended."""

    def stopped_in_time() -> bool:
        if not condition():
            return False
        os.kill(pid, signal.SIGSTOP)
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, f"process {pid} to stop", every=0)
        if condition():
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    until(stopped_in_time, what, every=0)
    kill(pid)


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process within a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the live processes that were started with this LQ_HOME."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("LQ_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


# --- the command line ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str


class Lq:
    """The installed `lq`, with a home of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        """Use a home, which the first command creates.

        Args:
            home: $LQ_HOME.
            environment: more environment variables.
        """
        self.home = home
        self._more = environment

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command: that of this process, without settings of lq and without a network."""
        own = {"LQ_HOME": str(self.home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
        others = {name: value for name, value in os.environ.items() if not name.startswith("LQ_")}
        for size in ("COLUMNS", "LINES"):  # of the terminal of the tests, or set by pytest-xdist
            others.pop(size, None)
        return others | own | self._more

    def __call__(self, *words: str | float | Path, expect: int = 0, seconds: float = PATIENCE_S) -> Answer:
        """Run `lq WORDS` and assert the exit code."""
        return self.command("lq", *words, expect=expect, seconds=seconds)

    def command(self, name: str, *words: str | float | Path, expect: int = 0, seconds: float = PATIENCE_S) -> Answer:
        """Run a console script of this environment; JSON must match its schema."""
        done = subprocess.run(
            [BESIDE_PYTHON / name, *map(str, words)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            timeout=seconds,
            check=False,
        )
        summary = f"{name} {' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == expect, summary
        if "--json" in words and done.stdout:
            require_printed(words, done.stdout)
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

    def json(self, *words: str | float | Path) -> dict[str, Any]:
        """Run a verb with --json and return its result."""
        content: dict[str, Any] = json.loads(self(*words, "--json").out)
        assert content["schema"] == 1
        return content

    def look(self, *words: str | float | Path) -> dict[str, Any]:
        """Run a reading verb with --json in this process, so that polling does not slow the trainer."""
        return InProcess(self.home).json(*words)

    def settings(self, **settings: Any) -> None:
        """Write settings.yaml."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        path = self.home / "settings.yaml"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(settings))

    def submit(self, file: Path) -> Training:
        """Queue a job file, which also starts a worker."""
        (job,) = self.json("submit", file)["jobs"]
        assert job["status"] == "queued"
        return Training(self, job["id"], JobDir(Path(job["job_dir"])))

    def start_worker(self) -> int:
        """Start a worker and return its pid."""
        self("worker", "--detach")
        return self.worker()

    def worker(self) -> int:
        """Return the pid of the running worker."""
        return int(self.look("worker", "status")["worker"]["pid"])

    def leave(self) -> None:
        """Stop the worker and its trainers. A process that does not stop is killed, and the test fails."""
        with contextlib.suppress(AssertionError):  # no worker runs, or it does not stop
            InProcess(self.home)("worker", "stop", "--timeout", 60)
        survivors = processes_of(self.home)
        listed = [f"{process.pid}: {' '.join(process.cmdline())}" for process in survivors]
        for process in survivors:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert not survivors, f"processes still run after the test: {listed}"


class InProcess(Lq):
    """`lq` run within the process of the test, which saves the time to start Python and to import.

    Use `Lq` for processes that outlive the command, for signals, and for concurrent commands.
    """

    def command(self, name: str, *words: str | float | Path, expect: int = 0, seconds: float = PATIENCE_S) -> Answer:
        """Run a command line of `lq` and assert the exit code."""
        assert name == "lq"
        out, err = _Capture(), _Capture()
        with (
            mock.patch.dict(os.environ, self.environment, clear=True),
            Path(os.devnull).open() as nothing,
            mock.patch.object(sys, "stdin", nothing),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run([str(word) for word in words])
        answer = Answer(code=code, out=out.read_back(), err=err.read_back())
        assert code == expect, f"lq {' '.join(map(str, words))}: exit code {code}\n{answer.out}{answer.err}"
        if "--json" in words and answer.out:
            require_printed(words, answer.out)
        return answer


class _Capture(io.TextIOWrapper):
    """A stream that captures text and bytes, like a pipe."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def read_back(self) -> str:
        self.seek(0)
        return self.read()


class Training:
    """A submitted job, seen through its files and the command line."""

    def __init__(self, lq: Lq, job_id: int, folder: JobDir) -> None:
        """Use `Lq.submit`."""
        self.lq, self.id, self.folder = lq, job_id, folder
        self._events: list[Event] = []
        self._offset = 0

    def events(self, *kinds: Kind) -> list[Event]:
        """Return the events so far: all of them, or those of some kinds."""
        while (batch := event_log.read(self.folder.events, self._offset)).offset > self._offset:
            assert not batch.unreadable
            self._events += batch.events
            self._offset = batch.offset
        return [event for event in self._events if event.kind in kinds or not kinds]

    def until(
        self, kind: Kind, matches: Callable[[Event], bool] = lambda _: True, *, seconds: float = PATIENCE_S
    ) -> Event:
        """Wait for an event."""

        def event() -> Event | None:
            return next((one for one in self.events(kind) if matches(one)), None)

        return until(event, f"an event `{kind}` of job {self.id}", seconds=seconds)

    def trained(self, iteration: int) -> Event:
        """Wait for a checkpoint at this iteration or later, and for a progress event after it."""
        saved = self.until(Kind.CHECKPOINT, lambda event: event.data["iteration"] >= iteration)
        reached = int(saved.data["iteration"])
        return self.until(Kind.PROGRESS, lambda event: event.data["iteration"] > reached)

    def starting(self, attempt: int) -> int:
        """Wait for the pid of an attempt's trainer, and return it while the trainer still imports."""

        def known() -> int | None:
            with Store.open(self.lq.home / "lq.db") as store:
                children = [one.child for one in store.attempts.of(self.id) if one.number == attempt]
            return children[0].pid if children and children[0] is not None else None

        return until(known, f"the pid of attempt {attempt}")

    def trainer(self) -> int:
        """Return the pid of the newest trainer."""
        return int(self.events(Kind.STARTED)[-1].data["pid"])

    def wait(self, expect: int = 0, *, seconds: float = PATIENCE_S) -> None:
        """Wait with `lq wait` until the job has ended, and assert the exit code."""
        self.lq("wait", self.id, "--timeout", seconds, expect=expect, seconds=seconds + 10)

    def job(self) -> dict[str, Any]:
        """Return the job from `lq status --json`."""
        return next(job for job in self.lq.look("status", "--all")["jobs"] if job["id"] == self.id)

    def until_status(self, status: str) -> dict[str, Any]:
        """Wait for a status."""

        def job_with_status() -> dict[str, Any] | None:
            job = self.job()
            return job if job["status"] == status else None

        return until(job_with_status, f"job {self.id} to be {status}", every=0.1)

    def facts(self) -> dict[str, Any]:
        """Return the result of `lq show --json`."""
        return self.lq.look("show", self.id)

    def adapter_sha256(self, name: str) -> str:
        """Return the SHA-256 of a finished adapter file."""
        return hashlib.sha256((self.folder.adapters / name).read_bytes()).hexdigest()


def power_cut(training: Training) -> None:
    """Simulate a power cut: no process runs, and the store names processes of another boot."""
    os.kill(training.trainer(), signal.SIGSTOP)  # it must not end before it is killed
    kill(training.lq.worker())
    kill(training.trainer())
    with contextlib.closing(sqlite3.connect(training.lq.home / "lq.db")) as store, store:
        store.execute("UPDATE jobs SET owner_boot_id = 'before' WHERE id = ?", [training.id])
        changed = store.execute(
            "UPDATE attempts SET child_boot_id = 'before' WHERE job_id = ? AND ended_at IS NULL", [training.id]
        ).rowcount
    assert changed == 1


# --- the result of a run ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What an interruption must not change."""

    best: str  # sha256 of adapters.safetensors
    final: str  # sha256 of final_adapters.safetensors
    losses: dict[int, float]  # of every iteration
    reports: list[tuple[int, float]]  # (iteration, training loss) from the store
    validations: list[tuple[int, float]]  # (iteration, loss) from `lq show`
    tokens: int  # tokens trained


def result(training: Training) -> Result:
    """Return the result of a succeeded run, and assert that each iteration was reported once."""
    facts = training.facts()
    assert facts["job"]["status"] == "succeeded"
    with Store.open(training.lq.home / "lq.db") as store:
        points = store.metrics.points(training.id)
    return Result(
        best=training.adapter_sha256("adapters.safetensors"),
        final=training.adapter_sha256("final_adapters.safetensors"),
        losses=losses(training.events(Kind.PROGRESS)),
        reports=[(point.iteration, point.train_loss) for point in points],
        validations=[(one["iteration"], one["loss"]) for one in facts["validations"]],
        tokens=points[-1].tokens or 0,
    )


def losses(progress: list[Event]) -> dict[int, float]:
    """Return the loss of each iteration from the last attempt that trained it.

    Args:
        progress: every progress event of a job, in order.
    """
    by_iteration: dict[int, float] = {}
    reached: dict[int, int] = {}  # by attempt
    for event in progress:
        reported = list(_losses_of(event))
        if not reported:
            continue
        first, last = reported[0][0], reported[-1][0]
        assert first == reached.get(event.attempt, first - 1) + 1, "an iteration was reported twice or skipped"
        reached[event.attempt] = last
        by_iteration |= dict(reported)
    assert sorted(by_iteration) == list(range(1, max(by_iteration) + 1))
    return by_iteration


def _losses_of(event: Event) -> Iterator[tuple[int, float]]:
    values = event.data["losses"]
    return zip(range(event.data["iteration"] - len(values) + 1, event.data["iteration"] + 1), values, strict=True)


# --- model and data ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workshop:
    """A tiny model and its data, for job files."""

    model: Path
    data: Path

    @classmethod
    def built(cls, folder: Path) -> Workshop:
        """Create model and data in a folder."""
        shop = cls(model=folder / "model", data=folder / "data")
        build_model(shop.model)
        build_data(shop.data, train=50, valid=8, test=0)
        return shop

    def job_file(self, path: Path, **changes: Any) -> Path:
        """Write a job file with everything that makes an exact resume hard, and with changes.

        Args:
            path: the file.
            changes: keys of the job file to replace.
        """
        settings = {
            "model": str(self.model),
            "train": True,
            "data": str(self.data),
            "iters": 120,
            "batch_size": 2,
            "num_layers": -1,
            "optimizer": "adamw",
            "grad_accumulation_steps": 4,
            "lr_schedule": {"name": "cosine_decay", "warmup": 4, "arguments": [4e-2, 30]},
            "lora_parameters": {"rank": 8, "scale": 2.0, "dropout": 0.05},
            "steps_per_report": 10,
            "steps_per_eval": 40,
            "save_every": 10,
        }
        path.write_text(yaml.safe_dump(settings | changes))
        return path
