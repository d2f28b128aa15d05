"""Data that the model would not see as meant: what `lq submit`, `lq check` and `lq plan` say before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.demo.tiny_model import build_data, build_model
from tests.golden import assert_golden
from tests.harness import Answer, InProcess

GOLDEN = Path(__file__).parent / "golden"
Row = dict[str, Any]

ASK, ANSWER = {"role": "user", "content": "What is 1 plus 1?"}, {"role": "assistant", "content": "two"}
CHAT: Row = {"messages": [ASK, ANSWER]}
ENDS_WITH_USER: Row = {"messages": [ASK, ANSWER, ASK]}
PARTS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1 plus 1?"}]
LONG: Row = {"messages": [{"role": "user", "content": "plus " * 200}, ANSWER]}


class Shop:
    """A folder with a model, data, a job file and a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        build_model(folder / "model")
        build_data(folder / "data", train=24, valid=8, test=8)
        self.lq = InProcess(folder / "home")

    def rows(self, name: str, rows: Sequence[Row]) -> None:
        (self.folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def template(self, template: str) -> None:
        path = self.folder / "model" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))

    def job(self, **keys: Any) -> Path:
        path = self.folder / "job.yaml"
        model, data = str(self.folder / "model"), str(self.folder / "data")
        usual = {"model": model, "data": data, "num_layers": -1, "iters": 8, "batch_size": 2}
        path.write_text(yaml.safe_dump(usual | keys))
        return path

    def submit(self, expect: int = 0, **keys: Any) -> str:
        """Check a job file as submit does, and return what it says on stderr."""
        answer: Answer = self.lq("submit", "--dry-run", self.job(**keys), expect=expect)
        return answer.err.replace(f"{self.folder}/", "")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path)


def test_good_data_needs_no_note(shop: Shop) -> None:
    assert shop.submit(mask_prompt=True) == ""


def refused_by_template(shop: Shop) -> None:
    shop.template("{% if messages | length == 3 %}{{ raise_exception('Roles must alternate') }}{% endif %}")
    shop.rows("train", [*[CHAT] * 5, {"messages": [ASK, ASK, ANSWER]}, CHAT])


def picture(shop: Shop) -> None:
    shop.rows("valid", [CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER]}])


def no_tokenizer(shop: Shop) -> None:
    (shop.folder / "model" / "tokenizer.json").unlink()


def no_template(shop: Shop) -> None:
    path = shop.folder / "model" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["chat_template"]
    path.write_text(json.dumps(settings))


def nothing_to_train(shop: Shop) -> None:
    shop.rows("train", [ENDS_WITH_USER] * 3 + [LONG] * 2 + [CHAT])


def nothing_to_test(shop: Shop) -> None:
    shop.rows("test", [ENDS_WITH_USER] * 3)


REFUSED: list[Callable[[Shop], None]] = [
    refused_by_template, picture, no_tokenizer, no_template, nothing_to_train, nothing_to_test,
]  # fmt: skip


def test_unusable_data_is_refused_golden(tmp_path: Path) -> None:
    entries = []
    for spoil in REFUSED:
        shop = Shop(tmp_path / spoil.__name__)
        spoil(shop)
        text = shop.submit(expect=2, mask_prompt=True, max_seq_length=64, test=True)
        assert shop.lq("plan", shop.job(mask_prompt=True, max_seq_length=64, test=True), expect=2).err
        entries.append(f"{spoil.__name__}\n-> {text}")
    assert_golden("\n".join(entries), GOLDEN / "unusable_data.txt")


def ends_with_user(shop: Shop) -> None:
    shop.rows("train", [CHAT] * 4 + [ENDS_WITH_USER] * 2)


def cut_off(shop: Shop) -> None:
    shop.rows("valid", [CHAT, *[LONG] * 6, CHAT])


def cut_short(shop: Shop) -> None:
    shop.rows("valid", [CHAT, {"messages": [ASK, {"role": "assistant", "content": "plus " * 200}]}, LONG])


def no_validation_left(shop: Shop) -> None:
    shop.rows("valid", [LONG] * 3)


def empty_files(shop: Shop) -> None:
    shop.rows("valid", [])
    shop.rows("test", [])


def other_name(shop: Shop) -> None:
    (shop.folder / "data" / "valid.jsonl").rename(shop.folder / "data" / "val.jsonl")


def no_tokenizer_file(shop: Shop) -> None:
    (shop.folder / "model" / "tokenizer.json").rename(shop.folder / "model" / "tokenizer.model")


NOTED: list[Callable[[Shop], None]] = [
    ends_with_user, cut_off, cut_short, no_validation_left, empty_files, other_name, no_tokenizer_file,
]  # fmt: skip


def test_rows_left_out_are_noted_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = []
    for spoil in NOTED:
        shop = Shop(tmp_path / spoil.__name__)
        monkeypatch.chdir(shop.folder)
        spoil(shop)
        text = shop.submit(mask_prompt=True, max_seq_length=64)
        notes = shop.lq.json("plan", shop.job(mask_prompt=True, max_seq_length=64))["jobs"][0]["notes"]
        assert all(line.removeprefix("note: ") in notes for line in text.splitlines())
        entries.append(f"{spoil.__name__}\n-> {text}")
    assert_golden("\n".join(entries), GOLDEN / "rows_left_out.txt")


def test_same_data_is_checked_for_each_model(shop: Shop) -> None:
    """The jobs of a sweep share one check only if model and mask are the same, too."""
    build_model(shop.folder / "other")
    (shop.folder / "other" / "chat_template.jinja").write_text("{{ raise_exception('No') }}")
    assert "No" in shop.submit(expect=2, lq={"matrix": {"model": ["model", "other"]}})
    shop.rows("train", [CHAT] * 4 + [ENDS_WITH_USER])
    assert "1 of 5" in shop.submit(lq={"matrix": {"mask_prompt": [False, True]}})


def test_second_submit_reads_the_result(shop: Shop) -> None:
    """A result on the disk stands for the rows, so a changed result shows that they are not rendered again."""
    shop.lq("submit", shop.job())
    shop.submit()
    kept = sorted((shop.folder / "home" / "cache" / "lengths").iterdir())
    assert len(kept) == 3
    for path in kept:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"left_out": {"cut_off": [0]}}))
    assert shop.submit().count("line 1") == 3


def test_shown_row_is_the_one_asked_for(shop: Shop) -> None:
    shop.rows("train", [{"prompt": [ASK], "completion": [ANSWER]}, {"prompt": PARTS, "completion": "two"}])
    shop.rows("valid", [LONG])
    (row,) = shop.lq.json("check", "--show-row", "2", shop.job(mask_prompt=True))["rows"]
    assert row["text"] == "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n"
    assert [part["text"] for part in row["learned"]] == ["two<|im_end|>\n"]
    shown = shop.lq("check", "--show-row", "valid:1", shop.job(mask_prompt=True, max_seq_length=64)).out
    assert "⟦" not in shown.partition("\n")[2]
    (row,) = shop.lq.json("check", "--show-row", "valid:1", shop.job(mask_prompt=True, max_seq_length=64))["rows"]
    assert (row["why"], row["learned"], row["learned_tokens"]) == ("cut_off", [], 0)
    for wrong, code in (("0", 2), ("eval:1", 2), ("3", 2), ("test:99", 2)):
        shop.lq("check", "--show-row", wrong, shop.job(), expect=code)
