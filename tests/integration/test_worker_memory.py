"""The worker's memory does not grow with the length of a run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MOST_MB_A_DAY = 4.0
"""The loss detector keeps 16 bytes for each report: 1.4 MB for 86,400 reports a day, plus spare capacity of lists."""


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(1800)
def test_week_of_reports_uses_little_memory() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.week"], capture_output=True, text=True, check=True)
    memory = json.loads(done.stdout)
    assert len(memory) == 8
    after_a_day, after_a_week = memory[1], memory[7]
    assert after_a_week - after_a_day < 6 * MOST_MB_A_DAY
