"""A job may ask for a fresh process every so many iterations; the result does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]


def test_a_run_in_segments_ends_the_same_and_nothing_has_died(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", lq={"segment": 50, "retry": {"max_restarts": 0}}))
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    assert [one["outcome"] for one in facts["attempts"]] == ["stopped", "stopped", "done"]
    # a segment ends with the update it is in: accumulation is 4
    assert [one["first_iteration"] for one in facts["attempts"]] == [0, 52, 104]
    assert {one["quality"] for one in facts["attempts"][1:]} == {"exact"}
    assert facts["incidents"] == []
