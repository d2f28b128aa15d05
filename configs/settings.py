"""What is true of the machine: $LQ_HOME/settings.yaml.

The file may hold notification URLs, and those hold passwords. So nothing that stands under `notify` is ever quoted in
an error, URLs are SecretStr, and a file that others can read is refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from configs import validation, yaml_text
from configs.errors import Fault, Where, dotted, first_of, invalid
from configs.yaml_text import Document
from jobs.model import time_windows
from jobs.model.spec import Bytes, FrozenModel, LqSpec, NotifyEvent, check_window

_VARIABLE = re.compile(r"\$\{([^}]*)(\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IN_KEYRING = "keyring:"
_KEYRING_NAME = re.compile(r"keyring:[^{}]+/[^{}/]+")

ServiceEvent = Literal[NotifyEvent, "digest"]
"""What a service can hear: what jobs tell, and the digest, which is about all of them."""


def _url(value: SecretStr) -> SecretStr:
    if "://" not in value.get_secret_value() and f"${{{_IN_KEYRING}" not in value.get_secret_value():
        raise ValueError("an Apprise URL such as ntfy://topic or mailto://user:password@host")
    return value


def _ping(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not url.lower().startswith(("http://", "https://", "://", f"${{{_IN_KEYRING}")):
        raise ValueError("an address that begins with https://")
    return value


def parse_hour(value: object) -> object:
    """Check `07:00`; unquoted, YAML reads some of them as numbers."""
    time_windows.parse_time(value if isinstance(value, str) else "")
    return value


def _name(value: str) -> str:
    # names are stored and shown, URLs never
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
    name: Annotated[str, AfterValidator(_name)] | None = Field(None, description="how reports call it")
    tags: tuple[str, ...] = Field((), description="a job that asks for tags reaches only services with one of them")
    on: tuple[ServiceEvent, ...] | None = Field(
        None, description="events it hears; all but submitted and started when absent"
    )


class NotifySettings(_Secretive):
    """`notify` of settings.yaml."""

    services: tuple[Service, ...] = Field((), description="who is told")
    desktop: bool = Field(False, description="one more service, named and tagged desktop: a banner on this screen")
    digest: Annotated[str, BeforeValidator(parse_hour)] | None = Field(
        None, description="hour of the morning digest, such as 07:00; none when absent"
    )
    quiet: Annotated[str, BeforeValidator(check_window)] | None = Field(
        None, description="hours in which only what is urgent is sent, such as 23:00-07:00"
    )
    ping: Annotated[SecretStr, AfterValidator(_ping)] | None = Field(
        None, description="address of a dead-man switch, fetched every minute in which the worker lives"
    )

    @property
    def everyone(self) -> tuple[Service, ...]:
        """The services, and the desktop where it is asked for."""
        if not self.desktop:
            return self.services
        return (*self.services, Service(url=SecretStr("desktop://"), name="desktop", tags=("desktop",), on=None))


class DiskSettings(FrozenModel):
    """`disk` of settings.yaml."""

    floor: Bytes = Field(5 << 30, description="below so much free space no job trains; 0 for three checkpoints alone")


class Settings(_Secretive):
    """What is true of the machine."""

    format: Literal[1] = Field(1, description="version of this file's format")
    autostart: bool = Field(True, description="lq submit starts a worker when none runs")
    slots: int = Field(1, ge=1, le=16, description="jobs at a time, as far as they fit into memory together")
    notify: NotifySettings = NotifySettings()
    disk: DiskSettings = DiskSettings()
    defaults: LqSpec = Field(LqSpec(), description="what a job file may say under lq; the job's own keys win")


def load_settings(path: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings.yaml.

    Args:
        path: the file; where there is none, everything has its default.
        environ: the variables that `${NAME}` in a URL is read from; the process's own when absent. What stands for
            a secret of the keyring stays as it is: that is asked at the moment of sending.

    Raises:
        ConfigInvalid: it says something lq cannot follow, or holds URLs and others can read it.
    """
    if not path.exists():
        return Settings()
    document = yaml_text.parse(path, yaml_text.read(path), secret=True)
    if document is None:
        return Settings()
    validation.require_format(document, document.value.get("format"))
    _require_private(document)
    tidied = validation.tidy(document, Settings)
    unset = _expand(document, tidied.value, os.environ if environ is None else environ)
    settings, faults = validation.check(document, Settings, tidied.value, may_show=_may_show)
    faults = [*tidied.faults, *unset, *faults] or _same_names(document, settings)
    if settings is None or faults:
        raise first_of(path, faults)
    return settings


def _require_private(document: Document) -> None:
    notify = document.value.get("notify")
    if not (_services(document.value) or (isinstance(notify, dict) and notify.get("ping"))):
        return
    if stat.S_IMODE(document.source.stat().st_mode) & 0o077:
        text = f"holds notification URLs but others can read it; run: chmod 600 {document.source}"
        raise invalid(document.source, None, text)


def _services(value: Mapping[str, Any]) -> Any:
    notify = value.get("notify")
    return notify.get("services") if isinstance(notify, dict) else notify


def _expand(document: Document, value: dict[str, Any], environ: Mapping[str, str]) -> list[Fault]:
    """Put the variables into the URLs of `value`; return a fault for each that cannot be."""
    faults = []
    for where, holder in _urls(value):
        url = holder[str(where[-1])]
        text = _missing_variable(url, environ)
        if text is not None:
            faults.append(Fault(where=where, line=document.line(where), text=f"{dotted(where)}: {text}"))
        # "://" keeps a URL that is reported above from being reported twice
        holder[str(where[-1])] = _VARIABLE.sub(
            lambda found: found[0] if found[1].startswith(_IN_KEYRING) else environ.get(found[1], "://"), url
        )
    return faults


def _urls(value: dict[str, Any]) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Give every place where a URL stands as text, and the mapping that holds it; the type check names the others."""
    services = _services(value)
    for place, service in enumerate(services if isinstance(services, list) else ()):
        if isinstance(service, dict) and isinstance(service.get("url"), str):
            yield ("notify", "services", place, "url"), service
    notify = value.get("notify")
    if isinstance(notify, dict) and isinstance(notify.get("ping"), str):
        yield ("notify", "ping"), notify


def _missing_variable(url: str, environ: Mapping[str, str]) -> str | None:
    for name, closed in _VARIABLE.findall(url):
        if name.startswith(_IN_KEYRING):
            if not closed or not _KEYRING_NAME.fullmatch(name):
                return "holds a ${keyring: that does not go on as SERVICE/USER}"
            continue
        if not closed or not _VARIABLE_NAME.fullmatch(name):
            return "holds a ${ that is not the name of an environment variable in braces"
        if name not in environ:
            return f"the environment variable {name} is not set"
    return None


def _may_show(where: Where, value: object) -> bool:
    return where[:1] not in ((), ("notify",)) and ":/" not in str(value)


def _same_names(document: Document, settings: Settings | None) -> list[Fault]:
    """Results are recorded by the service's name, so no two may share one."""
    seen: set[str] = set()
    faults = []
    for place, service in enumerate(settings.notify.services if settings else ()):
        where: Where = ("notify", "services", place, "name")
        if settings is not None and settings.notify.desktop:
            seen.add("desktop")
        if service.name is not None and service.name in seen:
            text = f"{dotted(where)}: another service has this name"
            faults.append(Fault(where=where, line=document.line(where), text=text))
        seen.add(service.name or "")
    return faults
