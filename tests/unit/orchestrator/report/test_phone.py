"""report.html on a phone and on a desktop, measured by a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.model.outcomes import Outcome, Reason
from jobs.model.states import Status
from orchestrator.report.make import make
from orchestrator.report.plots.style import SCALE
from tests.unit.orchestrator.report_runs import START, TWO_RESTARTS, PlayedAttempt, Run
from tests.unit.orchestrator.series_runs import played_with_facts, rolled_back

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESKTOP = 390, 1280
"""Widths of the page, CSS pixels."""

needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

MEASURE = """
window.onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow;
    page.querySelectorAll("details").forEach(one => { one.open = true; });
    const all = [...page.body.querySelectorAll("*")];
    const texts = all.filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
    found[frame.id] = {
      scroll: root.scrollWidth,
      client: root.clientWidth,
      wider: all.filter(one => one.getBoundingClientRect().right > root.clientWidth + 1).map(one => one.outerHTML),
      font: Math.min(...texts.map(one => parseFloat(view.getComputedStyle(one).fontSize))),
      pictures: [...page.images].map(one => one.naturalWidth / one.getBoundingClientRect().width),
      cards: all.filter(one => one.tagName === "TD" && view.getComputedStyle(one).display === "flex").length,
    };
  }
  document.body.innerHTML = "";
  document.body.textContent = JSON.stringify(found);
};
"""


def _never_trained(home: Path) -> Run:
    run = Run(home, data="/data/a-folder-with-a-name-that-is-longer-than-any-line-of-a-phone/and-one-more")
    detail = "/data/qa/train.jsonl:6: the chat template refuses this row: roles must alternate"
    run.settle(Status.FAILED, Reason.DATA_INVALID, detail, now=START + 5)
    return run


def _diverged(home: Path) -> Run:
    run = Run(home, lq={"name": "an-unbroken-name-that-is-wider-than-the-screen-of-a-phone-in-the-largest-font"})
    run.play(PlayedAttempt(first=0, last=200, begins=0.0, outcome=Outcome.CRASHED, reason=Reason.DIVERGED, detail="x"))
    run.settle(Status.FAILED, Reason.DIVERGED, "the loss did not fall after 3 rollbacks", now=START + 405)
    return run


def _restarted(home: Path) -> Run:
    run = Run(home)
    run.play(*TWO_RESTARTS)
    run.publish()
    return run


RUNS: Mapping[str, Callable[[Path], Run]] = {
    "good": lambda home: played_with_facts(home, lq={"prompts": ["x" * 300]}),
    "restarted": _restarted,
    "rolled_back": rolled_back,
    "never_trained": _never_trained,
    "diverged": _diverged,
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of the report of each run."""
    folders = {}
    for name, made in RUNS.items():
        run = made(tmp_path_factory.mktemp(name))
        with run.store:
            folders[name] = make(run.store, run.id, now=START + 1e6).parent
    return folders


@pytest.fixture(scope="module")
def measured(reports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the browser measures of each report at each width, with every section open."""
    frames = [
        f'<iframe id="{name}-{width}" style="width:{width}px;height:800px;border:0" '
        f'srcdoc="{html.escape((folder / "report.html").read_text())}"></iframe>'
        for name, folder in reports.items()
        for width in (PHONE, DESKTOP)
    ]
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(f"<script>{MEASURE}</script><body>{''.join(frames)}</body>")
    assert BROWSER is not None
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder}/profile",
        "--dump-dom",
    )
    command = [BROWSER, *options, "--virtual-time-budget=20000", f"file://{folder}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<body>(\{.*\})</body>", done.stdout, re.DOTALL)
    assert found is not None, done.stdout[:2000]
    content: dict[str, dict[str, Any]] = json.loads(html.unescape(found[1]))
    return content


@needs_browser
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", RUNS)
def test_report_does_not_scroll_sideways(measured: dict[str, dict[str, Any]], name: str, width: int) -> None:
    page = measured[f"{name}-{width}"]
    assert page["client"] == width
    assert page["scroll"] <= page["client"], page["wider"][:3]
    assert page["wider"] == []
    assert page["font"] >= 12


@needs_browser
def test_wide_tables_are_cards_on_a_phone(measured: dict[str, dict[str, Any]]) -> None:
    assert measured[f"good-{PHONE}"]["cards"] > 10
    assert measured[f"good-{DESKTOP}"]["cards"] == 0


@needs_browser
def test_pictures_are_not_shrunk_on_a_phone(measured: dict[str, dict[str, Any]]) -> None:
    pictures = measured[f"good-{PHONE}"]["pictures"]
    assert len(pictures) == 2
    assert max(pictures) <= SCALE, "a point of the letters is one CSS pixel"


def test_run_that_never_trained_has_no_picture(reports: dict[str, Path]) -> None:
    folder = reports["never_trained"]
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    text = (folder / "report.md").read_text()
    cause, fix = (line for line in text.splitlines() if line.startswith(("> **Cause", "> **Fix")))
    assert "train.jsonl:6" in cause
    assert "`lq retry 1`" in fix
    assert "Results" not in text
    assert "not measured" not in text
