"""Results of the verbs about the worker, the service, notifications, the machine, presets and files of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.model.job import Message
from orchestrator.maintenance.clean import CleanedJob
from orchestrator.maintenance.prune import PrunedJob


@dataclass(frozen=True, kw_only=True)
class StartedWorker:
    """The worker that runs now."""

    alive: bool  # always true
    pid: int  # its process id
    started: bool  # by this command; false if it already ran


@dataclass(frozen=True, kw_only=True)
class StoppedWorker:
    """The worker that was stopped."""

    pid: int  # its process id
    left_running: bool  # its trainers still run; else their jobs are paused with a checkpoint


@dataclass(frozen=True, kw_only=True)
class ServiceUnit:
    """The unit file of the service."""

    kind: Literal["launchd", "systemd"]
    path: Path  # where `lq service install` writes it, absolute
    text: str  # its content


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
class PresetSummary:
    """A preset."""

    name: str
    summary: str  # its purpose, one line of text


@dataclass(frozen=True, kw_only=True)
class WrittenPreset:
    """The file that was written."""

    preset: str  # name of the preset
    path: Path  # path of the file, as given


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """What was deleted, or with --dry-run would be."""

    dry_run: bool  # nothing was deleted
    jobs: list[PrunedJob]  # in the order given


@dataclass(frozen=True, kw_only=True)
class CleanResult:
    """What was deleted, or with --dry-run would be."""

    dry_run: bool  # nothing was deleted
    jobs: list[CleanedJob]
