"""The heavy packages that each verb imports, from a run in a process of its own.

List a new verb here, and change the list if a verb imports more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.verbs import VERBS
from orchestrator.demo.tiny_model import build_data, build_model
from tests.benchmarks import material
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, Seen

NEVER = {"mlx", "mlx_lm", "transformers", "torch", "datasets", "safetensors"}
"""Packages that only the trainer needs."""

HEAVY = NEVER | {
    "alembic", "apprise", "huey", "keyring", "matplotlib", "numpy", "PIL", "psutil", "pydantic", "requests", "rich",
    "sqlalchemy", "tokenizers", "watchdog", "yaml",
}  # fmt: skip
"""Packages whose import takes ten milliseconds or more."""

PROCESSES = {"psutil"}
STORE = PROCESSES | {"sqlalchemy"}
SPEC = STORE | {"pydantic"}
FILES = SPEC | {"yaml"}
WAKEUP = FILES | {"huey"}
PICTURES = FILES | {"matplotlib", "numpy", "PIL"}

BY_VERB: dict[str, tuple[Sequence[str], set[str]]] = {
    "submit": (["submit", "file.yaml"], WAKEUP | {"tokenizers"}),
    "run": (["run", "no-data.yaml"], FILES),
    "status": (["status"], STORE | {"rich"}),
    "watch": (["watch"], PROCESSES | {"rich"}),  # refused without a terminal
    "show": (["show", "1"], STORE | {"rich"}),
    "logs": (["logs", "1"], STORE | {"rich"}),
    "wait": (["wait", "1"], STORE),
    "pause": (["pause", "4"], WAKEUP),
    "resume": (["resume", "4"], WAKEUP),
    "move": (["move", "4", "--last"], STORE),
    "edit": (["edit", "4"], WAKEUP),
    "cancel": (["cancel", "4"], STORE),
    "dismiss": (["dismiss", "1"], STORE),  # it succeeded
    "retry": (["retry", "4"], WAKEUP),
    "extend": (["extend", "1", "--iters", "9"], FILES),
    "worker": (["worker", "status"], PROCESSES),
    "plan": (["plan", "file.yaml"], FILES | {"numpy", "rich", "tokenizers"}),
    "check": (["check", "no-data.yaml"], FILES | {"rich"}),
    "service": (["service", "print"], PROCESSES),
    "doctor": (["doctor"], FILES | {"rich"}),
    "report": (["report", "3"], PICTURES),
    "verify": (["verify", "1"], FILES),
    "prune": (["prune", "1"], SPEC),
    "clean": (["clean", "2", "--yes"], SPEC),
    "chat": (["chat", "1"], STORE),
    "generate": (["generate", "1", "-p", "x"], STORE),
    "test": (["test", "1"], FILES | {"numpy"}),
    "fuse": (["fuse", "1"], SPEC),
    "compare": (["compare", "1", "2"], PICTURES | {"rich"}),
    "notify": (["notify", "list"], FILES),
    "config": (["config", "schema"], {"pydantic", "yaml"}),
    "completion": (["completion", "bash"], set()),
    "demo": (["demo", "--help"], PROCESSES),
}
"""For each verb, a command line that gets as far as possible here, and the packages of HEAVY that it imports."""

PROGRAM = """
import json, sys
from orchestrator.cli.verbs import run
try:
    code = run(sys.argv[2:])
except SystemExit as exited:  # how a completion exits
    code = exited.code
open(sys.argv[1], "w").write(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

MODEL_VERBS = {"chat": 2, "generate": 2, "test": 2, "fuse": 2}
EXITS = {"run": 2, "watch": 2, "check": 2, "dismiss": 5, "extend": 2, "worker": 4, "verify": 6} | MODEL_VERBS
"""Exit codes other than 0: no data, no terminal, enough iterations, no worker, and a job without files or model."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Return a home with succeeded jobs and a queued one (4); job files are in its parent folder."""
    place = tmp_path_factory.mktemp("imports")
    made = Home(place / "home")
    seen = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)
    made.ended(Status.SUCCEEDED, Reason.COMPLETED, name="done", seen=seen)
    made.ended(Status.SUCCEEDED, Reason.COMPLETED, name="another", seen=seen)
    made.ended(Status.SUCCEEDED, Reason.COMPLETED, name="without a report", seen=seen)
    made.queued("next")
    build_model(place / "model")
    build_data(place / "data")
    material.job_file(place / "file.yaml", place / "model", place / "data")
    material.job_file(place / "no-data.yaml", place / "model", place / "nowhere")
    InProcess(made.path)("status")  # reads settings.yaml, once
    InProcess(made.path)("report", 1)  # lq show writes a missing report
    yield made
    made.store.close()


def test_every_verb_is_listed() -> None:
    assert BY_VERB.keys() == VERBS.keys(), "add new verbs to BY_VERB"


@pytest.mark.parametrize("verb", VERBS)
def test_verb_imports_only_what_it_needs(home: Home, verb: str) -> None:
    words, may = BY_VERB[verb]
    shutil.rmtree(home.path / "cache", ignore_errors=True)  # lengths of rows that another verb counted
    code, modules = run(home, words)
    assert code == EXITS.get(verb, 0)
    assert "click" in modules
    assert modules & HEAVY == may


def test_no_verb_imports_mlx() -> None:
    assert not any(may & NEVER for _, may in BY_VERB.values())


@pytest.mark.parametrize(("line", "may"), [("lq s", set()), ("lq logs ", STORE | {"rich"}), ("lq config init ", set())])
def test_completion_imports_little(home: Home, line: str, may: set[str]) -> None:
    asked = {"_LQ_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    _, modules = run(home, [], asked)
    assert modules & HEAVY <= may


def run(home: Home, words: Sequence[str], more: Mapping[str, str] = MappingProxyType({})) -> tuple[int, set[str]]:
    """Run a verb in a process of its own; return its exit code and the imported packages.

    Args:
        more: environment variables.
    """
    found = home.path.parent / "found"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(found), *words],
        check=True,
        cwd=home.path.parent,
        env=os.environ
        | {"EDITOR": "true", "LQ_HOME": str(home.path), "PYTHONPATH": str(Path(__file__).parents[2])}
        | dict(more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    code, modules = json.loads(found.read_text())
    return code, set(modules)
