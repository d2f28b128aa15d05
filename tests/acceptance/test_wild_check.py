"""Job files as people publish them, rehearsed: each would run, or fails for the right reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import wild_files
from tests.harness import FIRST_EVER_S, Lq

pytestmark = [pytest.mark.slow, pytest.mark.longest, pytest.mark.timeout(900, func_only=True)]


def test_wild_files_run_or_are_refused(lq: Lq, tmp_path: Path) -> None:
    lq.settings(autostart=False)
    placed = wild_files.laid_out(tmp_path / "wild")
    files = [placed[name] for name in wild_files.RUNS]
    out = lq("check", *files, "--json", seconds=2 * FIRST_EVER_S).out
    jobs = dict(zip(wild_files.RUNS, json.loads(out)["jobs"], strict=True))
    for name, warnings in wild_files.RUNS.items():
        assert jobs[name]["failures"] == [], name
        assert {one["code"] for one in jobs[name]["warnings"]} == warnings, name
    for name, start in wild_files.OF_ANOTHER_MODEL.items():
        assert f"{placed[name]}:{start}" in lq("check", placed[name], expect=2).err
