"""Nights on which the machine, the network or the model's files fail: each ends in a named state, or goes on."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
from jobs.model.outcomes import Reason
from tests.harness import Lq, Workshop, kill, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]


@pytest.mark.longest
def test_broken_mlx_pauses_the_queue(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    """Two jobs that cannot import MLX pause the queue; it resumes by itself when MLX can be imported again."""
    broken = tmp_path / "broken" / "mlx"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libmlx.so: file too short')\n")
    night = Lq(lq.home, PYTHONPATH=str(broken.parent))
    short = {"iters": 20, "save_every": 20}
    first = night.submit(workshop.job_file(tmp_path / "a.yaml", **short, adapter_path=str(tmp_path / "a")))
    second = night.submit(workshop.job_file(tmp_path / "b.yaml", **short, adapter_path=str(tmp_path / "b")))

    def paused() -> dict[str, Any] | None:
        queue = lq.look("status")["queue"]
        return queue if queue["paused"] else None

    queue = until(paused, "the queue to be paused", every=0.2)
    assert "libmlx.so: file too short" in queue["because"]
    assert {training.job()["status"] for training in (first, second)} <= {"waiting", "queued"}
    answer = night("submit", workshop.job_file(tmp_path / "c.yaml", **short, adapter_path=str(tmp_path / "c")))
    for text in (answer.err, night("status").out):
        assert "lq resume --queue" in " ".join(text.split())
        assert "mlx" in text
    shutil.rmtree(broken)
    for training in (first, second):
        training.wait(seconds=200)
    assert not lq.look("status")["queue"]["paused"]
