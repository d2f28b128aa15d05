"""The machine's settings: what they may say, and that a notification URL never leaves them."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from configs.load import load_jobs
from configs.settings import Settings, load_settings
from jobs.model.errors import ConfigInvalid

SECRET = "json://me:hunter2@host/topic"

# text -> what is said after FILE:
WRONG = {
    "autostart: maybe": "1: autostart: must be true or false, not 'maybe'",
    "autostrat: true": "1: unknown key 'autostrat'; did you mean 'autostart'?",
    "slots: 0": "1: slots: must be a whole number of 1 or more and at most 16, not 0",
    "lr: 3": "1: unknown key 'lr'; the keys here are format, autostart, slots, notify, disk, defaults",
    "database: postgresql://x:y@z": "1: 'database' is not built yet in this version; remove it",
    "notify: {digest: 7}": '1: notify.digest: must be an hour such as "07:00", in quotes',
    "notify: {digest: '24:00'}": '1: notify.digest: must be an hour such as "07:00", in quotes',
    "notify: {digest: 21:30}": '1: notify.digest: must be an hour such as "07:00", in quotes',  # YAML reads 1290
    "notify: {quiet: '23:00'}": '1: notify.quiet: must be two different hours such as "23:00-07:00", in quotes',
    "notify: {quiet: '7:00-07:00'}": '1: notify.quiet: must be two different hours such as "23:00-07:00", in quotes',
    "notify: {desktop: yes please}": "1: notify.desktop: must be true or false",
    "notify: {desktop: true, services: [{url: 'a://b', name: desktop}]}": "1: notify.services[0].name: another service "
    "has this name",
    "services: []": "1: unknown key 'services'; it belongs under 'notify'",
    "defaults: {prority: 3}": "1: unknown key 'defaults.prority'; did you mean 'priority'?",
    "defaults:\n  retry:\n    max_restarts: -1": "3: defaults.retry.max_restarts: must be a whole number of 0 or more, "
    "not -1",
    "defaults: {window: x}": '1: defaults.window: must be two different hours such as "23:00-07:00", in quotes, '
    "not 'x'",
    "defaults: {notify: {on: [digest]}}": "1: defaults.notify.on[0]: must be submitted, started, recovered, "
    "spike_handled, needs_you, deadline, failed or finished, not 'digest'",
    "format: 2": " has format 2, this lq reads format 1: update lq",
    "[]": "1: must be a mapping of keys and values",
    "a: [": "1: not valid YAML",
}

# every one of these holds the secret, and the message must not
WRONG_SERVICES = {
    f"notify: {SECRET}": "1: notify: must be a mapping",
    f"notify: {{services: '{SECRET}'}}": "1: notify.services: must be a list of mappings",
    f"notify:\n  services:\n    - {SECRET}": "3: notify.services[0]: must be a mapping",
    f"notify:\n  services:\n    - {{url: ['{SECRET}']}}": "3: notify.services[0].url: must be text",
    f"notify:\n  services:\n    - {{url: '{SECRET}', on: '{SECRET}'}}": "3: notify.services[0].on: "
    "must be a list of submitted, started, recovered, spike_handled, needs_you, deadline, failed, finished or digest",
    f"notify:\n  services:\n    - {{url: '{SECRET}', on: [failed, '{SECRET}']}}": "3: notify.services[0].on[1]: "
    "must be submitted, started, recovered, spike_handled, needs_you, deadline, failed, finished or digest",
    f"notify:\n  services:\n    - {{url: '{SECRET}', name: '{SECRET}'}}": "3: notify.services[0].name: "
    "must be a name of 1 to 80 printable characters, and no URL",
    f"notify:\n  services:\n    - {{url: '{SECRET}', nmae: '{SECRET}'}}": "3: unknown key 'notify.services.nmae'; "
    "did you mean 'name'?",
    f"notify:\n  services:\n    - {{tags: [a], '{SECRET}': x}}": "3: unknown key '(hidden)'; "
    "the keys here are url, name, tags, on (and 1 more)",
    f"notify:\n  services:\n    - {{url: a://b, '{SECRET}': x}}": "3: unknown key '(hidden)'; "
    "the keys here are url, name, tags, on",
    f"notify:\n  services:\n    - {{'{SECRET}': x, '{SECRET}': x}}": "3: key '(hidden)' is given twice, "
    "first in line 3",
    "notify:\n  services:\n    - {url: hunter2}": "3: notify.services[0].url: "
    "must be an Apprise URL such as ntfy://topic or mailto://user:password@host",
    f"notify:\n  services:\n    - url: '{SECRET}": "3: not valid YAML",
    f"notify:\n  services:\n    - url: !{SECRET} x": "3: not valid YAML",
    f"autostart: {SECRET}": "1: autostart: must be true or false",
    f"{SECRET}: true": "1: unknown key '(hidden)'; the keys here are format, autostart, slots, notify, disk, defaults",
    f"notify:\n  services:\n    - url: '{SECRET}/${{LQ_ABSENT}}'": "3: notify.services[0].url: "
    "the environment variable LQ_ABSENT is not set",
    f"notify:\n  services:\n    - url: '{SECRET}/${{hunter2://'": "3: notify.services[0].url: "
    "holds a ${ that is not the name of an environment variable in braces",
    f"notify:\n  services:\n    - url: '{SECRET}/${{keyring:hunter2}}'": "3: notify.services[0].url: "
    "holds a ${keyring: that does not go on as SERVICE/USER}",
    f"notify: {{ping: '{SECRET}'}}": "1: notify.ping: must be an address that begins with https://",
    f"notify: {{ping: ['{SECRET}']}}": "1: notify.ping: must be text",
    "notify: {ping: 'https://hunter2/${LQ_ABSENT}'}": "1: notify.ping: the environment variable LQ_ABSENT is not set",
    f"notify: {{digest: '{SECRET}'}}": '1: notify.digest: must be an hour such as "07:00", in quotes',
    f"notify:\n  services:\n    - {{url: '{SECRET}', name: a}}\n    - {{url: '{SECRET}', name: a}}": "4: "
    "notify.services[1].name: another service has this name",
}


def write(tmp_path: Path, text: str, *, mode: int = 0o600) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(path: Path) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(path, environ={})
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_answered_with_its_line(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert str(refused(path)) == f"{path}:{WRONG[text]}"


@pytest.mark.parametrize("text", WRONG_SERVICES)
def test_a_mistake_about_a_service_is_answered_without_its_url(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    error = refused(path)
    assert str(error) == f"{path}:{WRONG_SERVICES[text]}"
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert error.__context__ is None  # nothing chained that a logger could print


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "settings.yaml") == Settings()
    assert load_settings(write(tmp_path, "# nothing\n")) == Settings()
    settings = load_settings(write(tmp_path, "notify: null\ndatabase: null\nslots: 1\n"))
    assert (settings.autostart, settings.slots, settings.notify.services) == (True, 1, ())


def test_services_are_read_and_urls_filled_from_the_environment(tmp_path: Path) -> None:
    text = (
        "notify:\n  services:\n"
        "    - {url: 'ntfys://${NTFY_TOPIC}', tags: [phone], on: [started, failed]}\n"
        "    - {url: 'mailto://a:b@c', name: mail}\n"
    )
    first, second = load_settings(write(tmp_path, text), environ={"NTFY_TOPIC": "t0pic"}).notify.services
    assert first.url.get_secret_value() == "ntfys://t0pic"
    assert (first.name, first.tags, first.on) == (None, ("phone",), ("started", "failed"))
    assert (second.name, second.tags, second.on) == ("mail", (), None)


def test_a_url_is_never_shown(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, f"notify: {{services: [{{url: '{SECRET}'}}]}}"))
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_urls_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, f"notify: {{services: [{{url: '{SECRET}'}}]}}", mode=mode)
    text = f"{path}: holds notification URLs but others can read it; run: chmod 600 {path}"
    assert str(refused(path)) == text


def test_settings_without_urls_may_be_read_by_others(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "autostart: false", mode=0o644)).autostart is False


def test_the_defaults_reach_the_job(folder: Path) -> None:
    settings = load_settings(write(folder, "defaults: {priority: 7, checkpoint: {every: 5min}}"))
    job = folder / "job.yaml"
    job.write_text("model: model\ndata: data\nnum_layers: 4\nlq: {priority: 1}")
    lq = load_jobs(job, defaults=settings.defaults)[0].spec.lq
    assert (lq.priority, lq.checkpoint.every, lq.retry.max_restarts) == (1, 300.0, 5)
