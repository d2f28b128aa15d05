"""Run the commands of README.md and the tutorial, in order, in one shell, in a new folder and a new home.

The tests train the jobs of the pages as they are, and check that they end well.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import BLOCK, DOCS, ROOT
from tests.harness import BESIDE_PYTHON, FIRST_EVER_S, Lq

README = ROOT / "README.md"
TUTORIAL = DOCS / "tutorial" / "first-run.md"

NOT_RUN = {
    "make demo": "it runs lq demo, from which docs/demo.svg is recorded",
    "make install": "it creates an environment",
    "uv tool install .": "it installs a program on this machine",
    "git clone REPOSITORY lq": "the test runs in the clone",
}
"""Blocks that the test does not run, by their first line, with the reason."""

OTHER_EXIT_CODE = {"lq doctor": 6}
"""Commands whose result depends on the machine, with the exit code that is accepted besides 0."""

REPLACEMENTS = {
    "~/first-run": "first-run",
    "/home/me": "$PWD",
}

_FILE = re.compile(r"`(\w+\.yaml)`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A block of a page as a script: commands, a file to write, or a command with its output."""

    script: str
    output: str | None = None  # the output that the page shows


def steps(page: Path) -> Iterator[Step]:
    """Yield the blocks of a page that the test runs, in order."""
    text = page.read_text()
    written: set[str] = set()
    for block in BLOCK.finditer(text):
        language, content = block[1], block[2]
        first_line = _command(content.splitlines()[0])
        files = _FILE.findall(text[: block.start()].rstrip().rpartition("\n\n")[2])
        if first_line in NOT_RUN:
            continue
        if language == "yaml" and files and files[-1] not in written:
            written.add(files[-1])
            yield Step(script=f"cat > {files[-1]} <<'END_OF_FILE'\n{_replaced(content)}END_OF_FILE\n")
        elif language == "sh":
            yield Step(script="\n".join(_accepting(line) for line in _replaced(content).splitlines()))
        elif language == "console" and first_line.startswith("$ ") and content.count("\n$ ") == 0:
            command, _, output = content.removeprefix("$ ").partition("\n")
            yield Step(script=f"{command} 2>&1 || true", output=_replaced(output))


def _command(line: str) -> str:
    return line.partition("#")[0].strip()


def _replaced(text: str) -> str:
    for old, new in REPLACEMENTS.items():
        text = text.replace(old, new)
    return text


def _accepting(line: str) -> str:
    code = OTHER_EXIT_CODE.get(_command(line))
    return line if code is None else f"{line} || [ $? -eq {code} ]"


def run(page_steps: Iterable[Step], lq: Lq, folder: Path) -> str:
    """Run steps in one shell that stops at the first error, and return what it prints."""
    script = ["set -euo pipefail"]
    for number, step in enumerate(page_steps):
        script += [f"echo '## {number}'", step.script]
        if step.output is not None:
            script += [f"echo '## expected {number}'", f"cat <<END_OF_TEXT\n{step.output}END_OF_TEXT"]
    process = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env=_environment(lq.home),
        timeout=FIRST_EVER_S,
        check=False,
    )
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
    return process.stdout


def _environment(home: Path) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("LQ_")}
    path = f"{BESIDE_PYTHON}:{os.environ['PATH']}"
    return others | {"LQ_HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def require_documented_output(printed: str) -> None:
    """Check that each command whose output is on the page printed that output."""
    outputs = re.findall(
        r"^## (\d+)\n((?:(?!## ).*\n)*)## expected \1\n((?:(?!## ).*\n)*)", printed, flags=re.MULTILINE
    )
    assert outputs, "the page shows the output of no command"
    for _, actual, expected in outputs:
        assert actual == expected


def test_readme_job_can_be_submitted(lq: Lq, tmp_path: Path) -> None:
    all_steps = list(steps(README))
    short = [step for step in all_steps if "lq wait" not in step.script]
    assert len(short) == len(all_steps) - 1
    printed = run([*short, Step(script="lq submit --dry-run first.yaml")], lq, tmp_path)
    require_documented_output(printed)


@pytest.mark.slow
@pytest.mark.timeout(2 * FIRST_EVER_S)
def test_readme_commands_run_to_the_end(lq: Lq, tmp_path: Path) -> None:
    require_documented_output(run(steps(README), lq, tmp_path))
    _require_success_and_report(lq)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(2 * FIRST_EVER_S)
def test_tutorial_runs_to_the_end(lq: Lq, tmp_path: Path) -> None:
    run(steps(TUTORIAL), lq, tmp_path)
    _require_success_and_report(lq)


def _require_success_and_report(lq: Lq) -> None:
    job = lq.json("show", "1")["job"]
    assert (job["status"], job["reason"]) == ("succeeded", "completed")
    report = json.loads((Path(job["job_dir"]) / "report" / "report.json").read_text())
    assert report["findings"]["ruling"]["verdict"]["code"] == "OK"
    answers = {answer["prompt"]: answer["after"] for answer in report["answers"]}
    assert answers["What colour is the sky?"] == "It is blue."


def test_blocks_not_run_are_on_a_page() -> None:
    blocks = (block for page in (README, TUTORIAL) for block in BLOCK.finditer(page.read_text()))
    assert set(NOT_RUN) <= {_command(block[2].splitlines()[0]) for block in blocks}
