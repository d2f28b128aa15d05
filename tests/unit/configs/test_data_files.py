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
    OK.rstrip() + b",\n" + OK,
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


def test_missing_validation_set_is_noted(folder: Path) -> None:
    (folder / "data" / "valid.jsonl").unlink()
    assert check_data(spec(folder / "data")).notes == ("no validation set",)


def test_empty_files_count_as_absent(folder: Path) -> None:
    for name in ("valid.jsonl", "test.jsonl"):
        (folder / "data" / name).write_bytes(b"")
    no_validation, no_test = check_data(spec(folder / "data")).notes
    assert "valid.jsonl is empty" in no_validation
    assert "test.jsonl is empty" in no_test


NEAR_MISSES = [
    ("valid", "val.jsonl", "rename"),
    ("valid", "validation.json", "convert"),
    ("valid", "eval.jsonl", "rename"),
    ("valid", "dev-00000-of-00001.parquet", "convert"),
    ("test", "test.jsonl.gz", "unpack"),
    ("train", "train.json", "convert"),
    ("train", "train.jsonl.gz", "unpack"),
    ("train", "train-00000-of-00001.parquet", "convert"),
    ("train", "Train.jsonl", "rename"),
    ("train", "alpaca_cleaned.jsonl", "rename"),
]


@pytest.mark.parametrize(("expected", "name", "remedy"), NEAR_MISSES)
def test_file_with_another_name_is_named(folder: Path, expected: str, name: str, remedy: str) -> None:
    data = folder / "data"
    (data / f"{expected}.jsonl").unlink(missing_ok=True)
    (data / name).write_bytes(b"")
    if expected == "valid":
        (text,) = check_data(spec(data)).notes
    else:
        with pytest.raises(DataInvalid) as caught:
            check_data(spec(data, test=True))
        text = str(caught.value)
    assert name in text
    assert remedy in text


def test_data_one_folder_deeper_is_named(folder: Path) -> None:
    data = folder / "data"
    (data / "data").mkdir()
    (data / "train.jsonl").rename(data / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(DataInvalid, match=r"/train\.jsonl: .*/data/data: "):
        check_data(spec(data))


OTHER_FILES = [
    (b'[\n{"prompt": "a", "completion": "b"},\n{"prompt": "a", "completion": "b"}\n]\n', "JSON array"),
    (b'[{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b"}]', "JSON array"),
    (b'[\n  {\n    "prompt": "a",\n    "completion": "b"\n  }\n]\n', "JSON array"),
    (b'{\n "prompt": "a",\n "completion": "b"\n}\n{\n "prompt": "a",\n "completion": "b"\n}\n', "several lines"),
    (b'{"prompt": "a",\n "completion": "b"}\n', "several lines"),
    (b"\x1f\x8b\x08\x00", "gzip"),
    (b"PAR1\x15\x04", "Parquet"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
]


@pytest.mark.parametrize(("content", "kind"), OTHER_FILES)
def test_other_kind_of_file_is_recognized(folder: Path, content: bytes, kind: str) -> None:
    (folder / "data" / "train.jsonl").write_bytes(content)
    with pytest.raises(DataInvalid, match=rf"/train\.jsonl:1: .*{kind}"):
        check_data(spec(folder / "data"))


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
