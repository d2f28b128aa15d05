"""What each verb imports, after it has run in a process of its own: nobody waits for what his verb does not need.

A verb that is new must be listed here, and one that begins to import more must have it said.
"""

from __future__ import annotations

import json
import os
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
from tests.unit.orchestrator.cli_homes import Home, Seen

NEVER = {"mlx", "mlx_lm", "transformers", "torch", "datasets", "safetensors"}
"""What only a trainer needs."""

HEAVY = NEVER | {
    "alembic", "apprise", "huey", "keyring", "matplotlib", "numpy", "PIL", "psutil", "pydantic", "requests", "rich",
    "sqlalchemy", "tokenizers", "watchdog", "yaml",
}  # fmt: skip
"""What costs ten milliseconds or more, by the names of packages."""

PROCESSES = {"psutil"}
STORE = PROCESSES | {"sqlalchemy"}
SPEC = STORE | {"pydantic"}
FILES = SPEC | {"yaml"}
BELL = FILES | {"huey"}
PICTURES = FILES | {"matplotlib", "numpy", "PIL"}

BY_VERB: dict[str, tuple[Sequence[str], set[str]]] = {
    "submit": (["submit", "file.yaml"], BELL),
    "run": (["run", "no-data.yaml"], FILES | {"rich"}),
    "status": (["status"], STORE | {"rich"}),
    "watch": (["watch"], PROCESSES | {"rich"}),  # no terminal is there; with one it is a status
    "show": (["show", "1"], STORE | {"rich"}),
    "logs": (["logs", "1"], STORE | {"rich"}),
    "wait": (["wait", "1"], STORE),
    "pause": (["pause", "3"], BELL),
    "resume": (["resume", "3"], BELL),
    "hold": (["hold", "3"], STORE),
    "release": (["release", "3"], BELL),
    "move": (["move", "3", "--last"], STORE),
    "edit": (["edit", "3"], BELL),
    "cancel": (["cancel", "3"], STORE),
    "retry": (["retry", "3"], BELL),
    "worker": (["worker", "status"], PROCESSES),
    "plan": (["plan", "file.yaml"], FILES | {"numpy", "rich", "tokenizers"}),
    "check": (["check", "no-data.yaml"], FILES | {"rich"}),
    "service": (["service", "print"], PROCESSES),
    "doctor": (["doctor"], FILES | {"rich"}),
    "report": (["report", "1"], PICTURES),
    "verify": (["verify", "1"], FILES),
    "prune": (["prune", "1"], SPEC),
    "clean": (["clean", "2", "--yes"], SPEC),
    "chat": (["chat", "1"], STORE),
    "generate": (["generate", "1", "-p", "x"], STORE),
    "test": (["test", "1"], STORE | {"numpy"}),
    "fuse": (["fuse", "1"], SPEC),
    "compare": (["compare", "1", "2"], PICTURES | {"rich"}),
    "notify": (["notify", "list"], FILES),
    "config": (["config", "schema"], {"pydantic", "yaml"}),
    "completion": (["completion", "bash"], set()),
    "demo": (["demo", "--help"], PROCESSES),
}
"""For each verb, a way to run it that goes as far as it can, and what of HEAVY it may import for that."""

PROGRAM = """
import json, sys
from orchestrator.cli.verbs import run
try:
    code = run(sys.argv[2:])
except SystemExit as ended:  # how a completion ends
    code = ended.code
open(sys.argv[1], "w").write(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

AFTERWARDS = {"chat": 2, "generate": 2, "test": 2, "fuse": 2}
EXITS = {"run": 2, "watch": 2, "check": 2, "worker": 4, "verify": 6} | AFTERWARDS
"""Exit codes other than 0: it is refused; no terminal; no worker; a job without training has no files or model."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with two jobs that succeeded and one that is queued, and beside it files to submit."""
    place = tmp_path_factory.mktemp("imports")
    made = Home(place / "home")
    seen = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)
    made.ended(Status.SUCCEEDED, Reason.COMPLETED, name="done", seen=seen)
    made.ended(Status.SUCCEEDED, Reason.COMPLETED, name="another", seen=seen)
    made.queued("next")
    build_model(place / "model")
    build_data(place / "data")
    material.job_file(place / "file.yaml", place / "model", place / "data")
    material.job_file(place / "no-data.yaml", place / "model", place / "nowhere")
    yield made
    made.store.close()


def test_every_verb_is_listed() -> None:
    assert BY_VERB.keys() == VERBS.keys(), "list a new verb in BY_VERB, with what it imports"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_imports_only_what_it_needs(home: Home, verb: str) -> None:
    words, may = BY_VERB[verb]
    code, modules = run(home, words)
    assert code == EXITS.get(verb, 0)
    assert "click" in modules
    assert modules & HEAVY == may


def test_the_whole_of_mlx_and_its_friends_is_out_of_reach_of_every_verb() -> None:
    assert not any(may & NEVER for _, may in BY_VERB.values())


@pytest.mark.parametrize(("line", "may"), [("lq s", set()), ("lq logs ", STORE | {"rich"}), ("lq config init ", set())])
def test_a_shell_that_completes_waits_for_no_more(home: Home, line: str, may: set[str]) -> None:
    asked = {"_LQ_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    _, modules = run(home, [], asked)
    assert modules & HEAVY <= may


def run(home: Home, words: Sequence[str], more: Mapping[str, str] = MappingProxyType({})) -> tuple[int, set[str]]:
    """Run a verb in a process of its own; return its exit code and the packages it imported.

    Args:
        home: whose jobs.
        words: the command line.
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
