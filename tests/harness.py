"""What the acceptance tests drive: `lq` as a user types it, trainings seen through their files, processes by pid.

Nothing of lq's insides is called to change anything but its command line; reading events.jsonl and the store is how a
test looks.
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
"""Where the console scripts of this environment lie."""

PATIENCE_S = 90.0
"""For what takes a few seconds; a machine that does other things meanwhile may need them."""

FIRST_EVER_S = 400.0
"""MLX compiles its CPU kernels with g++ on the first run of a fresh machine."""

T = TypeVar("T")


def until(seen: Callable[[], T | None], what: str, *, seconds: float = PATIENCE_S, every: float = 0.01) -> T:
    """Look until there is something to see, and return it.

    Args:
        seen: returns what is waited for; None or False while it is not there.
        what: for the failure.
        seconds: how long to look.
        every: seconds between two looks; 0 looks all the time.
    """
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)
    return found


# --- processes ---


def lives(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def kill(pid: int) -> None:
    """Kill a process with -9 and see it gone."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid), f"process {pid} to be gone")


def kill_while(pid: int, condition: Callable[[], bool], what: str) -> None:
    """Kill a process in the midst of something: it is stopped first, and goes on if the moment has passed."""

    def caught() -> bool:
        if not condition():
            return False
        os.kill(pid, signal.SIGSTOP)
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, f"process {pid} to stand still", every=0)
        if condition():
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    until(caught, what, every=0)
    kill(pid)


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """Hold a process still for as long as the block takes."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the living processes that were started with this LQ_HOME."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("LQ_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


# --- the command line ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Lq:
    """The installed `lq`, with a home of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        """Name the home; nothing is made before a verb does.

        Args:
            home: $LQ_HOME.
            environment: more variables for what is typed.
        """
        self.home = home
        self._more = environment

    @property
    def environment(self) -> dict[str, str]:
        """What a command finds: this user's, but for other settings of lq's and a network."""
        own = {"LQ_HOME": str(self.home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
        others = {name: value for name, value in os.environ.items() if not name.startswith("LQ_")}
        for size in ("COLUMNS", "LINES"):  # of the terminal the tests run in, or that pytest-xdist makes up
            others.pop(size, None)
        return others | own | self._more

    def __call__(self, *words: str | float | Path, expect: int = 0, seconds: float = PATIENCE_S) -> Answer:
        """Type `lq WORDS`, and insist on the exit code."""
        return self.command("lq", *words, expect=expect, seconds=seconds)

    def command(self, name: str, *words: str | float | Path, expect: int = 0, seconds: float = PATIENCE_S) -> Answer:
        """Run a console script of this environment as this user would; JSON must be as it is documented."""
        done = subprocess.run(
            [BESIDE_PYTHON / name, *map(str, words)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            timeout=seconds,
            check=False,
        )
        said = f"{name} {' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == expect, said
        if "--json" in words and done.stdout:
            require_printed(words, done.stdout)
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

    def json(self, *words: str | float | Path) -> dict[str, Any]:
        """Type a verb with --json."""
        content: dict[str, Any] = json.loads(self(*words, "--json").out)
        assert content["schema"] == 1
        return content

    def look(self, *words: str | float | Path) -> dict[str, Any]:
        """Type a reading verb with --json, in this process: who looks often takes little from a trainer."""
        return InProcess(self.home).json(*words)

    def settings(self, **settings: Any) -> None:
        """Write settings.yaml."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        path = self.home / "settings.yaml"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(settings))

    def submit(self, file: Path) -> Training:
        """Queue a job file; a worker starts with it."""
        (job,) = self.json("submit", file)["jobs"]
        assert job["status"] == "queued"
        return Training(self, job["id"], JobDir(Path(job["job_dir"])))

    def start_worker(self) -> int:
        """Start a worker; return its pid."""
        self("worker", "--detach")
        return self.worker()

    def worker(self) -> int:
        """Return the pid of the worker that runs."""
        return int(self.look("worker", "status")["worker"]["pid"])

    def leave(self) -> None:
        """Send everything home; a process that does not go is killed, and is a failure."""
        with contextlib.suppress(AssertionError):  # there is none, or it does not go
            InProcess(self.home)("worker", "stop", "--timeout", 60)
        survivors = processes_of(self.home)
        told = [f"{process.pid}: {' '.join(process.cmdline())}" for process in survivors]
        for process in survivors:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert not survivors, f"still there after the test: {told}"


class InProcess(Lq):
    """`lq` typed within the process of the test, which need not wait for Python to start and to import.

    What is typed and what is printed is the same; for processes that live on, signals and two terminals at once there
    is `Lq`.
    """

    def command(self, name: str, *words: str | float | Path, expect: int = 0, seconds: float = PATIENCE_S) -> Answer:
        """Type a line, and insist on the exit code; `lq` alone is here."""
        assert name == "lq"
        out, err = _Paper(), _Paper()
        with (
            mock.patch.dict(os.environ, self.environment, clear=True),
            Path(os.devnull).open() as nothing,
            mock.patch.object(sys, "stdin", nothing),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run([str(word) for word in words])
        said = Answer(code=code, out=out.read_back(), err=err.read_back())
        assert code == expect, f"lq {' '.join(map(str, words))}: exit code {code}\n{said.out}{said.err}"
        if "--json" in words and said.out:
            require_printed(words, said.out)
        return said


class _Paper(io.TextIOWrapper):
    """Where a command prints to: text and bytes, as to a pipe."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def read_back(self) -> str:
        self.seek(0)
        return self.read()


class Training:
    """A submitted job, as its user can see it."""

    def __init__(self, lq: Lq, job_id: int, folder: JobDir) -> None:
        """Use `Lq.submit`."""
        self.lq, self.id, self.folder = lq, job_id, folder
        self._events: list[Event] = []
        self._offset = 0

    def events(self, *kinds: Kind) -> list[Event]:
        """Return what the trainer has said so far: every event, or those of some kinds."""
        while (found := event_log.read(self.folder.events, self._offset)).offset > self._offset:
            assert not found.unreadable
            self._events += found.events
            self._offset = found.offset
        return [event for event in self._events if event.kind in kinds or not kinds]

    def until(
        self, kind: Kind, where: Callable[[Event], bool] = lambda _: True, *, seconds: float = PATIENCE_S
    ) -> Event:
        """Wait for an event."""

        def told() -> Event | None:
            return next((event for event in self.events(kind) if where(event)), None)

        return until(told, f"an event `{kind}` of job {self.id}", seconds=seconds)

    def trained(self, iteration: int) -> Event:
        """Wait until a checkpoint at this iteration or later stands, and some iterations after it are told."""
        saved = self.until(Kind.CHECKPOINT, lambda event: event.data["iteration"] >= iteration)
        reached = int(saved.data["iteration"])
        return self.until(Kind.PROGRESS, lambda event: event.data["iteration"] > reached)

    def starting(self, attempt: int) -> int:
        """Wait for the pid of an attempt's trainer, as soon as its worker has written it down: it still imports.

        `lq status` would take as long as that.
        """

        def known() -> int | None:
            with Store.open(self.lq.home / "lq.db") as store:
                found = [one.child for one in store.attempts.of(self.id) if one.number == attempt]
            return found[0].pid if found and found[0] is not None else None

        return until(known, f"the pid of attempt {attempt}")

    def trainer(self) -> int:
        """Return the pid of the trainer that started last."""
        return int(self.events(Kind.STARTED)[-1].data["pid"])

    def wait(self, expect: int = 0, *, seconds: float = PATIENCE_S) -> None:
        """Wait with `lq wait` for the job to end, and insist on the exit code."""
        self.lq("wait", self.id, "--timeout", seconds, expect=expect, seconds=seconds + 10)

    def job(self) -> dict[str, Any]:
        """Return the job as `lq status --json` tells of it."""
        return next(job for job in self.lq.look("status", "--all")["jobs"] if job["id"] == self.id)

    def until_status(self, status: str) -> dict[str, Any]:
        """Wait for a status."""

        def stands() -> dict[str, Any] | None:
            job = self.job()
            return job if job["status"] == status else None

        return until(stands, f"job {self.id} to be {status}", every=0.1)

    def facts(self) -> dict[str, Any]:
        """Return everything `lq show --json` tells."""
        return self.lq.look("show", self.id)

    def adapter_sha256(self, name: str) -> str:
        """Return the SHA-256 of a finished adapter file."""
        return hashlib.sha256((self.folder.adapters / name).read_bytes()).hexdigest()


def power_cut(training: Training) -> None:
    """Leave what a power cut leaves: nobody lives, and the store names processes of another boot."""
    os.kill(training.trainer(), signal.SIGSTOP)  # so that it is not done before it dies
    kill(training.lq.worker())
    kill(training.trainer())
    with contextlib.closing(sqlite3.connect(training.lq.home / "lq.db")) as store, store:
        store.execute("UPDATE jobs SET owner_boot_id = 'before' WHERE id = ?", [training.id])
        changed = store.execute(
            "UPDATE attempts SET child_boot_id = 'before' WHERE job_id = ? AND ended_at IS NULL", [training.id]
        ).rowcount
    assert changed == 1


# --- what a run comes to ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Everything about a finished run that an interruption must not change."""

    best: str  # sha256 of adapters.safetensors
    final: str  # sha256 of final_adapters.safetensors
    losses: dict[int, float]  # of every iteration
    reports: list[tuple[int, float]]  # (iteration, train loss) as the store has them
    validations: list[tuple[int, float]]  # (iteration, loss) as `lq show` has them
    tokens: int  # trained


def result(training: Training) -> Result:
    """Return what a run that succeeded came to; that nothing was told twice is checked on the way."""
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
    """Return the loss of each iteration, of the last attempt that trained it.

    Args:
        progress: every progress event of a job, in order.
    """
    found: dict[int, float] = {}
    reached: dict[int, int] = {}  # by attempt
    for event in progress:
        told = list(_told(event))
        if not told:
            continue
        first, last = told[0][0], told[-1][0]
        assert first == reached.get(event.attempt, first - 1) + 1, "an iteration was told twice or left out"
        reached[event.attempt] = last
        found |= dict(told)
    assert sorted(found) == list(range(1, max(found) + 1))
    return found


def _told(event: Event) -> Iterator[tuple[int, float]]:
    values = event.data["losses"]
    return zip(range(event.data["iteration"] - len(values) + 1, event.data["iteration"] + 1), values, strict=True)


# --- what is trained ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workshop:
    """A tiny model and its data, from which job files are made."""

    model: Path
    data: Path

    @classmethod
    def built(cls, folder: Path) -> Workshop:
        """Build model and data in a folder."""
        shop = cls(model=folder / "model", data=folder / "data")
        build_model(shop.model)
        build_data(shop.data, train=50, valid=8, test=0)
        return shop

    def job_file(self, path: Path, **changes: Any) -> Path:
        """Write a job file: everything that makes an exact resume hard, unless `changes` say otherwise.

        Args:
            path: the file.
            changes: keys of the job file to replace.
        """
        usual = {
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
        path.write_text(yaml.safe_dump(usual | changes))
        return path
