"""Wrong command lines: each prints one line that says what is wrong and what to do.

Most run in this process, because a process for each would take half a minute.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from jobs.model.states import Status
from orchestrator.cli.verbs import run
from orchestrator.demo.tiny_model import build_data, build_model
from tests.harness import Lq
from tests.unit.orchestrator.cli_homes import Home, one_of_each

FILES = {
    "good": "",
    "tabs": "\tlq: {}\n",
    "typo": "grad_accumulation: 4\n",
    "lq_typo": "lq: {priorty: 3}\n",
    "old": "lora_layers: 4\n",
    "peft": "lora_parameters: {rank: 8, alpha: 16}\n",
    "twice": "iters: 9\n",
    "window": 'lq: {window: "25:00-07:00"}\n',
    "no_such_job": "lq: {after: [77]}\n",
    "memory": "lq: {memory: {limit: lots}}\n",
    "notify": "lq: {notify: {on: [finishd]}}\n",
}
"""Lines appended to a valid job file."""

VALID = "model: model\ntrain: true\ndata: data\niters: 8\nbatch_size: 2\nnum_layers: -1\n"
OTHERS = {
    "no_model": VALID.replace("model: model", "model: ./modle"),
    "no_data": VALID.replace("data: data", "data: ./dat"),
    "never": VALID.replace("iters: 8", "iters: 0"),
    "large_batch": VALID.replace("batch_size: 2", "batch_size: 4000"),
    "layers": VALID.replace("num_layers: -1", "num_layers: 99"),
    "empty": "",
}

WRONG: list[tuple[str, int, tuple[str, ...]]] = [
    # the verb
    ("lq statsu", 2, ("'statsu'", "did you mean 'lq status'", "lq --help")),
    ("lq ls", 2, ("'ls'", "use lq status")),
    ("lq kill 1", 2, ("'kill'", "use lq cancel")),
    ("lq add good.yaml", 2, ("'add'", "use lq submit")),
    ("lq hold 1", 2, ("'hold'", "use lq pause")),
    ("lq release 1", 2, ("'release'", "use lq resume")),
    ("lq good.yaml", 2, ("'good.yaml'", "did you mean 'lq submit good.yaml'")),
    ("lq 3", 2, ("'3'", "did you mean 'lq show 3'")),
    ("lq frobnicate", 2, ("'frobnicate'", "lq --help")),
    ("lq worker stat", 2, ("'stat'", "did you mean one of", "'status'", "lq worker --help")),
    ("lq worker stpo", 2, ("'stpo'", "did you mean 'stop'", "lq worker --help")),
    ("lq config shema", 2, ("'shema'", "did you mean 'schema'")),
    # options
    ("lq status --jsn", 2, ("'--jsn'", "did you mean '--json'", "lq status --help")),
    ("lq --json status", 2, ("'--json'", "after the verb", "lq status --json")),
    ("lq move 1 --before", 2, ("'--before'", "lq move --help")),
    ("lq move 1", 2, ("--first", "--before ID")),
    ("lq wait --timeout soon", 2, ("'soon'", "lq wait --help")),
    ("lq wait --timeout nan", 2, ("'nan'", "lq wait --help")),
    ("lq clean --older-than soon", 2, ("'soon'", "30d")),
    ("lq service print --kind cron", 2, ("'cron'", "launchd", "systemd")),
    ("lq report 1 --format pdf", 2, ("'pdf'", "html")),
    ("lq status extra", 2, ("extra", "lq status --help")),
    # jobs
    ("lq show", 2, ("ID", "lq show --help")),
    ("lq cancel", 2, ("name a job", "lq cancel --help")),
    ("lq pause", 2, ("name a job", "--queue")),
    ("lq compare 1", 2, ("two jobs",)),
    ("lq verify", 2, ("name a job", "--all")),
    ("lq show 99", 3, ("no job 99", "lq status --all")),
    ("lq cancel 99", 3, ("no job 99", "lq status --all")),
    ("lq wait 99", 102, ("no job 99", "lq status --all")),
    ("lq cancel --group nigthly", 3, ("no group 'nigthly'",)),
    ("lq cancel {succeeded}", 5, ("job {succeeded}", "(succeeded)")),
    ("lq retry {running}", 5, ("job {running}", "is running")),
    ("lq worker stop", 4, ("no worker runs", "lq status")),
    # job files
    ("lq submit", 2, ("FILE", "lq submit --help")),
    ("lq submit none.yaml", 2, ("none.yaml", "no such file")),
    ("lq submit -c none.yaml", 2, ("none.yaml", "no such file")),
    ("lq submit --model X --train", 2, ("'model: X'", "'train: true'", "lq submit FILE --set model=X")),
    ("lq check good.yaml --num-layers=4", 2, ("'num_layers: 4'", "lq check FILE --set num_layers=4")),
    ("lq submit good.yaml --set lq.after=77", 2, ("--set lq.after=[77], in quotes",)),
    ("lq submit .", 2, ("is a folder", "YAML file")),
    ("lq submit tabs.yaml", 2, ("tabs.yaml:7", "not valid YAML")),
    ("lq submit typo.yaml", 2, ("typo.yaml:7", "write 'grad_accumulation_steps")),
    ("lq submit lq_typo.yaml", 2, ("lq_typo.yaml:7", "did you mean 'priority'")),
    ("lq submit old.yaml", 2, ("old.yaml:7", "'lora_layers'", "remove it", "'num_layers'")),
    ("lq submit peft.yaml", 2, ("peft.yaml:7", "lora_parameters.scale: 2", "16 / 8")),
    ("lq submit twice.yaml", 2, ("twice.yaml:7", "duplicate key 'iters'", "line 4")),
    ("lq submit window.yaml", 2, ("window.yaml:7", "lq.window", "23:00-07:00")),
    ("lq submit no_such_job.yaml", 2, ("lq.after", "77")),
    ("lq submit memory.yaml", 2, ("memory.yaml:7", "lq.memory.limit", "85%")),
    ("lq submit notify.yaml", 2, ("notify.yaml:7", "finishd", "finished")),
    ("lq submit no_model.yaml", 2, ("no_model.yaml:1", "no such folder", "modle")),
    ("lq submit no_data.yaml", 2, ("no_data.yaml:3", "no such folder", "dat")),
    ("lq submit never.yaml", 2, ("never.yaml:4", "iters", "greater than 0")),
    ("lq submit large_batch.yaml", 2, ("train.jsonl", "batch_size")),
    ("lq submit layers.yaml", 2, ("layers.yaml:6", "num_layers", "2")),
    ("lq submit empty.yaml", 2, ("empty.yaml", "is empty", "model and data")),
    ("lq submit good.yaml --set iters", 2, ("--set iters", "key=value")),
    ("lq submit good.yaml --set itres=5", 2, ("--set itres", "did you mean 'iters'")),
    ("lq submit good.yaml --set iters=many", 2, ("--set iters", "'many'", "whole number")),
    # the rest
    ("lq config init smal", 2, ("'smal'", "did you mean 'small'")),
    ("lq config init --output /nowhere/x.yaml", 2, ("/nowhere/x.yaml", "--output")),
    ("lq demo --home /proc/x", 1, ("/proc/x", "--home")),
]


@dataclasses.dataclass(frozen=True)
class Desk:
    """A home with a job in every status, and job files."""

    home: Path
    folder: Path
    ids: dict[str, int]

    def files(self) -> list[Path]:
        """Return every file and folder, without the cache of the home, which the check of good data may fill."""
        return sorted(path for path in self.folder.rglob("*") if not path.is_relative_to(self.home / "cache"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Create the home and the files once; refused command lines change nothing."""
    folder = tmp_path_factory.mktemp("desk")
    build_model(folder / "model")
    build_data(folder / "data", train=16, valid=4, test=4)
    for name, more in FILES.items():
        (folder / f"{name}.yaml").write_text(VALID + more)
    for name, text in OTHERS.items():
        (folder / f"{name}.yaml").write_text(text)
    home = Home(folder / "home")
    ids = {Status(status).value: job_id for status, job_id in one_of_each(home).items()}
    home.store.close()
    return Desk(home.path, folder, ids)


@pytest.mark.parametrize(("typed", "code", "parts"), WRONG, ids=[typed for typed, _, _ in WRONG])
def test_wrong_invocation_prints_one_line(
    desk: Desk,
    typed: str,
    code: int,
    parts: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LQ_HOME", str(desk.home))
    monkeypatch.chdir(desk.folder)
    before = desk.files()
    assert run(shlex.split(typed.format(**desk.ids))[1:]) == code
    out, err = capfd.readouterr()
    assert re.fullmatch(r"lq: [^\n]+\n", err), f"not one line: {err!r}"
    for part in parts:
        assert part.format(**desk.ids) in err
    assert "unexpected:" not in err
    assert "Traceback" not in err
    assert out == ""
    assert desk.files() == before, "no file is created"


def test_invocations_are_distinct() -> None:
    assert len({typed for typed, _, _ in WRONG}) == len(WRONG)


@pytest.mark.slow
def test_one_line_in_a_real_process(desk: Desk) -> None:
    for typed, code, parts in WRONG:
        if ".yaml" in typed:
            continue  # the files are in another folder
        words = shlex.split(typed.format(**desk.ids))[1:]
        answer = Lq(desk.home)(*words, expect=code)
        assert re.fullmatch(r"lq: [^\n]+\n", answer.err), f"not one line: {answer.err!r}"
        assert answer.out == ""
        assert all(part.format(**desk.ids) in answer.err for part in parts)
