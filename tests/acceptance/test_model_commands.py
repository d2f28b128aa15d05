"""`lq chat`, `generate`, `test` and `fuse` on a trained job, and the device that they share with jobs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.model.events import Kind
from orchestrator.core.paths import Home
from orchestrator.demo.tiny_model import build_data
from orchestrator.scheduling import device_lock
from tests.harness import BESIDE_PYTHON, FIRST_EVER_S, Lq, Training, Workshop, kill, lives, processes_of, until

pytestmark = pytest.mark.timeout(400, func_only=True)

PROMPT = "What is 2 plus 3?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, workshop: Workshop) -> Iterator[Training]:
    """A trained and tested job, in a home with a running worker."""
    place = tmp_path_factory.mktemp("after")
    build_data(place / "data", train=50, valid=8, test=12)
    lq = Lq(place / "home")
    try:
        file = workshop.job_file(place / "small.yaml", data=str(place / "data"), iters=40, steps_per_eval=20, test=True)
        training = lq.submit(file)
        training.wait(seconds=FIRST_EVER_S)
        yield training
    finally:
        lq.leave()


@contextlib.contextmanager
def long_job(lq: Lq, workshop: Workshop, folder: Path) -> Iterator[Training]:
    """Yield a job that trains until the block ends."""
    training = lq.submit(workshop.job_file(folder / "long.yaml", iters=100_000))
    try:
        training.until(Kind.PHASE, lambda event: event.data["phase"] == "train")
        yield training
    finally:
        lq("cancel", training.id)


class Terminal:
    """A command of `lq` in its own terminal."""

    def __init__(self, lq: Lq, *words: str | int) -> None:
        """Start the command with these words after `lq`."""
        self._master, slave = pty.openpty()
        self.output = ""
        self.popen = subprocess.Popen(
            [BESIDE_PYTHON / "lq", *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | {"LQ_HOME": str(lq.home), "HF_HUB_OFFLINE": "1", "COLUMNS": "80", "NO_COLOR": "1"},
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self._master, False)

    def until(self, text: str) -> str:
        """Wait for a text in the output, and return the output before it since the last call."""

        def printed() -> bool:
            self._listen()
            return text in self.output

        until(printed, f"{text!r} in a terminal")
        before, _, self.output = self.output.partition(text)
        return before

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._master, f"{text}\n".encode())

    def end(self, expect: int) -> None:
        """Wait for the end, and check the exit code."""

        def gone() -> bool:
            self._listen()
            return self.popen.poll() is not None

        until(gone, "the verb to end")
        self._listen()
        assert self.popen.returncode == expect, self.output

    def close(self) -> None:
        """Kill the command if it runs, and close the terminal."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        os.close(self._master)

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while raw := os.read(self._master, 1 << 16):
                self.output += raw.decode(errors="replace")


@contextlib.contextmanager
def terminal(lq: Lq, *words: str | int) -> Iterator[Terminal]:
    """Yield a command in a terminal."""
    opened = Terminal(lq, *words)
    try:
        yield opened
    finally:
        opened.close()


def user(lq: Lq) -> device_lock.DeviceUser | None:
    return device_lock.user(Home(lq.home))


# --- what comes out ---


@pytest.mark.slow
def test_lq_test_reproduces_the_run(trained: Training) -> None:
    found = trained.lq.json("test", trained.id)
    (same,) = (one for one in found["by_the_run"] if (one["kind"], one["iteration"]) == ("test", found["iteration"]))
    keys = ("loss", "standard_error", "loss_low", "loss_high", "rows")
    assert [found[key] for key in keys] == [same[key] for key in keys]
    assert found["rows"] == 12
    assert found["perplexity_low"] < found["perplexity"] < found["perplexity_high"]
    kept = trained.lq.json("report", trained.id)["evaluations"][-1]
    assert [kept[key] for key in ("iteration", "loss", "low", "high", "rows", "data")] == [
        found[key] for key in ("iteration", "loss", "loss_low", "loss_high", "rows", "data")
    ]
    assert kept["sha256"] == hashlib.sha256(Path(found["data"]).read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.longest
def test_lq_test_takes_weights_and_data(trained: Training, tmp_path: Path) -> None:
    lq = trained.lq
    best, last, before = (lq.json("test", trained.id, "--checkpoint", one) for one in ("best", "last", "0"))
    assert before["loss"] == next(one["loss"] for one in before["by_the_run"] if one["iteration"] == 0)
    assert before["loss"] > max(best["loss"], last["loss"])
    kept = lq.json("test", trained.id, "--checkpoint", last["iteration"])
    assert (kept["weights"], kept["loss"]) == ("checkpoint", last["loss"])
    build_data(tmp_path / "other", train=0, valid=0, test=7, seed=5)
    other = lq.json("test", trained.id, "--data", tmp_path / "other")
    assert other["rows"] == 7
    lines = lq("test", trained.id).out.splitlines()
    assert re.match(r"loss\s+\d\.\d{4}\s+\(95 % .*\d\.\d{4} to \d\.\d{4}\)", lines[2])
    assert max(map(len, [lines[0], *lines[2:]])) <= 80
    assert "has no weights of iteration 7" in lq("test", trained.id, "--checkpoint", 7, expect=5).err
    assert "test.jsonl does not exist" in lq("test", trained.id, "--data", tmp_path, expect=2).err
    (tmp_path / "test.jsonl").write_text('{"nothing": 1}\n')
    err = lq("test", trained.id, "--data", tmp_path, expect=2).err
    assert err.count("\n") == 1
    assert f"the data {tmp_path} cannot be used" in err


@pytest.mark.slow
def test_generate_prints_only_the_answer(trained: Training) -> None:
    words = ("generate", trained.id, "-p", PROMPT, "--max-tokens", 12)
    answer = trained.lq.json(*words)
    assert (answer["prompt"], answer["tokens"]) == (PROMPT, 12)
    assert answer["tok_s"] > 0
    assert trained.lq(*words).out == answer["answer"] + "\n"


@pytest.mark.slow
@pytest.mark.longest
def test_generate_takes_pipe_and_options(trained: Training) -> None:
    lq = trained.lq
    tuned, base = (lq.json("generate", trained.id, "-p", PROMPT, *more)["answer"] for more in ((), ("--base",)))
    assert tuned != base
    piped = subprocess.run(
        [BESIDE_PYTHON / "lq", "generate", str(trained.id), "--", "--verbose", "false"],
        input=PROMPT.encode(),
        env=os.environ | {"LQ_HOME": str(lq.home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=True,
    )
    assert piped.stdout.decode() == tuned + "\n"
    err = lq("generate", trained.id, "-p", PROMPT, "--", "--tempp", "1", expect=2).err
    assert err.startswith("lq: mlx_lm.generate: ")
    assert "--tempp 1" in err
    assert err.endswith("mlx_lm.generate --help\n")
    assert err.count("\n") == 1
    err = lq("generate", trained.id, "-p", PROMPT, "--", "--prompt-cache-file", "/nowhere.safetensors", expect=1).err
    assert err.startswith("lq: mlx_lm.generate failed: ")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.longest
def test_fused_model_answers_the_same(trained: Training, tmp_path: Path) -> None:
    lq = trained.lq
    asked = lq.json("generate", trained.id, "-p", PROMPT)["answer"]
    fused = lq.json("fuse", trained.id)
    path = Path(fused["path"])
    assert path == trained.folder.path / "fused"
    assert fused["bytes"] == sum(file.stat().st_size for file in path.iterdir())
    ask = ("--model", path, "--prompt", PROMPT, "--verbose", "f")
    assert lq.command("mlx_lm.generate", *ask).out == asked + "\n"
    assert "exists; overwrite it with --force" in lq("fuse", trained.id, expect=5).err
    before = (path / "model.safetensors").stat().st_ino
    out = lq("fuse", trained.id, "--force").out
    assert "  mlx_lm.server --model " in out
    assert (path / "model.safetensors").stat().st_ino != before
    err = lq("fuse", trained.id, "--save-path", tmp_path / "x", "--", "--export-gguf", expect=1).err
    assert "qwen2 not supported for GGUF" in err
    assert list(tmp_path.iterdir()) == [], "what failed leaves nothing"
    assert sorted(name.name for name in trained.folder.path.glob(".*")) == []


@pytest.mark.slow
def test_killed_fuse_leaves_no_model(trained: Training, tmp_path: Path) -> None:
    target = tmp_path / "model"
    with terminal(trained.lq, "fuse", trained.id, "--save-path", str(target)) as opened:
        until((tmp_path / ".model.partial").is_dir, "the fuse to begin")
        kill(opened.popen.pid)
    until(lambda: _children(trained.lq) == [], "its child to be gone")
    assert not target.exists()
    trained.lq("fuse", trained.id, "--save-path", target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _children(lq: Lq) -> list[int]:
    found = []
    for process in processes_of(lq.home):
        with contextlib.suppress(psutil.Error):
            found += [process.pid] if "workers.process.tethered" in process.cmdline() else []
    return found


@pytest.mark.slow
@pytest.mark.longest
def test_commands_take_full_fine_tunes(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    build_data(tmp_path / "data", train=50, valid=8, test=12)
    file = workshop.job_file(
        tmp_path / "full.yaml", data=str(tmp_path / "data"), iters=24, fine_tune_type="full", test=True
    )
    training = lq.submit(file)
    training.wait(seconds=FIRST_EVER_S)
    tuned, base = (lq.json("generate", training.id, "-p", PROMPT, *more)["answer"] for more in ((), ("--base",)))
    assert tuned != base
    fused = lq.json("fuse", training.id)["path"]
    assert lq.command("mlx_lm.generate", "--model", fused, "--prompt", PROMPT, "--verbose", "f").out == tuned + "\n"
    found = lq.json("test", training.id)
    assert found["loss"] in [one["loss"] for one in found["by_the_run"] if one["kind"] == "test"]


@pytest.mark.slow
def test_chat_ends_by_q_or_ctrl(trained: Training) -> None:
    for leave, code in (("q\n", 0), ("\x04", 0), ("\x03", 130)):
        with terminal(trained.lq, "chat", trained.id, "--", "--max-tokens", "8") as chat:
            begun = chat.until("›")
            assert f"note: job {trained.id} (small), its best weights, of iteration" in begun
            chat.type(PROMPT)
            chat.until("8 tokens")
            chat.until("›")
            os.write(chat._master, leave.encode())
            if leave == "\x03":  # a session without a controlling terminal: what the kernel would do
                os.killpg(chat.popen.pid, signal.SIGINT)
            chat.end(code)
            assert "Traceback" not in chat.output
    assert user(trained.lq) is None


# --- the device ---


@pytest.mark.slow
@pytest.mark.longest
def test_running_job_blocks_the_command(trained: Training, workshop: Workshop, tmp_path: Path) -> None:
    lq = trained.lq
    ask = ("generate", trained.id, "-p", PROMPT, "--max-tokens", 4)
    with long_job(lq, workshop, tmp_path) as training:
        err = lq(*ask, expect=5).err
        assert err.startswith(f"lq: job {training.id} (long) is training; ")
        assert "--queue" in err
        assert f"lq pause {training.id}" in err
        assert err.count("\n") == 1
        assert lq.json(*ask, "--anyway")["tokens"] == 4
        assert lives(training.trainer())
    assert "cannot be used together" in lq(*ask, "--anyway", "--queue", expect=2).err


@pytest.mark.slow
@pytest.mark.longest
def test_queued_command_runs_next(trained: Training, workshop: Workshop, tmp_path: Path) -> None:
    lq = trained.lq
    with long_job(lq, workshop, tmp_path) as training:
        behind = lq.submit(workshop.job_file(tmp_path / "behind.yaml", iters=8))
        with terminal(lq, "chat", trained.id, "--queue") as chat:
            chat.until(f"waits for job {training.id} (long)")
            assert "waits for the device" in lq("status").out
            os.killpg(chat.popen.pid, signal.SIGINT)
            chat.end(130)
        assert user(lq) is None
        with terminal(lq, "chat", trained.id, "--queue") as chat:
            chat.until(f"waits for job {training.id} (long)")
            lq("pause", training.id)
            chat.until("›")
            assert f"used by lq chat {trained.id}" in lq("status").out
            assert lq.look("show", behind.id)["job"]["status"] == "queued"
            err = lq("test", trained.id, expect=5).err
            assert f"used by lq chat {trained.id} (pid {chat.popen.pid})" in err
            with terminal(lq, "generate", trained.id, "-p", PROMPT, "--queue") as second:
                second.until(f"waits for lq chat {trained.id}")
                chat.type("q")
                chat.end(0)
                second.end(0)
                assert behind.job()["attempts"] == 0 or behind.job()["status"] != "queued"
        behind.wait()


@pytest.mark.slow
@pytest.mark.longest
def test_killed_command_frees_the_device(trained: Training, workshop: Workshop, tmp_path: Path) -> None:
    lq = trained.lq
    with terminal(lq, "chat", trained.id) as chat:
        chat.until("›")
        behind = lq.submit(workshop.job_file(tmp_path / "behind.yaml", iters=8))
        assert behind.job()["status"] == "queued"
        (child,) = _children(lq)
        kill(chat.popen.pid)
        until(lambda: not lives(child), "MLX-LM's command to end too")
        behind.wait()


@pytest.mark.slow
@pytest.mark.longest
def test_idle_chat_ends_for_a_job(trained: Training, workshop: Workshop, tmp_path: Path) -> None:
    lq = trained.lq
    with terminal(lq, "chat", trained.id, "--idle", 1) as chat:
        chat.until("›")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 4, "four seconds in which nobody types and no job waits")
        assert chat.popen.poll() is None
        behind = lq.submit(workshop.job_file(tmp_path / "behind.yaml", iters=8))
        chat.end(0)
        assert f": job {behind.id} (behind) waits" in chat.output
        behind.wait()
