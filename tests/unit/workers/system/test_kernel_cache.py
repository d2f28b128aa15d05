"""Removal of a torn kernel library."""

from __future__ import annotations

from pathlib import Path

from workers.system.kernel_cache import remove_torn


def complaint(path: Path) -> RuntimeError:
    return RuntimeError(f"Could not load C++ shared library {path}: file too short")


def test_torn_library_is_removed(tmp_path: Path) -> None:
    torn = tmp_path / "mlx" / "0.32.4" / "cpu" / "libMf4IAdd with spaces.so"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half")
    assert remove_torn(complaint(torn)) == torn
    assert not torn.exists()
    assert remove_torn(complaint(torn)) == torn  # another process removed it first


def test_other_libraries_are_kept(tmp_path: Path) -> None:
    other = tmp_path / "libsomething.so"
    other.write_bytes(b"mine")
    assert remove_torn(complaint(other)) is None
    assert remove_torn(RuntimeError("Could not load the model")) is None
    assert other.exists()
