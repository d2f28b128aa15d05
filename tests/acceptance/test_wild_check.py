"""Job files as people publish them, rehearsed: each would run, or fails for the right reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import wild_files
from tests.harness import FIRST_EVER_S, Lq

pytestmark = [pytest.mark.slow, pytest.mark.longest, pytest.mark.timeout(900, func_only=True)]


def test_wild_files_run_or_fail_as_expected(lq: Lq, tmp_path: Path) -> None:
    lq.settings(autostart=False)
    placed = wild_files.laid_out(tmp_path / "wild")
    names = [*wild_files.RUNS, *wild_files.FAILS]
    files = [placed[name] for name in names]
    out = lq("check", *files, "--json", expect=6, seconds=2 * FIRST_EVER_S).out
    jobs = dict(zip(names, json.loads(out)["jobs"], strict=True))
    for name, warnings in wild_files.RUNS.items():
        assert jobs[name]["failures"] == [], name
        assert {one["code"] for one in jobs[name]["warnings"]} == warnings, name
    for name, (code, text) in wild_files.FAILS.items():
        ((failure,), _) = jobs[name]["failures"], name
        assert failure["code"] == code, name
        assert text in failure["text"], name
