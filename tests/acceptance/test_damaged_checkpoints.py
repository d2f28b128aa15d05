"""lq does not use a damaged checkpoint, but the one before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, result

pytestmark = pytest.mark.timeout(240, func_only=True)


@pytest.mark.slow
def test_damaged_checkpoints_are_skipped(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", lq={"keep": {"last": 9}}))
    training.trained(30)
    lq("worker", "stop")
    *_, good, flipped, cut = sorted(training.folder.checkpoints.iterdir())
    cut_short(cut / "optimizer.safetensors")
    flip_a_bit(flipped / "adapters.safetensors")
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    assert (facts["attempts"][1]["resumed_from"], facts["attempts"][1]["quality"]) == (good.name, "exact")
    errors = [incident["text"] for incident in facts["incidents"] if incident["code"] == "checkpoint_invalid"]
    assert [str(cut) in errors[0], str(flipped) in errors[1]] == [True, True]
    assert len(errors) == 2
    (test,) = training.events(Kind.SELF_TEST)
    assert test.data["equal"] is True


def cut_short(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
