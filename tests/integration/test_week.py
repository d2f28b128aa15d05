"""The worker's memory stays flat, however long a job trains."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MOST_MB_A_DAY = 4.0
"""A report is two numbers of eight bytes in the loss detector: 86,400 of them are 1.4 MB, beside room to grow."""


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(1800)
def test_a_week_of_a_report_a_second_hardly_grows_the_memory_that_follows_it() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.week"], capture_output=True, text=True, check=True)
    memory = json.loads(done.stdout)
    assert len(memory) == 8
    after_a_day, after_a_week = memory[1], memory[7]
    assert after_a_week - after_a_day < 6 * MOST_MB_A_DAY
