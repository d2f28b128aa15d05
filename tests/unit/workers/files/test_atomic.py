"""Atomic file writes and capped logs."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from workers.files.atomic import cap_log, fsync_file, older_log, write_atomically, write_json


def test_reader_gets_old_or_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    contents = [letter * 200_000 for letter in "abcdef"]
    write_atomically(path, contents[0])
    over = threading.Event()
    contents_read: set[str] = set()

    def look() -> None:
        while not over.is_set():
            contents_read.add(path.read_text())

    reader = threading.Thread(target=look)
    reader.start()
    for content in contents[1:]:
        write_atomically(path, content)
    over.set()
    reader.join()
    assert contents_read <= set(contents)
    assert path.read_text() == contents[-1]


def test_file_is_private_without_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    write_atomically(path, b"\x00new\xff")
    assert path.read_bytes() == b"\x00new\xff"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_leftover_partial_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.partial").write_text("half of something much longer than what comes")
    write_atomically(tmp_path / "a.txt", "whole")
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"a.txt": "whole"}


def test_failed_write_keeps_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    (tmp_path / ".a.txt.partial").mkdir()
    with pytest.raises(OSError):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_json_is_not_ascii_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Zoë", "n": [1, None]})
    text = (tmp_path / "a.json").read_text()
    assert "Zoë" in text
    assert text.endswith("\n")
    assert json.loads(text) == {"name": "Zoë", "n": [1, None]}


def test_folder_can_be_flushed(tmp_path: Path) -> None:
    fsync_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync_file(tmp_path / "nothing")


def test_capped_log_keeps_newest_part(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(1000):
            writer.write(f"line {number}\n".encode())
            cap_log(path, 2000)
        assert path.stat().st_size <= 2000
    kept = older_log(path).read_text() + path.read_text()
    assert kept.endswith("line 998\nline 999\n")
    assert len(kept) > 2000
    assert kept.splitlines()[1:] == [f"line {number}" for number in range(1000)][-len(kept.splitlines()) + 1 :]
    assert not cap_log(path, 2000)
    assert not cap_log(tmp_path / "none", 2000)
