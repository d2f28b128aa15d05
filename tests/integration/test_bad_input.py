"""Wrong input of `lq`: one line on stderr, the documented exit code, and no change of the home.

Most commands run in this process, and one of each kind in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from jobs.model.states import Status
from orchestrator.demo.tiny_model import LAYERS, build_data, build_model
from tests.harness import BESIDE_PYTHON, Answer, InProcess, Lq, until
from tests.unit.orchestrator.cli_homes import Home, contents, one_of_each

TRAIN_ROWS = 12
URL = "json://user:pa55word@127.0.0.1:9/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A home with a job in every status, and a folder of job files, most of them wrong."""

    home: Path
    files: Path
    ids: dict[Status, int]

    def job(self, name: str, *replaced: tuple[str, str], more: str = "") -> Path:
        """Write a valid job file with replaced or added lines."""
        text = "model: ../model\ndata: ../data\nnum_layers: -1\niters: 8\nbatch_size: 2\n"
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        return self.file(name, text + more)

    def file(self, name: str, content: str | bytes) -> Path:
        """Write a file."""
        path = self.files / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def data(self, name: str, line: int, row: str) -> None:
        """Copy the data to a folder and replace a row of train.jsonl."""
        shutil.copytree(self.files.parent / "data", self.files / name, dirs_exist_ok=True)
        path = self.files / name / "train.jsonl"
        rows = path.read_text().splitlines()
        rows[line - 1] = row
        path.write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Create the home and the files once."""
    folder = tmp_path_factory.mktemp("scene")
    build_model(folder / "model")
    build_data(folder / "data", train=TRAIN_ROWS, valid=4, test=4)
    (folder / "files").mkdir()
    home = Home(folder / "home")
    ids = one_of_each(home)
    home.store.close()
    return Scene(home=home.path, files=folder / "files", ids=ids)


def refused(
    home: Path, *words: str | int | Path, code: int, says: str, kind: type[Lq] = InProcess, faults: int = 1
) -> Answer:
    """Run `lq WORDS` and assert that it is refused and changes nothing.

    Args:
        says: pattern of a line on stderr.
        kind: `Lq` for a process of its own.
        faults: number of lines on stderr, one for each.
    """
    before = contents(home)
    answer = kind(home)(*words, expect=code)
    assert re.fullmatch(rf"(lq: [^\n]+\n){{{faults}}}", answer.err), f"not {faults} lines: {answer.err!r}"
    assert re.search(says, answer.err), answer.err
    assert "unexpected" not in answer.err.replace("unexpected extra argument", "")
    assert answer.out == ""
    assert contents(home) == before
    return answer


# --- job files ---

JobFile = Callable[[Scene], Path]
JOB_FILES: dict[str, tuple[JobFile, str]] = {
    "missing file": (lambda scene: scene.files / "none.yaml", r"none\.yaml: no such file"),
    "folder": (lambda scene: scene.files, r"files: is a folder"),
    "binary": (lambda scene: scene.file("binary.yaml", bytes(range(256)) * 4), r"binary\.yaml:\d+: not UTF-8"),
    "device": (lambda scene: Path("/dev/zero"), r"/dev/zero: is larger than 1 MB"),
    "invalid YAML": (lambda scene: scene.file("invalid.yaml", "model: [\n"), r"invalid\.yaml:\d+: not valid YAML"),
    "no mapping": (lambda scene: scene.file("list.yaml", "- a\n- b\n"), r"list\.yaml:1: must be a mapping"),
    "empty": (lambda scene: scene.file("empty.yaml", ""), r"empty\.yaml: is empty"),
    "only comments": (lambda scene: scene.file("comment.yaml", "# later\n"), r"comment\.yaml: is empty"),
    "unknown key": (
        lambda scene: scene.job("unknown.yaml", more="grad_accumulation: 3\n"),
        r"unknown\.yaml:6: .*write 'grad_accumulation_steps: 3'",
    ),
    "unknown key of lq": (
        lambda scene: scene.job("unknown_lq.yaml", more="lq:\n  prioritty: 3\n"),
        r"unknown_lq\.yaml:7: .*did you mean 'priority'\?",
    ),
    "key of a later version": (
        lambda scene: scene.job("later.yaml", more="database: sqlite\n"),
        r"later\.yaml:6: unknown key 'database'",
    ),
    "old name of a key": (
        lambda scene: scene.job("old.yaml", ("num_layers: -1", "lora_layers: 2")),
        r"old\.yaml:3: .*write 'num_layers: 2'",
    ),
    "key of PEFT": (
        lambda scene: scene.job("peft.yaml", more="lora_parameters: {rank: 8, alpha: 16}\n"),
        r"peft\.yaml:6: .*lora_parameters\.scale: 2'",
    ),
    "key given twice": (
        lambda scene: scene.job("twice.yaml", more="iters: 9\n"),
        r"twice\.yaml:6: duplicate key 'iters', first in line 4",
    ),
    "wrong type": (
        lambda scene: scene.job("type.yaml", ("iters: 8", "iters: many")),
        r"type\.yaml:4: iters: must be a whole number greater than 0, not 'many'",
    ),
    "out of range": (
        lambda scene: scene.job("range.yaml", ("batch_size: 2", "batch_size: 0")),
        r"range\.yaml:5: batch_size: must be",
    ),
    "unknown optimizer": (
        lambda scene: scene.job("optimizer.yaml", more="optimizer: adan\n"),
        r"optimizer\.yaml:6: optimizer: must be .*adamw",
    ),
    "no training": (lambda scene: scene.job("test.yaml", more="train: false\n"), r"test\.yaml:6: train: must be true"),
    "newer format": (
        lambda scene: scene.job("newer.yaml", more="lq: {format: 2}\n"),
        r"newer\.yaml: has format 2.*update lq",
    ),
    "missing data folder": (
        lambda scene: scene.job("nodata.yaml", ("../data", "./nowhere")),
        r"nodata\.yaml:2: data: no such folder: .*nowhere",
    ),
    "file for a data folder": (
        lambda scene: scene.job("datafile.yaml", ("../data", "../data/train.jsonl")),
        r"datafile\.yaml:2: data: is a file: .*train\.jsonl",
    ),
    "missing model": (
        lambda scene: scene.job("nomodel.yaml", ("../model", "./nothing")),
        r"nomodel\.yaml:1: model: no such folder: .*nothing",
    ),
    "folder without a model": (
        lambda scene: scene.job("emptymodel.yaml", ("../model", "../data")),
        r"emptymodel\.yaml:1: model: no model\*\.safetensors",
    ),
    "more layers than there are": (
        lambda scene: scene.job("layers.yaml", ("num_layers: -1", f"num_layers: {LAYERS + 1}")),
        rf"layers\.yaml:3: num_layers: .* has {LAYERS} layers",
    ),
    "batch larger than the data": (
        lambda scene: scene.job("batch.yaml", ("batch_size: 2", "batch_size: 500")),
        rf"train\.jsonl: {TRAIN_ROWS} rows, but batch_size is 500",
    ),
    "missing adapter file": (
        lambda scene: scene.job("resume.yaml", more="resume_adapter_file: none.safetensors\n"),
        r"resume\.yaml:6: resume_adapter_file: no such file",
    ),
}

ROWS: dict[str, tuple[str, str]] = {
    "half a line": ('{"messages": [', r"not JSON"),
    "no object": ("[1, 2]", r"must be a JSON object"),
    "another format": ('{"text": "a"}', r"no 'messages'"),
    "no role": ('{"messages": [{"content": "a"}]}', r"messages\[0\]: 'role' must be text"),
    "nothing in it": ('{"messages": []}', r"'messages' is empty; remove the row"),
}


@pytest.mark.parametrize("case", JOB_FILES)
def test_wrong_job_file_names_its_line(scene: Scene, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, says = JOB_FILES[case]
    monkeypatch.chdir(scene.files)  # where relative paths start
    faults = 3 if case == "folder without a model" else 1  # no configuration, no weights, no tokenizer
    refused(scene.home, "submit", make(scene), code=2, says=says, faults=faults)


@pytest.mark.parametrize("case", ROWS)
def test_malformed_row_names_its_line(scene: Scene, case: str) -> None:
    row, says = ROWS[case]
    scene.data("spoilt", 7, row)
    file = scene.job("row.yaml", ("../data", "./spoilt"))
    refused(scene.home, "submit", file, code=2, says=rf"spoilt/train\.jsonl:7: .*{says}")


def test_one_wrong_file_refuses_all(scene: Scene) -> None:
    """All of their mistakes are printed."""
    files = [scene.job("good.yaml"), scene.files / "none.yaml", scene.job("zoo.yaml", more="zoo: 1\nsteps: 3\n")]
    before = contents(scene.home / "jobs")
    said = InProcess(scene.home)("submit", *files, expect=2).err.splitlines()
    assert [line.rpartition("/")[2].partition(" ")[0] for line in said[:3]] == [
        "none.yaml:",
        "zoo.yaml:6:",
        "zoo.yaml:7:",
    ]
    assert said[3:] == ["lq: 2 of 3 files cannot be queued, so none is"]
    assert contents(scene.home / "jobs") == before


def test_adapter_path_is_exclusive(scene: Scene) -> None:
    files = [scene.job(f"{name}.yaml", more="adapter_path: ../adapters\n") for name in ("one", "two")]
    refused(scene.home, "submit", *files, code=5, says=r"two\.yaml: adapter_path .*is already that of .*one\.yaml")


def test_foreign_adapter_needs_overwrite(scene: Scene, tmp_path: Path) -> None:
    target = scene.files.parent / "theirs"
    target.mkdir()
    (target / "adapters.safetensors").write_text("theirs")
    file = scene.job("foreign.yaml", more="adapter_path: ../theirs\n")
    says = r"foreign\.yaml: adapter_path .*/theirs holds adapters\.safetensors; name another .*--overwrite"
    refused(scene.home, "submit", file, code=5, says=says)
    refused(scene.home, "run", file, code=5, says=says)
    lq = Lq(_copy(scene.home, tmp_path))
    assert "queued" in lq("submit", "--overwrite", file).out
    assert (target / "adapters.safetensors").read_text() == "theirs", "the run has not ended yet"
    shutil.rmtree(target)
    target.write_text("a file")
    refused(scene.home, "submit", "--overwrite", file, code=5, says=r"adapter_path .*/theirs is not a folder")


def test_run_refuses_like_submit(scene: Scene) -> None:
    for words in (("run",), ("submit", "--json")):
        refused(scene.home, *words, scene.files / "none.yaml", code=2, says=r"no such file", kind=Lq)


# --- the command line itself ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["submti"], r"no verb 'submti'; did you mean 'lq submit'\? see: lq --help"),
        (["status", "--jsn"], r"no such option '--jsn'; did you mean '--json'\? see: lq status --help"),
        (["worker", "stopp"], r"no verb 'stopp'; did you mean 'stop'\? see: lq worker --help"),
        (["submit"], r"missing argument 'FILE\.\.\.'; see: lq submit --help"),
        (["run"], r"missing argument 'FILE'"),
        (["show"], r"missing argument 'ID'"),
        (["report"], r"missing argument 'ID'"),
        (["report", "1", "--format", "pdf"], r"'pdf' is not one of 'md', 'html', 'json'"),
        (["compare", "1"], r"name two jobs or more"),
        (["cancel"], r"name a job, or use --group NAME or --all; see: lq cancel"),
        (["retry"], r"name a job, or use --group NAME, --failed or --all; see: lq retry"),
        (["show", "0"], r"0 is not a job id: ids begin at 1; see: lq show --help"),
        (["pause", "7-3"], r"7-3 runs backwards; write 3-7; see: lq pause --help"),
        (["show", "1", "2"], r"got unexpected extra argument \(2\)"),
        (["wait", "--timeout", "soon"], r"'soon' is not a valid number of seconds"),
        (["wait", "--timeout", "nan"], r"'nan' is not a valid number of seconds"),
        (["worker", "stop", "--timeout", "-1"], r"-1 is not in the range x>=0"),
    ],
    ids=" ".join,
)
def test_usage_error_names_the_help(scene: Scene, words: list[str], says: str) -> None:
    refused(scene.home, *words, code=2, says=says)


# --- unknown jobs, and jobs with another status ---


@pytest.mark.parametrize("verb", ["show", "logs", "report", "cancel", "retry"])
def test_unknown_id_exits_with_3(scene: Scene, verb: str) -> None:
    refused(scene.home, verb, 999, code=3, says=r"no job 999; see: lq status --all")


def test_unknown_name_exits_with_3(scene: Scene) -> None:
    refused(scene.home, "show", "frist", code=3, says=r"no job has the name 'frist'")


def test_huge_id_is_unknown(scene: Scene) -> None:
    refused(scene.home, "show", 2**70, code=3, says=rf"no job {2**70}", kind=Lq)


def test_wait_for_unknown_exits_with_102(scene: Scene) -> None:
    refused(scene.home, "wait", scene.ids[Status.SUCCEEDED], 999, code=102, says=r"no job 999")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_unknown_id_changes_no_job(scene: Scene, verb: str) -> None:
    status = Status.QUEUED if verb == "cancel" else Status.FAILED
    refused(scene.home, verb, scene.ids[status], 999, code=3, says=r"no job 999")


@pytest.mark.parametrize(
    "status", [Status.RUNNING, Status.QUEUED, Status.WAITING, Status.PAUSED, Status.SUCCEEDED], ids=str
)
def test_only_ended_jobs_are_retried(scene: Scene, status: Status) -> None:
    says = rf"job {scene.ids[status]} is {status}; only failed and cancelled jobs can be retried"
    refused(scene.home, "retry", scene.ids[Status.FAILED], scene.ids[status], code=5, says=says)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED], ids=str)
def test_ended_job_is_not_cancelled(scene: Scene, status: Status) -> None:
    says = rf"job {scene.ids[status]} has already ended \({status}\)"
    refused(scene.home, "cancel", scene.ids[Status.QUEUED], scene.ids[status], code=5, says=says)


def test_demo_does_not_overwrite(scene: Scene) -> None:
    says = r"home exists"
    refused(scene.home, "demo", "--home", scene.home, code=5, says=says, kind=Lq)


# --- workers ---


def test_no_worker_exits_with_4(scene: Scene) -> None:
    refused(scene.home, "worker", "status", code=4, says=r"no worker runs for .*lq worker start")
    refused(scene.home, "worker", "stop", code=4, says=r"no worker runs for", kind=Lq)


def test_second_worker_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    lq = Lq(home)
    with subprocess.Popen(
        [BESIDE_PYTHON / "lq", "worker"],
        env=os.environ | {"LQ_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        try:
            until(lambda: "pid" in _holder(home / "worker.lock"), "the first worker")
            answer = lq("worker", expect=5)
            assert str(first.pid) in answer.err
            assert answer.out == ""
            assert lq.worker() == first.pid, "the first worker still runs"
        finally:
            lq.leave()
        assert first.wait(30) == 0


def _holder(lock: Path) -> dict[str, object]:
    try:
        return dict(json.loads(lock.read_text()))
    except (OSError, ValueError):
        return {}


# --- unusable homes ---

EVERY_VERB = (
    ("status",),
    ("status", "--json"),
    ("show", 1),
    ("logs", 1),
    ("report", 1),
    ("compare", 1, 2),
    ("wait",),
    ("cancel", 1),
    ("retry", 1),
    ("extend", 1, "--iters", 9),
    ("worker",),
    ("worker", "--detach"),
)
"""Verbs that need the store, besides submit and run."""

WITHOUT_STORE = (("worker", "status"), ("worker", "stop"), ("notify", "list"), ("notify", "test"))
"""Verbs that need the home but not the store."""


@pytest.mark.parametrize("words", [*EVERY_VERB, *WITHOUT_STORE, ("submit",), ("run",)], ids=str)
def test_home_below_a_file_is_refused(scene: Scene, words: tuple[str | int, ...], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    more = [scene.job("good.yaml")] if words[0] in ("submit", "run") else []
    says = rf"{file}/home: {file} is not a folder; set LQ_HOME to another folder"
    refused(file / "home", *words, *more, code=1, says=says)
    assert file.read_text() == "not a folder"


@pytest.fixture(scope="module")
def damaged(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with a damaged store."""
    home = _copy(scene.home, tmp_path_factory.mktemp("damaged"))
    (home / "lq.db").write_bytes(b"not a database" * 1000)
    return home


@pytest.mark.parametrize("words", [*EVERY_VERB[::2], ("submit",)], ids=str)
def test_damaged_store_names_the_backup(scene: Scene, damaged: Path, words: tuple[str | int, ...]) -> None:
    more = [scene.job("good.yaml")] if words[0] == "submit" else []
    refused(damaged, *words, *more, code=1, says=r"lq\.db: the store is damaged .*lq\.db\.v\*\.bak")


def test_newer_store_is_refused(scene: Scene, tmp_path: Path) -> None:
    home = _copy(scene.home, tmp_path)
    with closing(sqlite3.connect(home / "lq.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    for words in (("status",), ("submit", scene.job("good.yaml")), ("worker",)):
        refused(home, *words, code=1, kind=Lq, says=r"lq\.db: written by a newer lq \(version 9999.*update lq")


def test_damaged_wakeup_queue_is_refused(scene: Scene, tmp_path: Path) -> None:
    home = _copy(scene.home, tmp_path)
    (home / "queue.db").write_bytes(b"not a database" * 1000)
    says = r"queue\.db: the wake-up queue cannot be used .*remove"
    for words in (("submit", scene.job("good.yaml")), ("retry", scene.ids[Status.FAILED]), ("worker",)):
        refused(home, *words, code=1, says=says)
    assert Lq(home)("status").err == "", "the store is intact"


SETTINGS: dict[str, tuple[str, int, str]] = {
    "wrong value": ("autostart: maybe\n", 0o600, r"settings\.yaml:1: autostart: must be true or false"),
    "unknown key": ("autostrat: true\n", 0o600, r"settings\.yaml:1: .*did you mean 'autostart'\?"),
    "invalid YAML": ("notify: [\n", 0o600, r"settings\.yaml:\d+: not valid YAML"),
    "unset variable": (
        "notify: {services: [{url: 'json://${LQ_NOT_SET}/'}]}\n",
        0o600,
        r"environment variable LQ_NOT_SET is not set",
    ),
    "URL others can read": (
        f"notify: {{services: [{{url: '{URL}'}}]}}\n",
        0o644,
        r"chmod 600 .*settings\.yaml",
    ),
    "URL under a wrong key": (f"notify: {{service: [{{url: '{URL}'}}]}}\n", 0o600, r"settings\.yaml:1: "),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_wrong_settings_hide_their_secrets(scene: Scene, case: str, tmp_path: Path) -> None:
    text, mode, says = SETTINGS[case]
    home = _copy(scene.home, tmp_path)
    (home / "settings.yaml").write_text(text)
    (home / "settings.yaml").chmod(mode)
    for words in (("submit", scene.job("good.yaml")), ("notify", "test"), ("worker", "--detach")):
        assert "pa55word" not in refused(home, *words, code=2, says=says).err
    assert InProcess(home)("status").err == "", "lq status needs no settings"


def _copy(home: Path, folder: Path) -> Path:
    return Path(shutil.copytree(home, folder / "home"))


# --- reading creates no home ---


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", 1), 3),
        (("logs", 1), 3),
        (("report", 1), 3),
        (("cancel", 1), 3),
        (("retry", 1), 3),
        (("extend", 1, "--iters", 9), 3),
        (("wait", 1), 102),
        (("wait",), 102),
        (("worker", "status"), 4),
        (("worker", "stop"), 4),
    ],
    ids=str,
)
def test_unknown_job_creates_no_home(words: tuple[str | int, ...], code: int, tmp_path: Path) -> None:
    refused(tmp_path / "none", *words, code=code, says=r"no (job|worker)")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("notify", "list"), ("config", "schema")])
def test_reading_creates_no_home(words: tuple[str, ...], tmp_path: Path) -> None:
    assert Lq(tmp_path / "none")(*words).err == ""
    assert not (tmp_path / "none").exists()


def test_wrong_job_file_creates_no_home(scene: Scene, tmp_path: Path) -> None:
    files = [scene.job("own.yaml", more="adapter_path: ../own\n"), scene.files / "none.yaml"]
    assert "no such file" in InProcess(tmp_path / "none")("submit", *files, expect=2).err
    assert not (tmp_path / "none").exists()


def test_debug_prints_the_traceback(scene: Scene) -> None:
    answer = Lq(scene.home)("--debug", "show", 999, expect=3)
    assert answer.err.startswith("Traceback (most recent call last):\n")
    assert answer.err.splitlines()[-1].startswith("lq: no job 999; ")


def test_unchanged_job_file_is_valid(scene: Scene, tmp_path: Path) -> None:
    home = _copy(scene.home, tmp_path)
    said = Lq(home)("submit", scene.job("good.yaml")).err
    assert said == f"note: relative paths start in {scene.files}, the folder of the job file\n"
