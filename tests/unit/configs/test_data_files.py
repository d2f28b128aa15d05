"""Which data is accepted, and what a user reads about a row that cannot be trained on."""

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
from tests.unit.configs.conftest import ROWS, write_rows

OK = b'{"prompt": "a", "completion": "b"}\n'
CHAT = b'{"messages": [{"role": "user", "content": "a"}]}\n'
TEXT = b'{"text": "a"}\n'
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


def spec(folder: Path | str, **keys: Any) -> JobSpec:
    return JobSpec.model_validate({"data": str(folder), "batch_size": 1} | keys)


# the content of train.jsonl -> what is said after its path
WRONG = {
    b"": ": is empty; add rows",
    OK + b"\n": ":2: blank line; remove it",
    OK + b"  \n" + OK: ":2: blank line; remove it",
    b'{"prompt": "a" "completion": "b"}\n': ":1: not JSON: Expecting ',' delimiter in column 16",
    OK + b'{"prompt": "a", "compl\n': ":2: not JSON: Invalid control character in column 23",
    b"\xef\xbb\xbf" + OK: ":1: begins with a byte order mark; save the file as UTF-8 without one",
    OK + b'{"prompt": "caf\xe9", "completion": "b"}\n': ":2: not a text in UTF-8",
    OK + b'{"prompt": "\\ud83d", "completion": "b"}\n': ":2: not a text in UTF-8",
    b"[" * 100_000 + b"\n": ":1: not JSON that Python reads; remove the row",
    b"[1]\n": ':1: must be a JSON object, {"key": value}',
    OK + b'"text"\n': ':2: must be a JSON object, {"key": value}',
    b'{"question": "a"}\n': ":1: no known format; a row has 'prompt' and 'completion', 'messages', or 'text'",
    OK + TEXT: ":2: no 'prompt', but the first row makes this a file of completions rows",
    OK + b'{"prompt": "a"}\n': ":2: no 'completion', but the first row makes this a file of completions rows",
    OK + b'{"prompt": 3, "completion": "b"}\n': ":2: 'prompt' must be text",
    OK + b'{"prompt": "a", "completion": null}\n': ":2: 'completion' must be text",
    OK + b'{"prompt": "a", "completion": " "}\n': ":2: 'completion' is empty; remove the row",
    OK + b'{"prompt": "a", "completion": "b", "tools": {}}\n': ":2: 'tools' must be a list of mappings",
    TEXT + b'{"text": ""}\n': ":2: 'text' is empty; remove the row",
    TEXT + b'{"text": " \\n"}\n': ":2: 'text' is empty; remove the row",
    TEXT + b'{"text": ["a"]}\n': ":2: 'text' must be text",
    CHAT + b'{"messages": []}\n': ":2: 'messages' is empty; remove the row",
    CHAT + b'{"messages": "a"}\n': ":2: 'messages' must be a list of messages",
    CHAT + b'{"messages": ["a"]}\n': ":2: messages[0]: must be a mapping with 'role' and 'content'",
    CHAT + b'{"messages": [{"content": "a"}]}\n': ":2: messages[0]: 'role' must be text such as user or assistant",
    CHAT + b'{"messages": [{"role": "user"}]}\n': ":2: messages[0]: no 'content'",
    CHAT + b'{"messages": [{"role": "user", "content": 3}]}\n': ":2: messages[0]: 'content' must be text",
    CHAT + b'{"messages": [{"role": "user", "content": null, "tool_calls": []}]}\n': ":2: messages[0]: 'content' "
    "must be text",
    CHAT + b'{"messages": [{"role": "user", "content": " "}]}\n': ":2: 'messages' is empty; remove the row",
}


@pytest.mark.parametrize("content", WRONG, ids=lambda content: hashlib.sha256(content).hexdigest()[:6])
def test_a_row_that_cannot_be_trained_on_is_named_with_its_line(folder: Path, content: bytes) -> None:
    train = folder / "data" / "train.jsonl"
    train.write_bytes(content)
    with pytest.raises(DataInvalid) as caught:
        check_data(spec(folder / "data"))
    assert str(caught.value) == f"{train}{WRONG[content]}"


@pytest.mark.parametrize("name", ["valid.jsonl", "test.jsonl"])
def test_the_other_files_are_checked_as_well(folder: Path, name: str) -> None:
    (folder / "data" / name).write_bytes(OK + b"\n")
    with pytest.raises(DataInvalid, match=rf"/{name}:2: blank line; remove it$"):
        check_data(spec(folder / "data"))


def test_the_facts_are_those_of_the_files(folder: Path) -> None:
    facts = check_data(spec(folder / "data", batch_size=8))
    content = (folder / "data" / "train.jsonl").read_bytes()
    train = facts.files["train.jsonl"]
    assert train.path == str(folder / "data" / "train.jsonl")
    assert (train.rows, train.bytes, train.format) == (8, len(content), "completions")
    assert train.sha256 == hashlib.sha256(content).hexdigest()
    assert (facts.source, facts.name, facts.notes) == ("folder", str(folder / "data"), ())
    assert list(facts.files) == ["train.jsonl", "valid.jsonl"]
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["files"]["valid.jsonl"]["rows"] == 2


def test_a_last_line_without_a_line_break_counts(folder: Path) -> None:
    (folder / "data" / "train.jsonl").write_bytes(OK + OK.rstrip())
    assert check_data(spec(folder / "data")).files["train.jsonl"].rows == 2


def test_windows_line_breaks_are_read(folder: Path) -> None:
    (folder / "data" / "train.jsonl").write_bytes(OK.replace(b"\n", b"\r\n") * 2)
    assert check_data(spec(folder / "data")).files["train.jsonl"].rows == 2


@pytest.mark.parametrize("empty", [True, False])
def test_no_validation_set_is_told_and_allowed(folder: Path, empty: bool) -> None:
    valid = folder / "data" / "valid.jsonl"
    valid.write_bytes(b"")
    if not empty:
        valid.unlink()
    assert check_data(spec(folder / "data")).notes == ("no validation set",)


def test_fewer_rows_than_a_batch_are_refused(folder: Path) -> None:
    train = folder / "data" / "train.jsonl"
    write_rows(train, ROWS[:3])
    with pytest.raises(DataInvalid) as caught:
        check_data(spec(folder / "data", batch_size=4))
    assert str(caught.value) == f"{train}: 3 rows, but batch_size is 4: add rows or lower batch_size"
    write_rows(train, ROWS[:1])
    with pytest.raises(DataInvalid, match="1 row, but batch_size is 4"):
        check_data(spec(folder / "data", batch_size=4))


@pytest.mark.parametrize("content", [None, b""])
def test_a_test_without_rows_is_refused(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / "data" / "test.jsonl").write_bytes(content)
    check_data(spec(folder / "data"))
    with pytest.raises(DataInvalid, match=r"/test.jsonl: no rows, but the job says 'test: true'"):
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
def test_every_format_of_mlx_lm_is_known(folder: Path, name: str, keys: dict[str, Any], row: dict[str, Any]) -> None:
    for file in ("train.jsonl", "valid.jsonl"):
        write_rows(folder / "data" / file, [row, row])
    assert check_data(spec(folder / "data", **keys)).files["train.jsonl"].format == name


def test_masking_the_prompt_of_text_is_refused(folder: Path) -> None:
    (folder / "data" / "train.jsonl").write_bytes(TEXT)
    with pytest.raises(DataInvalid) as caught:
        check_data(spec(folder / "data", mask_prompt=True))
    assert str(caught.value).endswith(
        "/train.jsonl:1: text rows have no prompt to mask; remove 'mask_prompt' or use prompt and completion"
    )


def test_data_that_is_not_there_is_named_with_the_path_tried(folder: Path) -> None:
    said = {
        folder / "none": "data: no such folder (a data set on the Hugging Face hub is named org/name)",
        folder / "data" / "train.jsonl": "data: is a file; name the folder that holds train.jsonl",
    }
    for place, text in said.items():
        with pytest.raises(DataInvalid) as caught:
            check_data(spec(place))
        assert str(caught.value) == f"{place}: {text}"
    (folder / "data" / "train.jsonl").unlink()
    with pytest.raises(DataInvalid) as caught:
        check_data(spec(folder / "data"))
    assert str(caught.value) == f"{folder}/data/train.jsonl: no such file; a data folder holds train.jsonl"


def test_a_folder_in_the_place_of_a_file_is_named(folder: Path) -> None:
    (folder / "data" / "test.jsonl").mkdir()
    with pytest.raises(DataInvalid, match=r"/test.jsonl: cannot be read: Is a directory$"):
        check_data(spec(folder / "data"))


def test_data_of_the_hub_is_left_to_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()  # stands in for the package; only its presence counts
    monkeypatch.syspath_prepend(str(tmp_path))
    facts = check_data(spec("org/rows"))
    assert (facts.source, facts.name, facts.files) == ("hub", "org/rows", {})
    assert check_data(spec("x", hf_dataset=[{"path": "a"}, {"path": "b"}])).name == "a, b"


def test_data_of_the_hub_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])  # wherever this runs, the package is not to be found
    with pytest.raises(DataInvalid) as caught:
        check_data(spec("org/rows"))
    assert str(caught.value) == (
        "org/rows: data: no such folder, and a data set of the Hugging Face hub needs one more package; "
        "run: pip install 'lq[hub]'"
    )
