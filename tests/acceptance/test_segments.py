"""A job may use a new process every so many iterations; this does not change its result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]


def test_segments_keep_result(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", lq={"segment": 50, "retry": {"max_restarts": 0}}))
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    assert [attempt["outcome"] for attempt in facts["attempts"]] == ["stopped", "stopped", "done"]
    # a segment ends after an update, and accumulation is 4
    assert [attempt["first_iteration"] for attempt in facts["attempts"]] == [0, 52, 104]
    assert {attempt["quality"] for attempt in facts["attempts"][1:]} == {"exact"}
    assert facts["incidents"] == []
