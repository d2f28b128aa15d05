"""Results of the verbs about the worker, the service, notifications, the machine and presets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.model.job import Message
from orchestrator.doctor.check import Check
from orchestrator.results.jobs import WorkerState
from orchestrator.service.install import ServiceState


@dataclass(frozen=True, kw_only=True)
class WorkerStatusResult:
    """The worker process."""

    worker: WorkerState


@dataclass(frozen=True, kw_only=True)
class StartedWorker:
    """The worker that runs now."""

    alive: bool  # always true
    pid: int  # its process id
    started: bool  # by this command; false if it already ran


@dataclass(frozen=True, kw_only=True)
class WorkerStartResult:
    """Result of `lq worker start`, `restart` and `--detach`."""

    worker: StartedWorker


@dataclass(frozen=True, kw_only=True)
class StoppedWorker:
    """The worker that was stopped."""

    pid: int  # its process id
    left_running: bool  # its trainers still run; else their jobs are paused with a checkpoint


@dataclass(frozen=True, kw_only=True)
class WorkerStopResult:
    """Result of `lq worker stop`."""

    stopped: StoppedWorker


@dataclass(frozen=True, kw_only=True)
class ServiceStateResult:
    """The service of launchd or systemd."""

    service: ServiceState


@dataclass(frozen=True, kw_only=True)
class ServiceUnit:
    """The unit file of the service."""

    kind: Literal["launchd", "systemd"]
    path: Path  # where `lq service install` writes it, absolute
    text: str  # its content


@dataclass(frozen=True, kw_only=True)
class ServicePrintResult:
    """The unit file of the service."""

    service: ServiceUnit


@dataclass(frozen=True, kw_only=True)
class NotificationService:
    """A notification service; its URL is never printed."""

    name: str
    tags: list[str]  # a job chooses the service by a tag
    on: list[str]  # events it receives


@dataclass(frozen=True, kw_only=True)
class NotifyListResult:
    """The notification services of settings.yaml."""

    services: list[NotificationService]
    digest: str | None  # time of the morning digest; null if there is none
    quiet: str | None  # quiet hours; null if there are none
    ping: bool  # a heartbeat URL is set
    undelivered: list[Message]  # messages that a service has not received


@dataclass(frozen=True, kw_only=True)
class TestMessage:
    """The test message to one service."""

    name: str
    delivered: bool
    result: str  # delivered, failed, timed out, ...


@dataclass(frozen=True, kw_only=True)
class NotifyTestResult:
    """Result of the test messages."""

    services: list[TestMessage]
    ping: str | None  # answered, or the error; null if no heartbeat URL is set


@dataclass(frozen=True, kw_only=True)
class DoctorResult:
    """The checks of `lq doctor`."""

    checks: list[Check]


@dataclass(frozen=True, kw_only=True)
class PresetSummary:
    """A preset."""

    name: str
    summary: str  # its purpose, one line of text


@dataclass(frozen=True, kw_only=True)
class PresetsResult:
    """Every preset."""

    presets: list[PresetSummary]  # the default of `lq config init` first


@dataclass(frozen=True, kw_only=True)
class WrittenPreset:
    """The file that was written."""

    preset: str  # name of the preset
    path: Path  # path of the file, as given


@dataclass(frozen=True, kw_only=True)
class InitResult:
    """Result of `lq config init`."""

    written: WrittenPreset
