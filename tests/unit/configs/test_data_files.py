"""Data files: accepted formats, facts, and errors of invalid rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from configs.data_files import check_data
from jobs.model.errors import DataInvalid
from jobs.model.spec import JobSpec
from tests.golden import assert_golden
from tests.unit.configs.conftest import ROWS, write_rows

GOLDEN = Path(__file__).parent / "golden"
OK = b'{"prompt": "a", "completion": "b"}\n'
CHAT = b'{"messages": [{"role": "user", "content": "a"}]}\n'
TEXT = b'{"text": "a"}\n'
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


def spec(folder: Path | str, **keys: Any) -> JobSpec:
    return JobSpec.model_validate({"data": str(folder), "batch_size": 1} | keys)


# contents of train.jsonl
WRONG = [
    b"",
    OK + b"\n",
    OK + b"  \n" + OK,
    b'{"prompt": "a" "completion": "b"}\n',
    OK + b'{"prompt": "a", "compl\n',
    b"\xef\xbb\xbf" + OK,
    OK + b'{"prompt": "caf\xe9", "completion": "b"}\n',
    OK + b'{"prompt": "\\ud83d", "completion": "b"}\n',
    b"[" * 100_000 + b"\n",
    b"[1]\n",
    OK + b'"text"\n',
    b'{"question": "a"}\n',
    OK + TEXT,
    OK + b'{"prompt": "a"}\n',
    OK + b'{"prompt": 3, "completion": "b"}\n',
    OK + b'{"prompt": "a", "completion": null}\n',
    OK + b'{"prompt": "a", "completion": " "}\n',
    OK + b'{"prompt": "a", "completion": "b", "tools": {}}\n',
    TEXT + b'{"text": ""}\n',
    TEXT + b'{"text": " \\n"}\n',
    TEXT + b'{"text": ["a"]}\n',
    CHAT + b'{"messages": []}\n',
    CHAT + b'{"messages": "a"}\n',
    CHAT + b'{"messages": ["a"]}\n',
    CHAT + b'{"messages": [{"content": "a"}]}\n',
    CHAT + b'{"messages": [{"role": "user"}]}\n',
    CHAT + b'{"messages": [{"role": "user", "content": 3}]}\n',
    CHAT + b'{"messages": [{"role": "user", "content": null, "tool_calls": []}]}\n',
    CHAT + b'{"messages": [{"role": "user", "content": " "}]}\n',
]


def test_invalid_data_rows_golden(folder: Path) -> None:
    train = folder / "data" / "train.jsonl"
    entries = []
    for content in WRONG:
        train.write_bytes(content)
        with pytest.raises(DataInvalid) as caught:
            check_data(spec(folder / "data"))
        assert str(caught.value).startswith(f"{train}:")
        shown = content if len(content) < 300 else content[:20] + b"..."
        entries.append(f"{shown!r}\n-> {caught.value}\n".replace(str(train), "train.jsonl"))
    assert_golden("\n".join(entries), GOLDEN / "invalid_rows.txt")


@pytest.mark.parametrize("name", ["valid.jsonl", "test.jsonl"])
def test_valid_and_test_files_are_checked(folder: Path, name: str) -> None:
    (folder / "data" / name).write_bytes(OK + b"\n")
    with pytest.raises(DataInvalid, match=rf"/{name}:2: blank line"):
        check_data(spec(folder / "data"))


def test_facts_describe_the_files(folder: Path) -> None:
    facts = check_data(spec(folder / "data", batch_size=8))
    content = (folder / "data" / "train.jsonl").read_bytes()
    train = facts.files["train.jsonl"]
    assert train.path == str(folder / "data" / "train.jsonl")
    assert (train.rows, train.bytes, train.format) == (8, len(content), "completions")
    assert train.sha256 == hashlib.sha256(content).hexdigest()
    assert (facts.source, facts.name, facts.notes) == ("folder", str(folder / "data"), ())
    assert list(facts.files) == ["train.jsonl", "valid.jsonl"]
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["files"]["valid.jsonl"]["rows"] == 2


def test_last_line_without_newline_counts(folder: Path) -> None:
    (folder / "data" / "train.jsonl").write_bytes(OK + OK.rstrip())
    assert check_data(spec(folder / "data")).files["train.jsonl"].rows == 2


def test_windows_line_breaks_are_read(folder: Path) -> None:
    (folder / "data" / "train.jsonl").write_bytes(OK.replace(b"\n", b"\r\n") * 2)
    assert check_data(spec(folder / "data")).files["train.jsonl"].rows == 2


@pytest.mark.parametrize("empty", [True, False])
def test_missing_validation_set_is_noted(folder: Path, empty: bool) -> None:
    valid = folder / "data" / "valid.jsonl"
    valid.write_bytes(b"")
    if not empty:
        valid.unlink()
    assert check_data(spec(folder / "data")).notes == ("no validation set",)


def test_fewer_rows_than_batch_refused(folder: Path) -> None:
    train = folder / "data" / "train.jsonl"
    write_rows(train, ROWS[:3])
    with pytest.raises(DataInvalid, match="3 rows, but batch_size is 4"):
        check_data(spec(folder / "data", batch_size=4))
    write_rows(train, ROWS[:1])
    with pytest.raises(DataInvalid, match="1 row, but batch_size is 4"):
        check_data(spec(folder / "data", batch_size=4))


@pytest.mark.parametrize("content", [None, b""])
def test_test_without_rows_is_refused(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / "data" / "test.jsonl").write_bytes(content)
    check_data(spec(folder / "data"))
    with pytest.raises(DataInvalid, match=r"/test.jsonl: no rows"):
        check_data(spec(folder / "data", test=True))


ROWS_TO_ACCEPT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("chat", {}, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    ("chat", {}, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, CALL], "tools": [{}]}),
    ("chat", {}, {"messages": [CALL], "tools": None}),
    ("chat", {"chat_feature": "talk"}, {"talk": [{"role": "user", "content": "a"}], "text": "x"}),
    ("text", {}, {"text": "a", "source": 3}),
    ("text", {"text_feature": "body"}, {"body": "a"}),
    ("completions", {}, {"prompt": "", "completion": "b", "messages": []}),
    ("completions", {"prompt_feature": "q", "completion_feature": "a", "mask_prompt": True}, {"q": "x", "a": "y"}),
    ("chat", {}, {"prompt": "x", "messages": [{"role": "user", "content": "\U0001f600"}]}),
]


@pytest.mark.parametrize(("name", "keys", "row"), ROWS_TO_ACCEPT)
def test_mlx_lm_formats_are_accepted(folder: Path, name: str, keys: dict[str, Any], row: dict[str, Any]) -> None:
    for file in ("train.jsonl", "valid.jsonl"):
        write_rows(folder / "data" / file, [row, row])
    assert check_data(spec(folder / "data", **keys)).files["train.jsonl"].format == name


def test_mask_prompt_of_text_is_refused(folder: Path) -> None:
    (folder / "data" / "train.jsonl").write_bytes(TEXT)
    with pytest.raises(DataInvalid, match=r"/train.jsonl:1: .*remove 'mask_prompt'"):
        check_data(spec(folder / "data", mask_prompt=True))


def test_missing_data_is_refused(folder: Path) -> None:
    data = folder / "data"
    for path, text in ((folder / "none", "no such folder"), (data / "train.jsonl", "is a file")):
        with pytest.raises(DataInvalid) as caught:
            check_data(spec(path))
        assert str(caught.value).startswith(f"{path}: data: {text}")
    (data / "train.jsonl").unlink()
    with pytest.raises(DataInvalid, match=r"/data/train\.jsonl: no such file"):
        check_data(spec(data))


def test_folder_instead_of_file_refused(folder: Path) -> None:
    (folder / "data" / "test.jsonl").mkdir()
    with pytest.raises(DataInvalid, match=r"/test\.jsonl: .*: Is a directory$"):
        check_data(spec(folder / "data"))


def test_hub_data_is_left_to_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()  # stands in for the package; only its presence counts
    monkeypatch.syspath_prepend(str(tmp_path))
    facts = check_data(spec("org/rows"))
    assert (facts.source, facts.name, facts.files) == ("hub", "org/rows", {})
    assert check_data(spec("x", hf_dataset=[{"path": "a"}, {"path": "b"}])).name == "a, b"


def test_hub_data_needs_datasets_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])  # hides an installed package
    with pytest.raises(DataInvalid, match=r"org/rows: .*pip install 'lq\[hub\]'"):
        check_data(spec("org/rows"))
