"""Completion in the real shells: what a person sees who types half a word and presses TAB."""

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
from orchestrator.cli.commands import completion
from orchestrator.cli.verbs import COMPLETING, VERBS, run
from tests.harness import BESIDE_PYTHON, PATIENCE_S, Lq
from tests.unit.orchestrator.cli_homes import Home, contents, one_of_each

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not here"))
    for shell in ("bash", "zsh", "fish")
]
QUIET_PROMPTS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}
SPACED, PROMPT = "two words", "type> "


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Give a home with a job in every state and two groups, and no store that is open."""
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


class Ask:
    """lq, as the script of a shell asks it."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Ask about this home."""
        self._patch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("LQ_HOME", str(home))

    def __call__(self, *words: str, of: str = "bash") -> list[str]:
        """Return what is offered for the last word, and insist that nothing else is said."""
        self._patch.setenv(COMPLETING, f"{of}_complete")
        self._patch.setenv("COMP_WORDS", " ".join(["lq", *words]))
        self._patch.setenv("COMP_CWORD", words[-1] if of == "fish" else str(len(words)))
        with contextlib.suppress(SystemExit):  # how click ends
            run([])
        said = self._capsys.readouterr()
        assert said.err == ""
        return [line.removeprefix("plain,") for line in said.out.splitlines() if line]


@pytest.fixture
def offered(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Give what asks about that home."""
    return Ask(home.path, monkeypatch, capsys)


# --- what is offered ---


def test_verbs_and_options_are_offered(offered: Ask) -> None:
    assert offered("") == list(VERBS)
    assert offered("comp") == ["compare", "completion"]
    assert offered("status", "--") == ["--all", "--group", "--watch", "--json", "--help"]
    assert offered("worker", "s") == ["status", "stop"]
    assert offered("submit", "") == ["file,"]


def test_every_job_is_offered_where_every_job_will_do_live_ones_first(offered: Ask) -> None:
    assert offered("show", "") == ["6", "11", "5", "4", "10", "9", "8", "7", "3", "2", "1"]
    assert offered("show", "1") == ["11", "10", "1"]


def test_a_verb_is_offered_the_jobs_it_is_for(offered: Ask) -> None:
    assert offered("pause", "") == ["6", "11", "4"]
    assert offered("resume", "") == ["5", "4"]
    assert offered("retry", "") == ["7", "3", "1"]
    assert offered("cancel", "") == ["6", "11", "5", "4"]


def test_an_id_that_is_typed_already_is_not_offered_again(offered: Ask) -> None:
    assert offered("cancel", "6", "") == ["11", "5", "4"]


def test_the_shells_that_show_it_are_told_name_and_state(offered: Ask) -> None:
    assert offered("show", "2", of="fish") == ["2\tsucceeded, succeeded"]
    assert offered("show", "6", of="zsh") == ["plain", "6", "running, running"]


def test_groups_presets_and_schemas_are_offered(offered: Ask) -> None:
    assert offered("status", "--group", "") == [SPACED, "sweep"]
    assert offered("cancel", "--group", "s") == ["sweep"]
    assert offered("config", "init", "s")[0] == "small"
    assert offered("config", "schema", "--of", "sta") == ["status", "state"]


def test_nothing_is_made_and_nothing_is_said_where_there_is_no_home(tmp_path: Path) -> None:
    nowhere = Lq(tmp_path / "none")
    asked = {COMPLETING: "bash_complete", "COMP_WORDS": "lq show ", "COMP_CWORD": "2", "LQ_HOME": str(nowhere.home)}
    done = subprocess.run([BESIDE_PYTHON / "lq"], env=os.environ | asked, capture_output=True, check=False)
    assert done.stdout.strip() + done.stderr == b""
    assert not nowhere.home.exists()


def test_nothing_is_changed_by_looking(home: Home, offered: Ask) -> None:
    before = contents(home.path)
    offered("show", "")
    assert contents(home.path) == before
    assert not [path.name for path in home.path.iterdir() if path.name.endswith(("-wal", "-shm"))]


def test_jobs_are_offered_while_a_writer_has_the_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "home")
    home.queued()
    assert Ask(home.path, monkeypatch, capsys)("show", "") == ["1"]
    home.store.close()


@pytest.mark.parametrize("line", ["shwo ", "show one ", "config nothing ", "status --grup ", "cancel --group nobody "])
def test_nothing_is_said_in_the_midst_of_a_wrong_line(offered: Ask, line: str) -> None:
    offered(*line.split(" "))


def test_a_spoilt_store_offers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = Home(tmp_path / "home")
    spoilt.store.close()
    (spoilt.path / "lq.db").write_bytes(b"not a database, though long enough to look at" * 100)
    assert Ask(spoilt.path, monkeypatch, capsys)("show", "") == []


# --- the shells ---


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_loads(home: Home, shell: str) -> None:
    script = home.path.parent / f"lq.{shell}"
    load = f"autoload -Uz compinit; compinit -u; source {script}" if shell == "zsh" else f"source {script}"
    words = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}[shell]
    done = subprocess.run([shell, *words, load], env=environment(home), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
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

    assert completed("lq retry ") == ["7\tqueued, cancelled", "3\tfailed, failed", "1\tcancelled, cancelled"]
    assert "status\tThe night at a glance: what runs, what is to come, what has ended." in completed("lq sta")
    assert completed("lq status --group sw") == ["sweep\t2 jobs"]


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell.values[0] in QUIET_PROMPTS])
def test_the_tab_key_completes(home: Home, shell: str) -> None:
    with typing_in(shell, home) as terminal:
        terminal.run(f"source {home.path.parent}/lq.{shell}")
        terminal.type("lq compl\t")
        terminal.until("lq completion")
        terminal.type("\x15lq status --group two\t\r")  # a name with a space is quoted
        terminal.until("group two words: 1 succeeded")
        terminal.type("lq resume \t\t")
        terminal.until("5")
        if shell == "zsh":
            terminal.until("paused, paused")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_the_bash_of_macos_completes(home: Home) -> None:
    """It is 3.2, and has neither compopt nor `complete -o nosort`: both are taken away here."""
    old = """
        enable -n compopt
        complete() { case "$*" in *nosort*) return 2;; esac; builtin complete "$@"; }
    """
    ask = 'COMP_WORDS=(lq "$@"); COMP_CWORD=$#; _lq_completion lq; echo "${COMPREPLY[@]}"; complete -p lq'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{old}\nsource {home.path.parent}/lq.bash; {ask}", "bash", "retry", ""],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["7 3 1", "complete -o default -F _lq_completion lq"]
    assert done.stderr == ""
    for word in ("mapfile", "readarray", "declare -A", "${value,,}", "&>>", "|&", "read -N"):  # all since bash 4
        assert word not in completion.BASH


class Terminal:
    """A shell in a pseudo-terminal."""

    def __init__(self, end: int) -> None:
        """Take the end that a person sits at."""
        self._end, self._seen = end, ""

    def type(self, keys: str) -> None:
        """Press keys; what was shown before is forgotten."""
        self._seen = ""
        os.write(self._end, keys.encode())

    def run(self, command: str) -> None:
        """Type a command, and wait for the prompt: what is typed before it is not completed."""
        self.type(f"{command}\r")
        self.until(PROMPT)

    def until(self, text: str) -> None:
        """Wait until something is shown."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self._seen:
            assert time.monotonic() < deadline, f"{text!r} was not shown:\n{self._seen}"
            if select.select([self._end], [], [], 0.1)[0]:
                self._seen += os.read(self._end, 65536).decode(errors="replace")


@contextlib.contextmanager
def typing_in(shell: str, home: Home) -> Iterator[Terminal]:
    """Run an interactive shell; it is gone afterwards."""
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
