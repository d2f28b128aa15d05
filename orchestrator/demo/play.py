"""`lq demo`: train a tiny model twice, kill the second trainer halfway, and compare the adapters.

The demo runs the commands that a user would type, in a home of its own, and prints their output.
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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jobs.model.errors import HomeUnusable, LqError, NotAllowed
from jobs.model.events import Event, Kind, ProgressEvent, StartedEvent
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from orchestrator.demo.tiny_model import build_first_job
from orchestrator.formatting.events import line
from workers.events import log as event_log
from workers.files.atomic import write_atomically

ITERATIONS = 240
JOB = """\
# The keys of mlx_lm.lora -c ...
model: model
train: true
data: data
iters: {iterations}
batch_size: 8
num_layers: -1
optimizer: adamw
mask_prompt: true
lr_schedule: {{name: cosine_decay, warmup: 16, arguments: [2e-3, 224]}}
lora_parameters: {{rank: 32, scale: 2.0, dropout: 0.02}}
steps_per_report: 20
steps_per_eval: 48
save_every: 48
test: true
# ... and those of lq
lq:
  name: {name}
  prompts: ["What colour is the sky?", "Name the colour of a lemon."]
"""
_MARK = ".lq-demo"
_TIMEOUT_S = 600.0
_POLL_S = 0.05

Print = Callable[[str], None]  # prints a line


def run_demo(home: Path, echo: Print) -> None:
    """Run the demo in `home`, where it deletes the files of an earlier demo; raise LqError if a step fails."""
    _prepare(home, echo)
    with _http_endpoint() as (port, received):
        services = f'notify:\n  services:\n    - {{url: "json://127.0.0.1:{port}/", name: phone}}\n'
        write_atomically(home / "settings.yaml", f"{services}disk: {{floor: 100MB}}\n")
        try:
            echo("\n2. Train without interruption. This is the expected result.")
            echo("   (On the first run MLX compiles its kernels for the CPU, which takes up to half a minute.)")
            few = (Kind.STARTED, Kind.VALIDATION, Kind.ENDED)
            uninterrupted = _train(home, "uninterrupted", echo, show=few, kill=False)
            echo("\n3. Train the same job again, and kill the trainer halfway.")
            killed = _train(home, "killed", echo, show=frozenset(Kind), kill=True)
            _compare(uninterrupted, killed, echo)
            _show_messages(received, killed, echo)
            _show_status(home, killed, echo)
        finally:
            _lq(home, "worker", "stop", check=False)


def _prepare(home: Path, echo: Print) -> None:
    if home.exists():
        if not (home / _MARK).exists():
            raise NotAllowed(f"{home} exists and was not made by lq demo; name another folder with --home")
        _lq(home, "worker", "stop", check=False)
        shutil.rmtree(home)
    try:
        home.mkdir(parents=True, mode=0o700)
        (home / _MARK).write_text("lq demo may remove this folder\n")
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise HomeUnusable(f"{home}: cannot be created: {why}; name another folder with --home") from error
    echo("1. Make a tiny random Qwen2, its tokenizer and 180 questions with answers. Nothing is downloaded.")
    build_first_job(home)
    for name in ("uninterrupted", "killed"):
        (home / f"{name}.yaml").write_text(JOB.format(iterations=ITERATIONS, name=name))
    echo(f"   {home}")


def _train(home: Path, name: str, echo: Print, *, show: Collection[Kind], kill: bool) -> dict[str, Any]:
    """Submit a job and print its events until it has ended; `kill` kills its trainer halfway, once."""
    echo(f"$ lq submit {name}.yaml")
    job = json.loads(_lq(home, "submit", "--json", str(home / f"{name}.yaml")))["jobs"][0]
    echo(f"job {job['id']} {job['status']}: {job['name']}")
    pid = 0
    for event in _events(home, job, echo, show):
        if isinstance(event.value, StartedEvent) and event.value.pid is not None:
            pid = event.value.pid  # on a busy machine lq status would take as long as the second half
        if kill and isinstance(event.value, ProgressEvent) and event.value.iteration >= ITERATIONS // 2:
            kill = False
            echo(f"$ kill -9 {pid}")
            os.kill(pid, signal.SIGKILL)
    ended = _job(home, job["id"])
    if ended["status"] != "succeeded":
        raise LqError(f"demo job {job['id']} {ended['status']}; see: LQ_HOME={home} lq show {job['id']}")
    return ended


def _compare(uninterrupted: dict[str, Any], killed: dict[str, Any], echo: Print) -> None:
    echo("\n4. Compare the SHA-256 of the two adapters.")
    hashes = []
    for job in (uninterrupted, killed):
        path = JobDir(Path(job["job_dir"])).adapters / "adapters.safetensors"
        hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())
        echo(f"   {hashes[-1]}  {job['name']} ({job['attempts']} attempt{'s' if job['attempts'] > 1 else ''})")
    if killed["attempts"] < 2:
        raise LqError("the second job ended before it could be killed; run the demo again")
    if len(set(hashes)) != 1:
        raise LqError("the adapters differ, so this resume was not exact; please report this")
    echo("   They are identical.")


def _show_messages(received: list[dict[str, Any]], job: dict[str, Any], echo: Print) -> None:
    echo("\n5. Notifications, sent to a local endpoint instead of a phone:")
    title = f"lq: {job['name']} (job {job['id']}) finished"
    deadline = time.monotonic() + 60
    while not any(message.get("title") == title for message in received):
        if time.monotonic() > deadline:
            raise LqError("the notification did not arrive within a minute")
        time.sleep(_POLL_S)
    for message in received:
        pictures = len(message.get("attachments") or [])
        echo(f"   {message['title']}" + (f"  [{pictures} picture]" if pictures else ""))
        if message.get("title") == title:
            for text in str(message["message"]).splitlines():
                echo(f"     {text}")


def _show_status(home: Path, job: dict[str, Any], echo: Print) -> None:
    echo("\n6. Status of the queue:")
    echo("$ lq status")
    echo(_lq(home, "status").rstrip("\n"))
    echo(f"\nReport: {JobDir(Path(job['job_dir'])).report / 'report.md'}")
    echo("Explore:")
    echo(f"  export LQ_HOME={home}")
    echo(f"  lq show {job['id']}")
    echo(f"  lq logs {job['id']}")
    echo("Train your own model: lq submit config.yaml (any config file of mlx_lm.lora -c)")


def _events(home: Path, job: dict[str, Any], echo: Print, show: Collection[Kind]) -> Iterator[Event]:
    """Print and yield the events of a job until it has ended."""
    path = JobDir(Path(job["job_dir"])).events
    offset, deadline, next_check = 0, time.monotonic() + _TIMEOUT_S, 0.0
    while time.monotonic() < deadline:
        events, _, offset = event_log.read(path, offset)
        for event in events:
            text = line(event) if event.kind in show else None
            if text is not None:
                echo(f"   {text}")
            yield event
        if not events and time.monotonic() >= next_check:
            if _job(home, job["id"])["status"] in ENDED:
                return
            next_check = time.monotonic() + 1.0
        time.sleep(_POLL_S)
    raise LqError(f"job {job['id']} did not end within {_TIMEOUT_S:.0f} s; see: LQ_HOME={home} lq show {job['id']}")


def _job(home: Path, job_id: int) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = json.loads(_lq(home, "status", "--json"))["jobs"]
    return next(job for job in jobs if job["id"] == job_id)


def _lq(home: Path, *arguments: str, check: bool = True) -> str:
    """Run an lq command and return its output."""
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
def _http_endpoint() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Serve an endpoint on the loopback interface; yield its port and the messages it receives."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the name http.server gives it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="demo-endpoint", daemon=True)
    thread.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
