"""Shell completion, from the completion protocol of click and in real shells."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.verbs import COMPLETE_VARIABLE, VERBS, run
from tests.harness import BESIDE_PYTHON, PATIENCE_S, Lq
from tests.unit.orchestrator.cli_homes import Home, contents, one_of_each

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed"))
    for shell in ("bash", "zsh", "fish")
]
QUIET_PROMPTS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}
SPACED, PROMPT = "two words", "type> "


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Return a home with a job in every status and two groups, with its store closed."""
    place = tmp_path_factory.mktemp("completion")
    made = Home(place / "home")
    one_of_each(made)
    made.store.jobs.cancel(7, 1.0)
    for name in ("sweep", "sweep", SPACED):
        made.ended(Status.SUCCEEDED, Reason.COMPLETED, name="of-group", group=name)
    made.queued("queued-again")
    made.store.close()
    for shell in ("bash", "zsh", "fish"):
        (place / f"lq.{shell}").write_text(Lq(made.path)("completion", shell).out)
    yield made
    made.store.close()


def environment(home: Home) -> Mapping[str, str]:
    path = f"{BESIDE_PYTHON}{os.pathsep}{os.environ['PATH']}"
    own = {"LQ_HOME": str(home.path), "PATH": path, "TERM": "dumb", "HOME": str(home.path.parent)}
    return {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | own


class Completer:
    """Asks `lq` for completions as the script of a shell does."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Use this home."""
        self._patch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("LQ_HOME", str(home))

    def __call__(self, *words: str, of: str = "bash") -> list[str]:
        """Return the completions of the last word, and assert that nothing else is printed."""
        self._patch.setenv(COMPLETE_VARIABLE, f"{of}_complete")
        self._patch.setenv("COMP_WORDS", " ".join(["lq", *words]))
        self._patch.setenv("COMP_CWORD", words[-1] if of == "fish" else str(len(words)))
        with contextlib.suppress(SystemExit):  # how click exits
            run([])
        printed = self._capsys.readouterr()
        assert printed.err == ""
        return [line.removeprefix("plain,") for line in printed.out.splitlines() if line]


@pytest.fixture
def complete(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Completer:
    """Return the completer for that home."""
    return Completer(home.path, monkeypatch, capsys)


# --- completions ---


def test_verbs_and_options(complete: Completer) -> None:
    assert complete("") == list(VERBS)
    assert complete("comp") == ["compare", "completion"]
    assert complete("status", "--") == ["--all", "--group", "--watch", "--json", "--help"]
    assert complete("worker", "s") == ["start", "status", "stop"]
    assert complete("submit", "") == ["file,"]
    assert complete("help", "comp") == ["compare", "completion"]
    assert complete("help", "worker", "s") == ["start", "status", "stop"]
    assert complete("help", "show", "s") == []


def test_live_jobs_come_first(complete: Completer) -> None:
    assert complete("show", "") == ["6", "11", "5", "4", "10", "9", "8", "7", "3", "2", "1"]
    assert complete("show", "1") == ["11", "10", "1"]


def test_jobs_that_the_verb_applies_to(complete: Completer) -> None:
    assert complete("pause", "") == ["6", "11", "4"]
    assert complete("resume", "") == ["5", "4"]
    assert complete("retry", "") == ["7", "3", "1"]
    assert complete("retry", "--set", "iters=9", "") == ["10", "9", "8", "7", "3", "2", "1"]
    assert complete("extend", "") == ["10", "9", "8", "2"]
    assert complete("cancel", "") == ["6", "11", "5", "4"]


def test_typed_ids_are_not_repeated(complete: Completer) -> None:
    assert complete("cancel", "6", "") == ["11", "5", "4"]


def test_descriptions_name_the_job(complete: Completer) -> None:
    assert complete("show", "2", of="fish") == ["2\tsucceeded (succeeded)"]
    assert complete("show", "6", of="zsh") == ["plain", "6", "running (running)"]


def test_groups_presets_and_schemas(complete: Completer) -> None:
    assert complete("status", "--group", "") == [f"'{SPACED}'", "sweep"]
    assert complete("cancel", "--group", "s") == ["sweep"]
    assert complete("config", "init", "s")[0] == "small"
    assert complete("config", "schema", "--of", "sta") == ["status", "state"]


def test_no_home_is_created(tmp_path: Path) -> None:
    empty = Lq(tmp_path / "none")
    variables = {
        COMPLETE_VARIABLE: "bash_complete",
        "COMP_WORDS": "lq show ",
        "COMP_CWORD": "2",
        "LQ_HOME": str(empty.home),
    }
    done = subprocess.run([BESIDE_PYTHON / "lq"], env=os.environ | variables, capture_output=True, check=False)
    assert done.stdout.strip() + done.stderr == b""
    assert not empty.home.exists()


def test_completion_changes_no_file(home: Home, complete: Completer) -> None:
    before = contents(home.path)
    complete("show", "")
    assert contents(home.path) == before
    assert not [path.name for path in home.path.iterdir() if path.name.endswith(("-wal", "-shm"))]


def test_completion_while_store_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "home")
    home.queued()
    assert Completer(home.path, monkeypatch, capsys)("show", "") == ["1"]
    home.store.close()


@pytest.mark.parametrize("line", ["shwo ", "show one ", "config nothing ", "status --grup ", "cancel --group nobody "])
def test_wrong_line_prints_nothing(complete: Completer, line: str) -> None:
    complete(*line.split(" "))


def test_damaged_store_has_no_completions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = Home(tmp_path / "home")
    spoilt.store.close()
    (spoilt.path / "lq.db").write_bytes(b"not a database, though long enough to look at" * 100)
    assert Completer(spoilt.path, monkeypatch, capsys)("show", "") == []


# --- the shells ---


@pytest.mark.parametrize("shell", SHELLS)
def test_script_loads(home: Home, shell: str) -> None:
    script = home.path.parent / f"lq.{shell}"
    load = f"autoload -Uz compinit; compinit -u; source {script}" if shell == "zsh" else f"source {script}"
    words = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}[shell]
    done = subprocess.run([shell, *words, load], env=environment(home), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(home: Home) -> None:
    script = home.path.parent / "lq.fish"

    def completed(line: str) -> list[str]:
        return subprocess.run(
            ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
            env=environment(home),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()

    assert completed("lq retry ") == ["1\tcancelled (cancelled)", "3\tfailed (failed)", "7\tqueued (cancelled)"]
    assert any(line.startswith("status\t") for line in completed("lq sta"))
    assert completed("lq status --group sw") == ["sweep\t2 jobs"]


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell.values[0] in QUIET_PROMPTS])
def test_tab_key_completes(home: Home, shell: str) -> None:
    with typing_in(shell, home) as terminal:
        terminal.run(f"source {home.path.parent}/lq.{shell}")
        terminal.type("lq compl\t")
        terminal.until("lq completion")
        terminal.type("\x15lq status --group two\t\r")  # a name with a space is quoted
        terminal.until("group two words: 1 succeeded")
        terminal.type("lq resume \t\t")
        terminal.until("5")
        if shell == "zsh":
            terminal.until("paused (paused)")


class Terminal:
    """A shell in a pseudo-terminal."""

    def __init__(self, end: int) -> None:
        """Use this end of the pseudo-terminal."""
        self._end, self._output = end, ""

    def type(self, keys: str) -> None:
        """Type keys, and forget the earlier output."""
        self._output = ""
        os.write(self._end, keys.encode())

    def run(self, command: str) -> None:
        """Run a command and wait for the prompt; keys typed before the prompt are not completed."""
        self.type(f"{command}\r")
        self.until(PROMPT)

    def until(self, text: str) -> None:
        """Wait until the output contains a text."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self._output:
            assert time.monotonic() < deadline, f"{text!r} is missing:\n{self._output}"
            if select.select([self._end], [], [], 0.1)[0]:
                self._output += os.read(self._end, 65536).decode(errors="replace")


@contextlib.contextmanager
def typing_in(shell: str, home: Home) -> Iterator[Terminal]:
    """Run an interactive shell within a block."""
    ours, theirs = pty.openpty()
    own = {"TERM": "xterm", "INPUTRC": os.devnull}
    with subprocess.Popen(
        [shell, *QUIET_PROMPTS[shell]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(home), **own},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            terminal = Terminal(ours)
            terminal.run("PS1='typ''e> '")  # the shell's own may be anything
            if shell == "zsh":
                terminal.run(f"autoload -Uz compinit; compinit -u -d {home.path.parent}/zcompdump")
            yield terminal
        finally:
            process.kill()
            os.close(ours)
