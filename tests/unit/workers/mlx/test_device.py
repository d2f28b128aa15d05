"""MLX, looked at by a child: with a compiler, without one, with a broken one; and a child that does not answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.doctor.machine_checks import OPEN_FILES_OF_MLX_LM
from tests.harness import lives
from workers.mlx.device import Asking, Device

pytestmark = pytest.mark.timeout(300, func_only=True)
linux = pytest.mark.skipif(sys.platform != "linux", reason="on a CPU MLX compiles with g++")


def asked() -> Device | str:
    with Asking() as asking:
        return asking.answer()


@linux
def test_a_child_says_what_mlx_finds_and_this_process_never_imports_it(capfd: pytest.CaptureFixture[str]) -> None:
    found = asked()
    assert isinstance(found, Device)
    assert found.mlx.startswith("0.")
    assert "cpu" in found.device
    assert found.recommended > 1 << 30
    assert found.kernel_error is None
    assert capfd.readouterr().out == ""


@linux
def test_without_a_compiler_mlx_goes_on_and_with_a_broken_one_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the doctor's words rest on: MLX asks `g++ --version` and, where that fails, fuses nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    without = asked()
    assert isinstance(without, Device)
    assert without.kernel_error is None
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho cannot find -lstdc++; exit 1\n')
    compiler.chmod(0o700)
    broken = asked()
    assert isinstance(broken, Device)
    assert broken.kernel_error is not None
    assert "Failed to" in broken.kernel_error


def test_a_child_that_dies_says_of_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlx_lm.py").write_text("raise ImportError('no Metal here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = asked()
    assert isinstance(found, str)
    assert "exit code 1" in found
    (tmp_path / "mlx_lm.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert asked() == "it said nothing (signal SIGSEGV)"


@linux
def test_mlx_lm_needs_as_many_open_files_as_the_doctor_says() -> None:
    """The hard limit cannot be raised again, so a process of its own is held to it."""
    for limit, works in ((OPEN_FILES_OF_MLX_LM, True), (OPEN_FILES_OF_MLX_LM - 1, False)):
        code = (
            f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, {limit}))\n"
            "from workers.mlx.device import Asking\n"
            "with Asking() as asking: print(asking.answer())"
        )
        found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
        assert found.startswith("Device(") == works, found


def test_a_child_that_hangs_is_given_up_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlx_lm.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Asking() as asking:
        pid, folder = asking._popen.pid, asking._folder.name
        assert asking.answer(timeout_s=0.2) == "no answer within 0 s"
        assert os.path.isdir(folder)  # noqa: PTH112 a name, as tempfile gives it
    assert not lives(pid)
    assert not Path(folder).exists()
