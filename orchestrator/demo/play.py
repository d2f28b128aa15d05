"""The demo: the real thing in small. A tiny model is trained twice; the second time its trainer is killed half way.

Everything is typed as a user would type it, into a home of its own, and what is shown is what the commands print.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jobs.model.errors import HomeUnusable, LqError, NotAllowed
from jobs.model.events import Event, Kind
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.formatting.events import line
from workers.events import log as event_log

ITERATIONS = 240
JOB = """\
# What mlx_lm.lora -c takes, as it is ...
model: model
train: true
data: data
iters: {iterations}
batch_size: 4
num_layers: -1
optimizer: adamw
grad_accumulation_steps: 4
lr_schedule: {{name: cosine_decay, warmup: 8, arguments: [5e-3, 60]}}
lora_parameters: {{rank: 8, scale: 2.0, dropout: 0.05}}
steps_per_report: 20
steps_per_eval: 40
save_every: 40
test: true
# ... and what lq adds
lq:
  name: {name}
  prompts: ["What is 2 plus 3?"]
"""
_MARK = ".lq-demo"
_PATIENCE_S = 600.0

Say = Callable[[str], None]


def play(home: Path, say: Say) -> None:
    """Play the demo.

    Args:
        home: $LQ_HOME of the demo; made anew.
        say: prints a line.

    Raises:
        LqError: a step did not do what it promises.
    """
    _prepare(home, say)
    with _inbox() as (port, received):
        _write_settings(home, port)
        try:
            undisturbed = _undisturbed(home, say)
            killed = _killed(home, say)
            _prove(undisturbed, killed, say)
            _show_message(received, killed, say)
            _farewell(home, killed, say)
        finally:
            _lq(home, "worker", "stop", check=False)


def _prepare(home: Path, say: Say) -> None:
    if home.exists():
        if not (home / _MARK).exists():
            raise NotAllowed(f"{home} exists and is not of an earlier demo; name another folder with --home")
        _lq(home, "worker", "stop", check=False)
        shutil.rmtree(home)
    try:
        home.mkdir(parents=True, mode=0o700)
        (home / _MARK).write_text("lq demo may remove this folder\n")
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise HomeUnusable(f"{home}: cannot be made: {why}; name another folder with --home") from error
    say("1. A tiny random Qwen2, its tokenizer and 96 questions with answers, made on the spot; nothing is downloaded.")
    build_model(home / "model")
    build_data(home / "data", valid=60)  # as many as a verdict asks for
    for name in ("undisturbed", "killed"):
        (home / f"{name}.yaml").write_text(JOB.format(iterations=ITERATIONS, name=name))
    say(f"   {home}")


def _undisturbed(home: Path, say: Say) -> dict[str, Any]:
    say("\n2. The job runs through once, undisturbed: this is what the result must be.")
    say("   (On the first run ever MLX compiles its CPU kernels; allow it half a minute.)")
    job = _submit(home, "undisturbed.yaml", say)
    for _ in _events(home, job, say, show={Kind.STARTED, Kind.VALIDATION, Kind.ENDED}):
        pass
    return _ended(home, job)


def _killed(home: Path, say: Say) -> dict[str, Any]:
    say("\n3. The same job again. Half way its trainer is killed with -9.")
    job = _submit(home, "killed.yaml", say)
    alive, pid = True, 0
    for event in _events(home, job, say, show={*Kind}):
        if event.kind is Kind.STARTED:
            pid = int(
                event.data["pid"]
            )  # asking lq status for it would take as long as the other half on a busy machine
        if alive and int(event.data.get("iteration", 0)) >= ITERATIONS // 2:
            alive = False
            say(f"$ kill -9 {pid}")
            os.kill(pid, signal.SIGKILL)
    return _ended(home, job)


def _prove(undisturbed: dict[str, Any], killed: dict[str, Any], say: Say) -> None:
    say("\n4. The proof: SHA-256 of the finished adapters.")
    hashes = []
    for job in (undisturbed, killed):
        path = JobDir(Path(job["job_dir"])).adapters / "adapters.safetensors"
        hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())
        say(f"   {hashes[-1]}  {job['name']} ({job['attempts']} attempt{'s' if job['attempts'] > 1 else ''})")
    if killed["attempts"] < 2:
        raise LqError("the second run was too quick to be killed; run the demo again")
    if len(set(hashes)) != 1:
        raise LqError("the two adapters differ: this resume was not exact; please report it")
    say("   Equal to the last bit.")


def _show_message(received: list[dict[str, Any]], job: dict[str, Any], say: Say) -> None:
    say("\n5. What the phone would have shown (here: a loopback endpoint):")
    title = f"lq: {job['name']} (job {job['id']}) finished"
    _until(lambda: any(message.get("title") == title for message in received), "the notification")
    for message in received:
        pictures = len(message.get("attachments") or [])
        say(f"   {message['title']}" + (f"  [{pictures} picture]" if pictures else ""))
        if message.get("title") == title:
            for text in str(message["message"]).splitlines():
                say(f"     {text}")


def _farewell(home: Path, job: dict[str, Any], say: Say) -> None:
    say("\n6. The night at a glance:")
    say("$ lq status")
    say(_lq(home, "status").rstrip("\n"))
    say(f"\nThe report: {JobDir(Path(job['job_dir'])).report / 'report.md'}")
    say("Look around:")
    say(f"  export LQ_HOME={home}")
    say(f"  lq show {job['id']}")
    say(f"  lq logs {job['id']}")
    say("Then your own: lq submit config.yaml (any file that mlx_lm.lora -c trains from)")


def _submit(home: Path, name: str, say: Say) -> dict[str, Any]:
    say(f"$ lq submit {name}")
    answer = json.loads(_lq(home, "submit", "--json", str(home / name)))
    job: dict[str, Any] = answer["jobs"][0]
    say(f"job {job['id']} {job['status']}: {job['name']}")
    return job


def _events(home: Path, job: dict[str, Any], say: Say, *, show: set[Kind]) -> Iterator[Event]:
    """Show a job's events as they come, and yield them, until the job has ended."""
    path = JobDir(Path(job["job_dir"])).events
    offset, deadline, next_look = 0, time.monotonic() + _PATIENCE_S, 0.0
    while time.monotonic() < deadline:
        events, _, offset = event_log.read(path, offset)
        for event in events:
            text = line(event) if event.kind in show else None
            if text is not None:
                say(f"   {text}")
            yield event
        if not events and time.monotonic() >= next_look:
            if _job(home, job["id"])["status"] in ENDED:
                return
            next_look = time.monotonic() + 1.0
        time.sleep(0.05)
    raise LqError(f"the demo waited {_PATIENCE_S:.0f} s for job {job['id']}; see: LQ_HOME={home} lq show {job['id']}")


def _ended(home: Path, job: dict[str, Any]) -> dict[str, Any]:
    now = _job(home, job["id"])
    if now["status"] != "succeeded":
        raise LqError(f"demo job {job['id']} {now['status']}; see: LQ_HOME={home} lq show {job['id']}")
    return now


def _job(home: Path, job_id: int) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = json.loads(_lq(home, "status", "--json"))["jobs"]
    return next(job for job in jobs if job["id"] == job_id)


def _lq(home: Path, *arguments: str, check: bool = True) -> str:
    """Run a verb as a user would, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "orchestrator.cli", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"LQ_HOME": str(home)},
        cwd=home,
        check=False,
    )
    if check and done.returncode != 0:
        raise LqError(f"lq {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _inbox() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Serve an endpoint on the loopback that keeps what it is sent."""
    received: list[dict[str, Any]] = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the name http.server gives it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Inbox)
    thread = threading.Thread(target=server.serve_forever, name="inbox", daemon=True)
    thread.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _write_settings(home: Path, port: int) -> None:
    settings = home / "settings.yaml"
    services = f'notify:\n  services:\n    - {{url: "json://127.0.0.1:{port}/", name: phone}}\n'
    settings.write_text(f"{services}disk: {{floor: 100MB}}\n")
    settings.chmod(0o600)


def _until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        if time.monotonic() > deadline:
            raise LqError(f"the demo waited a minute for {what}")
        time.sleep(0.05)
