"""settings.yaml: defaults, errors, and secrecy of the notification URLs."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from configs.load import load_jobs
from configs.settings import Settings, load_settings
from jobs.model.errors import ConfigInvalid
from tests.golden import assert_golden

GOLDEN = Path(__file__).parent / "golden"
SECRET = "json://me:hunter2@host/topic"

WRONG = [
    "autostart: maybe",
    "autostrat: true",
    "slots: 0",
    "lr: 3",
    "notify: {digest: 7}",
    "notify: {digest: '24:00'}",
    "notify: {digest: 21:30}",
    "notify: {quiet: '23:00'}",
    "notify: {quiet: '7:00-07:00'}",
    "notify: {desktop: yes please}",
    "notify: {desktop: true, services: [{url: 'a://b', name: desktop}]}",
    "services: []",
    "defaults: {prority: 3}",
    "defaults:\n  retry:\n    max_restarts: -1",
    "defaults: {window: x}",
    "defaults: {notify: {on: [digest]}}",
    "format: 2",
    "[]",
    "a: [",
]

# each contains the secret; no message may contain it
WRONG_SERVICES = [
    f"notify: {SECRET}",
    f"notify: {{services: '{SECRET}'}}",
    f"notify:\n  services:\n    - {SECRET}",
    f"notify:\n  services:\n    - {{url: ['{SECRET}']}}",
    f"notify:\n  services:\n    - {{url: '{SECRET}', on: '{SECRET}'}}",
    f"notify:\n  services:\n    - {{url: '{SECRET}', on: [failed, '{SECRET}']}}",
    f"notify:\n  services:\n    - {{url: '{SECRET}', name: '{SECRET}'}}",
    f"notify:\n  services:\n    - {{url: '{SECRET}', nmae: '{SECRET}'}}",
    f"notify:\n  services:\n    - {{tags: [a], '{SECRET}': x}}",
    f"notify:\n  services:\n    - {{url: a://b, '{SECRET}': x}}",
    f"notify:\n  services:\n    - {{'{SECRET}': x, '{SECRET}': x}}",
    "notify:\n  services:\n    - {url: hunter2}",
    f"notify:\n  services:\n    - url: '{SECRET}",
    f"notify:\n  services:\n    - url: !{SECRET} x",
    f"autostart: {SECRET}",
    f"{SECRET}: true",
    f"notify:\n  services:\n    - url: '{SECRET}/${{LQ_ABSENT}}'",
    f"notify:\n  services:\n    - url: '{SECRET}/${{hunter2://'",
    f"notify:\n  services:\n    - url: '{SECRET}/${{keyring:hunter2}}'",
    f"notify: {{ping: '{SECRET}'}}",
    f"notify: {{ping: ['{SECRET}']}}",
    "notify: {ping: 'https://hunter2/${LQ_ABSENT}'}",
    f"notify: {{digest: '{SECRET}'}}",
    f"notify:\n  services:\n    - {{url: '{SECRET}', name: a}}\n    - {{url: '{SECRET}', name: a}}",
]


def write(tmp_path: Path, text: str, *, mode: int = 0o600) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(path: Path) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(path, environ={})
    return caught.value


def test_wrong_settings_golden(tmp_path: Path) -> None:
    entries = []
    for text in WRONG:
        path = write(tmp_path, text)
        entries.append(f"{text}\n-> {refused(path)}\n".replace(str(path), "settings.yaml"))
    assert_golden("\n".join(entries), GOLDEN / "wrong_settings.txt")


def test_wrong_services_golden(tmp_path: Path) -> None:
    entries = []
    for text in WRONG_SERVICES:
        path = write(tmp_path, text)
        entries.append(f"{text}\n-> {refused(path)}\n".replace(str(path), "settings.yaml"))
    assert_golden("\n".join(entries), GOLDEN / "wrong_services.txt")


@pytest.mark.parametrize("text", WRONG_SERVICES)
def test_errors_hide_the_service_url(tmp_path: Path, text: str) -> None:
    error = refused(write(tmp_path, text))
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert error.__context__ is None  # no chained error that a logger could print


def test_missing_file_gives_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "settings.yaml") == Settings()
    assert load_settings(write(tmp_path, "# nothing\n")) == Settings()
    settings = load_settings(write(tmp_path, "notify: null\nslots: 1\n"))
    assert (settings.autostart, settings.slots, settings.notify.services) == (True, 1, ())


def test_urls_expand_environment_variables(tmp_path: Path) -> None:
    text = (
        "notify:\n  services:\n"
        "    - {url: 'ntfys://${NTFY_TOPIC}', tags: [phone], on: [started, failed]}\n"
        "    - {url: 'mailto://a:b@c', name: mail}\n"
    )
    first, second = load_settings(write(tmp_path, text), environ={"NTFY_TOPIC": "t0pic"}).notify.services
    assert first.url.get_secret_value() == "ntfys://t0pic"
    assert (first.name, first.tags, first.on) == (None, ("phone",), ("started", "failed"))
    assert (second.name, second.tags, second.on) == ("mail", (), None)


def test_settings_hide_the_service_url(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, f"notify: {{services: [{{url: '{SECRET}'}}]}}"))
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_readable_urls_are_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, f"notify: {{services: [{{url: '{SECRET}'}}]}}", mode=mode)
    assert f"chmod 600 {path}" in str(refused(path))


def test_settings_without_urls_can_be_public(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "autostart: false", mode=0o644)).autostart is False


def test_job_inherits_settings_defaults(folder: Path) -> None:
    settings = load_settings(write(folder, "defaults: {priority: 7, checkpoint: {every: 5min}}"))
    job = folder / "job.yaml"
    job.write_text("model: model\ndata: data\nnum_layers: 4\nlq: {priority: 1}")
    lq = load_jobs(job, defaults=settings.defaults)[0].spec.lq
    assert (lq.priority, lq.checkpoint.every, lq.retry.max_restarts) == (1, 300.0, 5)


@pytest.mark.parametrize("url", ["lab.example.org", "https://me:word@lab.example.org", "https://lab example.org"])
def test_web_url_needs_an_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigInvalid):
        load_settings(write(tmp_path, f"web: {{url: '{url}'}}"))
    assert load_settings(write(tmp_path, "web: {url: 'http://10.0.0.2:8080/'}")).web.url == "http://10.0.0.2:8080"
