"""The device query: with a compiler, without one, with a broken one; and a child that does not answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.doctor.machine_checks import OPEN_FILES_OF_MLX_LM
from tests.harness import lives
from workers.mlx.device import Device, DeviceQuery

pytestmark = pytest.mark.timeout(300, func_only=True)
linux = pytest.mark.skipif(sys.platform != "linux", reason="on a CPU MLX compiles with g++")


def ask() -> Device | str:
    with DeviceQuery() as query:
        return query.result()


@linux
def test_child_reports_the_device(capfd: pytest.CaptureFixture[str]) -> None:
    device = ask()
    assert isinstance(device, Device)
    assert device.mlx.startswith("0.")
    assert "cpu" in device.device
    assert device.recommended > 1 << 30
    assert device.kernel_error is None
    assert capfd.readouterr().out == ""


@linux
def test_broken_compiler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX runs `g++ --version`; if that fails, it fuses nothing and works without a compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    without = ask()
    assert isinstance(without, Device)
    assert without.kernel_error is None
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho cannot find -lstdc++; exit 1\n')
    compiler.chmod(0o700)
    broken = ask()
    assert isinstance(broken, Device)
    assert broken.kernel_error is not None
    assert "Failed to" in broken.kernel_error


def test_crash_of_the_child_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlx_lm.py").write_text("raise ImportError('no Metal here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    device = ask()
    assert isinstance(device, str)
    assert "exit code 1" in device
    (tmp_path / "mlx_lm.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert ask() == "no output (signal SIGSEGV)"


@linux
def test_open_files_limit_is_exact() -> None:
    """The hard limit cannot be raised again, so a process of its own gets it."""
    for limit, works in ((OPEN_FILES_OF_MLX_LM, True), (OPEN_FILES_OF_MLX_LM - 1, False)):
        code = (
            f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, {limit}))\n"
            "from workers.mlx.device import DeviceQuery\n"
            "with DeviceQuery() as query: print(query.result())"
        )
        device = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
        assert device.startswith("Device(") == works, device


def test_hanging_child_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlx_lm.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with DeviceQuery() as query:
        pid, folder = query._popen.pid, query._folder.name
        assert query.result(timeout_s=0.2) == "no answer within 0 s"
        assert os.path.isdir(folder)  # noqa: PTH112 a name, as tempfile gives it
    assert not lives(pid)
    assert not Path(folder).exists()
