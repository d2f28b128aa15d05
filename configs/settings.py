"""Settings of the machine: $LQ_HOME/settings.yaml.

Notification URLs contain passwords. Errors therefore quote nothing under `notify`, URLs are SecretStr, and a file with
URLs that other users can read is refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from configs import validation, yaml_text
from configs.errors import KeyPath, Problem, all_problems, invalid
from configs.yaml_text import Document
from jobs.model import time_windows
from jobs.model.base import FrozenModel
from jobs.model.spec import Bytes, LqSpec, NotifyEvent, check_window

_VARIABLE = re.compile(r"\$\{([^}]*)(\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IN_KEYRING = "keyring:"
_KEYRING_NAME = re.compile(r"keyring:[^{}]+/[^{}/]+")

ServiceEvent = Literal[NotifyEvent, "digest"]  # events of jobs, and the digest of all jobs


def _url(value: SecretStr) -> SecretStr:
    if "://" not in value.get_secret_value() and f"${{{_IN_KEYRING}" not in value.get_secret_value():
        raise ValueError("an Apprise URL such as ntfy://topic or mailto://user:password@host")
    return value


def _ping(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not url.lower().startswith(("http://", "https://", "://", f"${{{_IN_KEYRING}")):
        raise ValueError("a URL that starts with https://")
    return value


def _web_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s@]+", value):
        raise ValueError("a URL such as https://lab.example.org, without a password")
    return value.rstrip("/")


def parse_hour(value: object) -> object:
    """Check `07:00`. Without quotes, YAML reads some times as numbers."""
    time_windows.parse_time(value if isinstance(value, str) else "")
    return value


def _name(value: str) -> str:
    # names are stored and shown; URLs are not
    if not value.strip() or len(value) > 80 or not value.isprintable() or ":/" in value:
        raise ValueError("a name of 1 to 80 printable characters, and no URL")
    return value.strip()


class _Secretive(FrozenModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class Service(_Secretive):
    """One notification service."""

    url: Annotated[SecretStr, AfterValidator(_url)] = Field(
        description="Apprise URL, or desktop://; ${NAME} is read from the environment, ${keyring:SERVICE/USER} from "
        "the keyring"
    )
    name: Annotated[str, AfterValidator(_name)] | None = Field(None, description="name of the service in lq's output")
    tags: tuple[str, ...] = Field((), description="tags that jobs select services by (lq.notify.tags)")
    on: tuple[ServiceEvent, ...] | None = Field(
        None, description="events that it receives; default: all except submitted and started"
    )


class NotifySettings(_Secretive):
    """`notify` of settings.yaml."""

    services: tuple[Service, ...] = Field((), description="notification services")
    desktop: bool = Field(False, description="add a service named and tagged desktop: a banner on this machine")
    digest: Annotated[str, BeforeValidator(parse_hour)] | None = Field(
        None, description="time of the daily digest, such as 07:00; default: no digest"
    )
    quiet: Annotated[str, BeforeValidator(check_window)] | None = Field(
        None, description="hours in which only urgent messages are sent, such as 23:00-07:00"
    )
    ping: Annotated[SecretStr, AfterValidator(_ping)] | None = Field(
        None, description="URL of a dead-man switch, requested every minute while the worker runs"
    )

    @property
    def everyone(self) -> tuple[Service, ...]:
        """The services, and the desktop if it is on."""
        if not self.desktop:
            return self.services
        return (*self.services, Service(url=SecretStr("desktop://"), name="desktop", tags=("desktop",), on=None))


class DiskSettings(FrozenModel):
    """`disk` of settings.yaml."""

    floor: Bytes = Field(
        5 << 30, description="minimum free space for training; lq also requires the space of three checkpoints"
    )


class WebSettings(FrozenModel):
    """`web` of settings.yaml."""

    url: Annotated[str, AfterValidator(_web_url)] | None = Field(
        None, description="address of the web page of this home; messages about a job link to URL/jobs/ID"
    )


class Settings(_Secretive):
    """The content of settings.yaml."""

    format: Literal[1] = Field(1, description="version of the file format")
    autostart: bool = Field(True, description="lq submit starts a worker if none runs")
    slots: int = Field(1, ge=1, le=16, description="maximum number of jobs at a time, if they fit into memory together")
    notify: NotifySettings = NotifySettings()
    disk: DiskSettings = DiskSettings()
    web: WebSettings = WebSettings()
    defaults: LqSpec = Field(LqSpec(), description="defaults for the lq section of job files")

    @field_validator("defaults")
    @classmethod
    def _no_length(cls, defaults: LqSpec) -> LqSpec:
        if defaults.epochs is not None:
            raise ValueError("no epochs here; a job file sets its own length")
        return defaults


def load_settings(path: Path, *, content: bytes | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings.yaml; without a file, return the defaults. Raise ConfigInvalid if others can read its URLs.

    Args:
        path: the file.
        content: what the file will contain; None reads it.
        environ: values of `${NAME}` in URLs; None for the environment of the process. `${keyring:...}` stays
            unresolved until a message is sent.
    """
    if content is None and not path.exists():
        return Settings()
    document = yaml_text.parse(path, yaml_text.read(path) if content is None else content, secret=True)
    if document is None:
        return Settings()
    validation.require_format(document, document.value.get("format"))
    if content is None:
        _require_private(document)
    known = validation.KnownKeys(document, Settings)
    unset = _expand(document, known.value, os.environ if environ is None else environ)
    settings, problems = validation.check(document, Settings, known.value, may_show=_may_show)
    problems = [*known.problems, *unset, *problems] or _same_names(document, settings)
    if settings is None or problems:
        raise all_problems(path, problems)
    return settings


def _require_private(document: Document) -> None:
    notify = document.value.get("notify")
    if not (_services(document.value) or (isinstance(notify, dict) and notify.get("ping"))):
        return
    if stat.S_IMODE(document.source.stat().st_mode) & 0o077:
        text = f"contains notification URLs, but other users can read it; run: chmod 600 {document.source}"
        raise invalid(document.source, None, text)


def _services(value: Mapping[str, Any]) -> Any:
    notify = value.get("notify")
    return notify.get("services") if isinstance(notify, dict) else notify


def _expand(document: Document, value: dict[str, Any], environ: Mapping[str, str]) -> list[Problem]:
    """Replace the variables in the URLs of `value`; return a problem for each that cannot be replaced."""
    problems = []
    for key_path, holder in _urls(value):
        url = holder[str(key_path[-1])]
        text = _missing_variable(url, environ)
        if text is not None:
            problems.append(document.problem(key_path, text))
        # "://" prevents a second report of a URL that is reported above
        holder[str(key_path[-1])] = _VARIABLE.sub(
            lambda match: match[0] if match[1].startswith(_IN_KEYRING) else environ.get(match[1], "://"), url
        )
    return problems


def _urls(value: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield the key path of every URL that is text, and the mapping that contains it."""
    services = _services(value)
    for index, service in enumerate(services if isinstance(services, list) else ()):
        if isinstance(service, dict) and isinstance(service.get("url"), str):
            yield ("notify", "services", index, "url"), service
    notify = value.get("notify")
    if isinstance(notify, dict) and isinstance(notify.get("ping"), str):
        yield ("notify", "ping"), notify


def _missing_variable(url: str, environ: Mapping[str, str]) -> str | None:
    for name, closed in _VARIABLE.findall(url):
        if name.startswith(_IN_KEYRING):
            if not closed or not _KEYRING_NAME.fullmatch(name):
                return "has an incomplete ${keyring:; write ${keyring:SERVICE/USER}"
            continue
        if not closed or not _VARIABLE_NAME.fullmatch(name):
            return "has an incomplete ${; write the name of an environment variable in braces, ${NAME}"
        if name not in environ:
            return f"the environment variable {name} is not set; set it in the environment of lq"
    return None


def _may_show(key_path: KeyPath, value: object) -> bool:
    return key_path[:1] not in ((), ("notify",)) and ":/" not in str(value)


def _same_names(document: Document, settings: Settings | None) -> list[Problem]:
    """Refuse two services with one name, because the store records deliveries by name."""
    if settings is None:
        return []
    names = {"desktop"} if settings.notify.desktop else set()
    problems = []
    for index, service in enumerate(settings.notify.services):
        if service.name is not None and service.name in names:
            text = "another service has this name; write another one"
            problems.append(document.problem(("notify", "services", index, "name"), text))
        names.add(service.name or "")
    return problems
