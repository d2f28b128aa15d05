"""What README.md and the tutorial tell one to type is typed, in order, in one shell, in a folder and a home of its own.

Exchanged for the test: the model of the hub for the tiny one that the page itself makes, and long runs for short ones.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT
from tests.harness import BESIDE_PYTHON, FIRST_EVER_S, Lq

NOT_TYPED = {
    "make demo": "it is lq demo, which docs/demo.svg is recorded from",
    "make install": "sets up an environment; so does every make",
    "uv tool install .": "puts a program onto this machine",
    "git clone REPOSITORY lq": "the test runs in the clone",
}
"""Blocks that no test can run, by their first line, and why."""

MAY_SAY_NO = {"lq doctor": 6}
"""Commands whose answer depends on the machine, and the exit code that is as good as 0."""

CHANGED = {
    "model: Qwen/Qwen2.5-0.5B-Instruct ": "model: model ",
    "iters: 600": "iters: 8",
    "steps_per_eval: 100": "steps_per_eval: 8",
    "save_every: 100": "save_every: 8",
    "iters: 240": "iters: 80",
    "~/first-run": "first-run",
    "/home/me": "$PWD",
}
"""What is written in another way than on the page."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`(\w+\.yaml)`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A block of a page: shell to run, a file to write, or a command with what it prints."""

    script: str
    printed: str | None = None  # by a block that shows it


def steps(page: Path) -> Iterator[Step]:
    """Yield what a page tells one to do, in its order."""
    text = page.read_text()
    saved: set[str] = set()
    for block in _BLOCK.finditer(text):
        language, content = block[1], block[2]
        first = content.splitlines()[0].partition("#")[0].strip()
        named = _FILE.findall(text[: block.start()].rstrip().rpartition("\n\n")[2])
        if first in NOT_TYPED:
            continue
        if language == "yaml" and named and named[-1] not in saved:
            saved.add(named[-1])
            yield Step(script=f"cat > {named[-1]} <<'END_OF_FILE'\n{changed(content)}END_OF_FILE\n")
        elif language == "sh":
            yield Step(script="\n".join(_forgiving(line) for line in changed(content).splitlines()))
        elif language == "console" and first.startswith("$ ") and content.count("\n$ ") == 0:
            typed, _, printed = content.removeprefix("$ ").partition("\n")
            yield Step(script=f"{typed} 2>&1 || true", printed=changed(printed))


def changed(text: str) -> str:
    """Return a block as the test writes it."""
    for old, new in CHANGED.items():
        text = text.replace(old, new)
    return text


def _forgiving(line: str) -> str:
    command = line.partition("#")[0].strip()
    return f"{line} || [ $? -eq {MAY_SAY_NO[command]} ]" if command in MAY_SAY_NO else line


def typed(told: Iterable[Step], lq: Lq, folder: Path) -> str:
    """Do what a page tells one to do in one shell, and return what that printed."""
    script = ["set -euo pipefail"]
    for number, step in enumerate(told):
        script += [f"echo '## {number}'", step.script]
        if step.printed is not None:
            script += [f"echo '## should be {number}'", f"cat <<END_OF_TEXT\n{step.printed}END_OF_TEXT"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env=_environment(lq.home),
        timeout=FIRST_EVER_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _environment(home: Path) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("LQ_")}
    path = f"{BESIDE_PYTHON}:{os.environ['PATH']}"
    return others | {
        "LQ_HOME": str(home),
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }


def require_alike(said: str) -> None:
    """Check that commands whose output is shown on the page printed just that."""
    shown = re.findall(r"^## (\d+)\n((?:(?!## ).*\n)*)## should be \1\n((?:(?!## ).*\n)*)", said, re.MULTILINE)
    assert shown, "the page shows what a command prints"
    for _, printed, should_be in shown:
        assert printed == should_be


def test_the_first_job_of_the_readme_can_be_submitted_and_its_error_is_the_one_shown(lq: Lq, tmp_path: Path) -> None:
    short = [step for step in steps(ROOT / "README.md") if "lq wait" not in step.script]
    assert len(short) == len(list(steps(ROOT / "README.md"))) - 1
    said = typed([*short, Step(script="lq submit --dry-run first.yaml")], lq, tmp_path)
    assert said.splitlines()[-1] == "1 job, all right; nothing was queued"
    require_alike(said)


@pytest.mark.slow
@pytest.mark.timeout(2 * FIRST_EVER_S)
def test_what_the_readme_says_can_be_typed_to_the_end(lq: Lq, tmp_path: Path) -> None:
    said = typed(steps(ROOT / "README.md"), lq, tmp_path)
    assert "job 1 queued: first" in said
    assert "done: completed: trained to its last iteration" in said
    assert "/report/report.md" in said
    require_alike(said)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(2 * FIRST_EVER_S)
def test_the_tutorial_can_be_followed(lq: Lq, tmp_path: Path) -> None:
    said = typed(steps(DOCS / "tutorial" / "first-run.md"), lq, tmp_path)
    assert "tonight: would run" in said
    assert "done: completed: trained to its last iteration" in said
    assert "/report/report.md" in said


def test_what_is_not_typed_still_stands_on_a_page() -> None:
    pages = [ROOT / "README.md", DOCS / "tutorial" / "first-run.md"]
    first = {
        block[2].splitlines()[0].partition("#")[0].strip()
        for page in pages
        for block in _BLOCK.finditer(page.read_text())
    }
    assert set(NOT_TYPED) <= first
