"""The service: its files word for word, what the two systems are asked. Stand-ins on PATH write down what they get."""

from __future__ import annotations

import configparser
import dataclasses
import json
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.model.errors import InvalidInput, LqError, NotAllowed
from orchestrator.core.paths import Home
from orchestrator.service import install, units
from orchestrator.service.managers import Launchd, Manager, Systemd, manager_of
from orchestrator.service.units import ManagerKind, ServicePlan
from orchestrator.worker import control
from tests.harness import Lq, lives, until

PLAN = ServicePlan(
    command=("/opt/lq/bin/python", "-P", "-m", "orchestrator.cli", "worker", "--standby"),
    home="/home/me/my lq",
    path="/opt/lq/bin:/usr/bin",
    log="/home/me/my lq/worker.start.log",
)
NASTY = dataclasses.replace(
    PLAN, command=('/a "b"/$HOME/%h/\\n/py', "x"), home="/h %i $LQ 'q' \"d\" \\e é <&>", path="/p=q:/r;s"
)

UNIT = """\
# Written by lq service install, which overwrites it.
[Unit]
Description=lq worker for fine-tuning runs
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart="/opt/lq/bin/python" "-P" "-m" "orchestrator.cli" "worker" "--standby"
Environment="LQ_HOME=/home/me/my lq" "PATH=/opt/lq/bin:/usr/bin"
WorkingDirectory=/
UMask=0077
Restart=on-failure
RestartSec=10
OOMPolicy=continue
KillMode=mixed
TimeoutStopSec=300
StandardOutput=null

[Install]
WantedBy=default.target
"""

LOG = "/home/me/my lq/worker.start.log"
AGENT = {
    "Label": "local.lq.worker",
    "ProgramArguments": ["/opt/lq/bin/python", "-P", "-m", "orchestrator.cli", "worker", "--standby"],
    "EnvironmentVariables": {"LQ_HOME": "/home/me/my lq", "PATH": "/opt/lq/bin:/usr/bin"},
    "WorkingDirectory": "/",
    "RunAtLoad": True,
    "KeepAlive": {"SuccessfulExit": False},
    "ThrottleInterval": 10,
    "ProcessType": "Interactive",
    "ExitTimeOut": 300,
    "Umask": 0o077,
    "StandardOutPath": LOG,
    "StandardErrorPath": LOG,
}

STAND_IN = """\
import json, os, pathlib, psutil, subprocess, sys, plistlib, configparser, shlex, time
home = pathlib.Path(os.environ["HOME"])
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
folder = pathlib.Path(sys.argv[0]).parent
with open(folder / "asked", "a") as asked:
    asked.write(json.dumps([name, *words]) + "\\n")
state = json.loads((folder / "state").read_text())
if state["refuses"] and state["refuses"] in words:
    sys.exit(f"{name}: Failed to {state['refuses']}: no")
def start(command, environment):
    process = subprocess.Popen(command, env=environment, start_new_session=True, cwd="/", stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state["pid"] = process.pid
def stop():
    pid, state["pid"] = state["pid"], 0
    if pid:
        process = psutil.Process(pid)
        process.terminate()
        while process.is_running() and process.status() != "zombie":
            time.sleep(0.01)
def start_unit():
    unit = configparser.RawConfigParser(); unit.optionxform = str
    unit.read(home / ".config/systemd/user/lq.service")
    start(shlex.split(unit["Service"]["ExecStart"]),
          dict(word.split("=", 1) for word in shlex.split(unit["Service"]["Environment"])))
def start_agent():
    agent = plistlib.loads((home / "Library/LaunchAgents/local.lq.worker.plist").read_bytes())
    start(agent["ProgramArguments"], agent["EnvironmentVariables"])
if name == "systemctl":
    verb = words[1]
    if verb == "enable": state["enabled"] = True
    elif verb == "start" and not state["pid"]: start_unit()
    elif verb == "restart": stop(); start_unit()
    elif verb == "disable": state["enabled"] = False; stop()
    elif verb == "show": print(f"UnitFileState={'enabled' if state['enabled'] else ''}\\nMainPID={state['pid']}")
elif name == "launchctl":
    verb = words[0]
    if verb == "enable": state["enabled"] = True
    elif verb == "print-disabled":
        how = "enabled" if state["enabled"] else "disabled"
        print(f'\\tdisabled services = {{\\n\\t\\t"local.lq.worker" => {how}\\n\\t}}')
    elif verb == "bootstrap": state["loaded"] = True; start_agent()
    elif verb == "kickstart": start_agent()
    elif verb == "bootout": state["loaded"] = False; stop()
    elif verb == "print" and words[1].count("/") == 2:
        if not state["loaded"]: sys.exit('Could not find service "local.lq.worker" in domain for user gui: 501')
        print("gui/501/local.lq.worker = {\\n\\tactive count = 1\\n\\tstate = running\\n"
              + (f"\\n\\tpid = {state['pid']}\\n" if state["pid"] else "") + "\\tdomain = gui/501\\n}")
elif name == "loginctl":
    if words[0] == "enable-linger": state["lingers"] = True
    else: print("yes" if state["lingers"] else "no")
(folder / "state").write_text(json.dumps(state))
"""


@dataclasses.dataclass
class Tools:
    """Stand-ins for launchctl, systemctl and loginctl that start and stop the worker as their file says."""

    folder: Path

    def state(self, **changes: Any) -> dict[str, Any]:
        """Return what they know, changed."""
        path = self.folder / "state"
        usual = {"refuses": None, "pid": 0, "enabled": False, "loaded": False, "lingers": False}
        known: dict[str, Any] = (json.loads(path.read_text()) if path.exists() else usual) | changes
        path.write_text(json.dumps(known))
        return known

    def asked(self) -> list[str]:
        """Return what they were asked to change since the last time this was asked."""
        path = self.folder / "asked"
        lines = [" ".join(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        looks = ("show", "print", "print-disabled", "show-environment", "show-user")
        return [line.replace(f"gui/{os.getuid()}", "GUI") for line in lines if not set(line.split()) & set(looks)]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("launchctl", "systemctl", "loginctl"):
        (folder / name).write_text(f"#!{sys.executable}\n{STAND_IN}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    made = Tools(folder)
    made.state()
    return made


# --- the files ---


def test_the_unit_word_for_word() -> None:
    assert units.unit(PLAN).decode() == UNIT


def test_the_agent_word_for_word() -> None:
    assert plistlib.loads(units.plist(PLAN)) == AGENT


@pytest.mark.parametrize("plan", [PLAN, NASTY], ids=["plain", "nasty"])
@pytest.mark.parametrize("kind", ["launchd", "systemd"])
def test_parsed_file_equals_its_plan(kind: ManagerKind, plan: ServicePlan) -> None:
    file = units.parse(kind, manager_of(kind).content(plan), Path("x"))
    assert (file.program, file.home, file.search_path) == (Path(plan.command[0]), plan.home, plan.path)


@pytest.mark.parametrize("kind", ["launchd", "systemd"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\0", b"[Service]\nEnvironment='", b"x", b"<plist><dict/></plist>", b"[]"]
)
def test_unreadable_file_names_no_home(kind: ManagerKind, content: bytes) -> None:
    assert units.parse(kind, content, Path("x")).home is None


def test_the_units_command_stays_whole() -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(units.unit(NASTY).decode())
    (first, _) = shlex.split(parser["Service"]["ExecStart"])
    assert first.replace("$$", "$").replace("%%", "%") == NASTY.command[0]
    assert "$$HOME" in first
    assert "%%h" in first


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("nasty", [False, True])
def test_systemd_accepts_the_unit(tmp_path: Path, nasty: bool) -> None:
    plan = dataclasses.replace(PLAN, command=("/bin/true", '$HOME %h \\x "q"'))
    plan = dataclasses.replace(plan, home=NASTY.home) if nasty else plan
    file = tmp_path / "lq.service"
    file.write_bytes(units.unit(plan))
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    command = ["systemd-analyze", "--user", "verify", "--man=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    file.write_bytes(units.unit(plan).replace(b"OOMPolicy=continue", b"OOMPolicy=perhaps"))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert "OOM policy" in done.stderr  # it would have been noticed


def test_a_plan_runs_this_lq_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"relative:/usr/bin::/no/such:/usr/bin:{tmp_path}")
    plan = install.plan_for(Home(tmp_path))
    assert plan.command == (sys.executable, "-P", "-m", "orchestrator.cli", "worker", "--standby")
    assert plan.path == f"/usr/bin:{tmp_path}"
    assert Path(plan.command[0]).is_absolute()
    with pytest.raises(InvalidInput, match="cannot hold this path"):
        install.plan_for(Home(tmp_path / "two\nlines"))


# --- installed, handed over, taken away ---


def changes(kind: str) -> tuple[Manager, list[str], list[str], list[str]]:
    """Return a manager, and what it is asked: to load, to load a changed file, to unload."""
    if kind == "systemd":
        load = ["systemctl --user daemon-reload", "systemctl --user enable lq.service"]
        unload = ["systemctl --user disable --now lq.service", "systemctl --user daemon-reload"]
        first = [*load, "systemctl --user start lq.service", "loginctl enable-linger"]
        return Systemd(), first, [*load, "systemctl --user restart lq.service"], unload
    agent = Path.home() / "Library/LaunchAgents/local.lq.worker.plist"
    bootstrap = ["launchctl enable GUI/local.lq.worker", f"launchctl bootstrap GUI {agent}"]
    bootout = ["launchctl bootout GUI/local.lq.worker"]
    return Launchd(), bootstrap, [*bootout, *bootstrap], bootout


@pytest.mark.parametrize("kind", ["launchd", "systemd"])
def test_uninstall_removes_what_install_made(kind: str, tools: Tools, lq: Lq) -> None:
    home = Home(lq.home)
    said: list[str] = []
    manager, first, changed, unload = changes(kind)
    before = install.state(home, manager)
    assert (before.installed, before.outdated, before.missing, before.pid) == (False, False, None, None)

    install.install(home, manager, said.append)
    assert tools.asked() == first
    pid = tools.state()["pid"]
    assert said == [
        f"wrote {manager.file()}",
        f"the service's worker runs (pid {pid}) and serves {lq.home}",
    ]
    assert lq.worker() == pid
    assert manager.file().stat().st_mode & 0o777 == 0o644
    after = install.state(home, manager)
    lingers = True if kind == "systemd" else None
    wanted = (True, False, str(lq.home), True, pid, lingers)
    assert (after.installed, after.outdated, after.home, after.enabled, after.pid, after.lingers) == wanted

    install.install(home, manager, said.append)  # once more changes nothing
    again = [line for line in tools.asked() if "linger" not in line]
    assert again == ([line for line in first if "linger" not in line] if kind == "systemd" else first[:1])
    assert said[2] == f"{manager.file()} is up to date"
    assert tools.state()["pid"] == pid

    manager.file().write_bytes(manager.file().read_bytes().replace(b"300", b"3"))
    assert install.state(home, manager).outdated
    install.install(home, manager, said.append)
    assert tools.asked() == changed
    until(lambda: not lives(pid), "the former worker to be gone")
    assert not install.state(home, manager).outdated

    install.uninstall(manager, said.append)
    assert tools.asked() == unload
    assert not manager.file().exists()
    until(lambda: control.running(home) is None, "the worker to be gone")
    install.uninstall(manager, said.append)
    assert said[-1].startswith("no service is installed")


@pytest.mark.parametrize("kind", ["launchd", "systemd"])
def test_running_worker_hands_over(kind: str, tools: Tools, lq: Lq) -> None:
    detached = lq.start_worker()
    said: list[str] = []
    install.install(Home(lq.home), manager_of(kind), said.append)
    assert f"worker {detached} stopped; its trainers continue" in said
    assert not lives(detached)
    assert lq.worker() == tools.state()["pid"]
    install.uninstall(manager_of(kind), said.append)


def test_submit_uses_the_service_worker(tools: Tools, lq: Lq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "native_kind", lambda: "systemd")
    home, manager = Home(lq.home), Systemd()
    install.install(home, manager, lambda _: None)
    lq("worker", "stop")
    until(lambda: not lives(tools.state()["pid"]), "it to be gone")
    tools.state(pid=0)
    tools.asked()
    pid = install.start_worker(home)
    assert tools.asked() == ["systemctl --user start lq.service"]
    assert pid == tools.state()["pid"] == lq.worker()
    install.uninstall(manager, lambda _: None)
    until(lambda: control.running(home) is None, "the worker to be gone")

    detached = install.start_worker(home)  # no service: detached
    assert tools.asked()[2:] == []
    assert lq.worker() == detached


def test_submit_starts_own_worker_if_refused(tools: Tools, lq: Lq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "native_kind", lambda: "systemd")
    home = Home(lq.home)
    home.ensure()
    file = Systemd().file()
    file.parent.mkdir(parents=True)
    file.write_bytes(units.unit(install.plan_for(home)))
    tools.state(refuses="start")
    assert install.start_worker(home) == lq.worker()


def test_service_of_another_home_is_kept(tools: Tools, tmp_path: Path) -> None:
    manager = Systemd()
    manager.file().parent.mkdir(parents=True)
    manager.file().write_bytes(units.unit(PLAN))
    with pytest.raises(NotAllowed, match="serves /home/me/my lq; first run: lq service uninstall"):
        install.install(Home(tmp_path / "home"), manager, lambda _: None)
    assert tools.asked() == []
    assert install.state(Home(tmp_path / "home"), manager).home == "/home/me/my lq"


@pytest.mark.parametrize(("kind", "refuses"), [("systemd", "show-environment"), ("launchd", "print")])
def test_refused_install_writes_nothing(kind: str, refuses: str, tools: Tools, tmp_path: Path) -> None:
    tools.state(refuses=refuses)
    manager = manager_of(kind)
    with pytest.raises(NotAllowed, match=f"Failed to {refuses}: no.*lq service print"):
        install.install(Home(tmp_path / "home"), manager, lambda _: None)
    assert not manager.file().exists()
    assert not (tmp_path / "home").exists()
    found = install.state(Home(tmp_path / "home"), manager)
    assert (found.enabled, found.pid, found.lingers) == (None, None, None)
    assert found.missing is not None
    (tools.folder / {"systemd": "systemctl", "launchd": "launchctl"}[kind]).unlink()
    if shutil.which({"systemd": "systemctl", "launchd": "launchctl"}[kind]) is None:
        assert manager.missing() == f"{'systemctl' if kind == 'systemd' else 'launchctl'} is not installed"


def test_what_the_manager_refuses_is_said(tools: Tools, tmp_path: Path) -> None:
    tools.state(refuses="enable")
    with pytest.raises(LqError, match=r"systemctl --user enable lq\.service: systemctl: Failed to enable: no"):
        install.install(Home(tmp_path / "home"), Systemd(), lambda _: None)


def test_unset_settings_variable_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert install.settings_fault(home) is None
    home.settings.write_text("notify: {services: [{url: 'ntfys://${NTFY_TOPIC}'}]}\n")
    home.settings.chmod(0o600)
    assert "NTFY_TOPIC is not set" in (install.settings_fault(home) or "")


# --- as it is typed ---


@pytest.mark.usefixtures("tools")
def test_status_and_print_commands(tmp_path: Path) -> None:
    lq = Lq(tmp_path / "home")
    state = lq.json("service", "status", "--kind", "launchd")["service"]
    assert state == {
        "kind": "launchd",
        "path": str(tmp_path / "Library/LaunchAgents/local.lq.worker.plist"),
        "installed": False,
        "home": None,
        "outdated": False,
        "missing": None,
        "enabled": False,
        "pid": None,
        "lingers": None,
    }
    assert "lq service install" in lq("service", "status", "--kind", "systemd").out
    agent = plistlib.loads(lq("service", "print", "--kind", "launchd").out.encode())
    assert agent["EnvironmentVariables"]["LQ_HOME"] == str(lq.home)
    assert lq("service", "print", "--kind", "systemd").out.startswith("# Written by lq service install")
    assert lq("service", "uninstall", "--kind", "systemd").out.startswith("no service is installed")
    printed = lq.json("service", "print", "--kind", "systemd")["service"]
    assert printed["text"] == lq("service", "print", "--kind", "systemd").out
    assert lq.json("service", "uninstall", "--kind", "systemd")["service"]["installed"] is False
    assert not lq.home.exists()
