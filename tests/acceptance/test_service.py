"""After a reboot the queue goes on by itself: started as its file says, and by a real systemd where one can run."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from jobs.model.events import Kind
from orchestrator.core.paths import Home
from orchestrator.worker import control
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import BESIDE_PYTHON, Lq, Workshop, kill, lives, power_cut, result, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]

GOES_ON_S = 60.0
"""From the login to the next trained iteration, at most."""


def as_the_unit_says(text: str) -> tuple[list[str], dict[str, str], str]:
    """Return command, environment and folder, read as systemd reads them."""
    unit = configparser.RawConfigParser()
    unit.read_string(text)
    service = unit["Service"]
    words = (word.replace("%%", "%") for word in shlex.split(service["Environment"]))
    command = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(service["ExecStart"])]
    return command, dict(word.split("=", 1) for word in words), service["WorkingDirectory"]


@pytest.mark.longest
def test_jobs_go_on_soon_after_a_reboot(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    first = lq.submit(workshop.job_file(tmp_path / "first.yaml"))
    second = lq.submit(workshop.job_file(tmp_path / "second.yaml", iters=8))
    first.trained(30)
    command, environment, folder = as_the_unit_says(lq("service", "print", "--kind", "systemd").out)
    power_cut(first)
    begun = time.monotonic()
    worker = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)
    try:
        first.until(Kind.PROGRESS, lambda event: event.attempt == 2 and event.data["losses"])
        assert time.monotonic() - begun < GOES_ON_S
        first.wait()
        second.wait()
        assert result(first) == undisturbed.result
    finally:
        worker.terminate()
        assert worker.wait(60) == 0


def test_standby_replaces_a_killed_worker(lq: Lq) -> None:
    first = lq.start_worker()
    command, environment, folder = as_the_unit_says(lq("service", "print", "--kind", "systemd").out)
    worker = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)
    try:
        until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_SLEEPING, "it to stand by")
        assert lq.worker() == first
        kill(first)
        until(lambda: (control.running(Home(lq.home)) or {}).get("pid") == worker.pid, "the successor")
    finally:
        worker.terminate()
        assert worker.wait(60) == 0


# --- a real systemd --user, in a mount namespace of its own ---

SESSION = r"""
mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system || exit 99
/lib/systemd/systemd --user > "$HOME/systemd.log" 2>&1 &
manager=$!
for try in $(seq 100); do systemctl --user is-system-running > /dev/null 2>&1 && break; sleep 0.1; done
systemctl --user show-environment > /dev/null || { kill $manager; exit 99; }
set -e
lq service install; lq service status --json > "$HOME/installed.json"
lq submit "$JOB" > /dev/null
lq wait 1 --timeout 120 > /dev/null
pid=$(systemctl --user show lq.service --property=MainPID --value)
kill -9 $pid
for try in $(seq 300); do lq worker status > /dev/null 2>&1 && break; sleep 0.1; done
lq worker status
lq service uninstall
lq service status
kill $manager
wait $manager || true
"""


@pytest.mark.longest
@pytest.mark.skipif(
    os.getuid() != 0 or not Path("/lib/systemd/systemd").exists() or shutil.which("unshare") is None,
    reason="needs root, systemd and unshare for a systemd --user of its own",
)
def test_systemd_starts_restarts_and_stops(
    lq: Lq, workshop: Workshop, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    file = workshop.job_file(tmp_path / "night.yaml", iters=8)
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {
        "HOME": str(tmp_path),
        "LQ_HOME": str(lq.home),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": f"{BESIDE_PYTHON}:{os.environ['PATH']}",
        "JOB": str(file),
    }
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", SESSION],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if done.returncode == 99:
        pytest.skip(f"no systemd --user can run here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    wrote, runs, again, stopping, removed, state = done.stdout.splitlines()
    unit = tmp_path / ".config/systemd/user/lq.service"
    assert wrote == f"wrote {unit}"
    assert runs.startswith("the service's worker runs (pid ")
    assert again.startswith("worker runs since")
    assert runs.split("pid ")[1].split(")")[0] != again.split("pid ")[1]
    assert stopping.startswith("stopping worker ")
    assert removed.startswith(f"removed {unit}")
    assert state.startswith("service: not installed")
    assert not unit.exists()
    assert lq.look("show", 1)["job"]["status"] == "succeeded"
    assert not lives(int(again.split("pid ")[1]))
