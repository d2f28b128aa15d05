"""The doctor on real homes: what it finds, that it changes nothing, and that nothing it meets stops it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.commands.doctor import lines
from orchestrator.core.paths import Home
from orchestrator.doctor import examine as examination
from orchestrator.doctor.check import Check, CheckState
from orchestrator.doctor.examine import CHECKS, run_check
from orchestrator.doctor.readings import Readings
from orchestrator.service.units import file_path, parse
from orchestrator.store.store import Store
from orchestrator.store.versions import MIGRATIONS, version_of
from tests.harness import InProcess, Lq, processes_of
from workers.mlx.device import DeviceQuery

ROOT = Path(__file__).parents[4]
NEED_MLX = {"mlx", "compiler", "memory", "display"}
CHECK = {"name", "state", "says", "advice"}


def looked(name: str, home: Path, **environment: str) -> Check:
    """Make one check that needs no MLX; whatever happens, it gives a line."""
    return run_check(name, Readings(Home(home), environment, DeviceQuery()))


def told(answer: str) -> dict[str, dict[str, Any]]:
    """Return what --json printed, by the checks' names."""
    content = json.loads(answer)
    assert set(content) == {"schema", "checks"}
    assert content["schema"] == 1
    assert all(set(check) == CHECK for check in content["checks"])
    return {check["name"]: check for check in content["checks"]}


def test_missing_home_is_not_created(tmp_path: Path) -> None:
    home = tmp_path / "home"
    answer = InProcess(home)("doctor")
    assert not home.exists()
    assert answer.err == ""
    shown = answer.out.splitlines()
    assert max(map(len, shown)) <= 80
    assert "\x1b" not in answer.out
    names = [line[6:16].strip() for line in shown if re.match(r"(ok|warn|fail) ", line)]
    assert names == list(CHECKS)
    assert re.fullmatch(r"\d+ ok, \d+ warnings, 0 failed", shown[-1])
    assert re.search(r"^ok    mlx +mlx \d", answer.out, re.MULTILINE)
    assert re.search(r"^ok    store +does not exist yet", answer.out, re.MULTILINE)


def test_failure_sets_exit_code_and_json(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "lq.db").write_bytes(b"this is no database, and quite long enough to be none" * 40)
    (home / "settings.yaml").write_text("notify: {services: [{url: 'json://u:secret@127.0.0.1:9/'}]}\nslots: many\n")
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    answer = InProcess(home)("doctor", "--json", expect=6)
    assert answer.err == f"lq: 2 of {len(CHECKS)} checks failed: store, notify\n"
    assert "secret" not in answer.out
    found = told(answer.out)
    assert "damaged" in found["store"]["says"]
    assert "settings.yaml" in found["notify"]["says"]
    assert found["privacy"]["state"] == "warn"
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    assert home.stat().st_mode & 0o777 == 0o755, "the doctor changes nothing"


def test_a_worker_is_known_by_its_version(lq: Lq) -> None:
    lq("worker", "--detach")
    here = importlib.metadata.version("lq")
    assert looked("worker", lq.home).says == f"runs, pid {lq.worker()}, lq {here}"
    lq("worker", "stop")
    assert looked("worker", lq.home).says.startswith("not running")
    assert processes_of(lq.home) == []


def test_doctor_leaves_the_store_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "lq.db"
    assert version_of(path) is None
    assert not path.exists()
    Store.open(path).close()
    newest = int(MIGRATIONS.newest)
    assert looked("store", tmp_path).says == f"opens, version {newest}"
    for version in (newest - 1, newest + 5):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (f"{version:04d}",))
        before = path.read_bytes()
        assert looked("store", tmp_path).state is CheckState.FAIL
        assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir() if one.suffix == ".bak"] == []


def test_another_database_is_no_store(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "lq.db")) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    check = looked("store", tmp_path)
    assert check.state is CheckState.FAIL
    assert "not a store of lq" in check.says


def test_services_are_shown_without_urls(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.touch(mode=0o600)
    path.write_text("notify: {services: [{url: 'json://u:secret@h/', name: phone}, {url: 'ntfy://topic42'}]}\n")
    check = looked("notify", tmp_path)
    assert check.says == "2 services: phone, ntfy 2; test with: lq notify test"
    path.chmod(0o644)
    check = looked("notify", tmp_path)
    assert check.state is CheckState.FAIL
    assert "chmod 600" in check.says


@pytest.mark.parametrize("name", sorted(set(CHECKS) - NEED_MLX))
def test_unusual_homes_stop_no_check(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for home in (tmp_path / "file", tmp_path / "file" / "below", loop, loop / "x", Path("/proc/1/nothing"), Path("/")):
        check = looked(name, home, HF_HOME=str(home), TZ="No/Where", PYTHONPATH=f"{home}:::\t")
        assert check.name == name
        assert check.says


def test_home_below_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = looked("home", tmp_path / "file" / "lq")
    assert check.state is CheckState.FAIL
    assert check.says == f"{tmp_path}/file is not a folder"
    assert looked("worker", tmp_path / "file" / "lq").says == "not running; lq submit starts it"


def test_links_in_a_circle_are_no_home(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    check = looked("home", loop)
    assert check.state is CheckState.FAIL
    assert "cannot be reached" in check.says


def test_a_synchronised_home_fails(tmp_path: Path) -> None:
    assert looked("home", tmp_path / "Dropbox" / "lq").state is CheckState.FAIL


def test_broken_check_does_not_stop_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Readings) -> Check:
        raise RuntimeError("an unusual machine")

    monkeypatch.setattr(examination, "CHECKS", {**CHECKS, "clock": breaks})
    checks = {check.name: check for check in examination.examine(Home(tmp_path), os.environ)}
    assert checks["clock"].state is CheckState.WARN
    assert checks["clock"].says == "this check failed to run: RuntimeError: an unusual machine"
    assert set(checks) == set(CHECKS)
    assert checks["mlx"].state is CheckState.OK


def test_shadowing_of_a_package_is_reported(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("")
    check = looked("packages", tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    assert check.state is CheckState.WARN
    assert str(tmp_path / "jobs.py") in check.says
    assert looked("packages", tmp_path, PYTHONPATH=str(ROOT)).state is CheckState.OK


def test_hub_check_hides_the_token(tmp_path: Path) -> None:
    cache = tmp_path / "hf"
    bare = looked("hub", tmp_path, HF_HOME=str(cache))
    assert f"cache {cache}/hub; no token" in bare.says
    cache.mkdir()
    (cache / "token").write_text("hf_secret")
    for more in ({}, {"HF_TOKEN": "hf_secret"}):
        check = looked("hub", tmp_path, HF_HOME=str(cache), **more)
        assert check.says.endswith("token set")
        assert "hf_secret" not in check.says
    assert looked("hub", tmp_path, HF_HOME=str(cache), HF_HUB_OFFLINE="1").state is CheckState.WARN


UNIT = """[Service]
ExecStart="{python}" "-P" "-m" "orchestrator.cli" "worker"
Environment="LQ_HOME={home}" "PATH=/usr/bin"
"""


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        (UNIT.format(python="/bin/sh", home="{home}"), CheckState.OK, "starts a worker after a login"),
        (UNIT.format(python="/bin/sh", home="/other"), CheckState.WARN, "serves /other"),
        (UNIT.format(python="/gone/python", home="{home}"), CheckState.FAIL, "/gone/python, which does not exist"),
        ("[Service]\n", CheckState.FAIL, "names no program"),
        ("[Service]\nExecStart=/bin/sh -c x\n", CheckState.OK, "starts a worker"),
    ],
)
def test_the_file_of_a_service_is_read(tmp_path: Path, text: str, state: CheckState, words: str) -> None:
    home = tmp_path / "home"
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    place = file_path("systemd", environment)
    assert looked("service", home, **environment).state is CheckState.WARN
    place.parent.mkdir(parents=True)
    place.write_text(text.replace("{home}", str(home)))
    check = looked("service", home, **environment)
    assert check.state is state
    assert words in check.says


def test_the_file_of_a_macs_service_is_read() -> None:
    plist = b"""<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict>
    <key>ProgramArguments</key><array><string>/p/python</string><string>-P</string></array>
    <key>EnvironmentVariables</key><dict><key>LQ_HOME</key><string>/h</string></dict></dict></plist>"""
    path = file_path("launchd", {})
    assert path.name == "local.lq.worker.plist"
    assert (parse("launchd", plist, path).program, parse("launchd", plist, path).home) == (Path("/p/python"), "/h")
    for content in (b"", b"rubbish", b"<plist><array/></plist>", b"<plist><dict/></plist>"):
        file = parse("launchd", content, path)
        assert (file.program, file.home, file.search_path) == (None, None, None)


def test_lines_fit_the_terminal() -> None:
    long = Check(name="a very long name", state=CheckState.FAIL, says="x" * 200 + " and more", advice="do " * 60)
    assert max(map(len, lines(long))) <= 80
    assert lines(Check(name="disk", state=CheckState.OK, says="")) == ["ok    disk"]
