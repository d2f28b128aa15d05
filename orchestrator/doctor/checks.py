"""What `lq doctor` finds: one line a check, in one of three states, with what to do. Pure.

Every judgement takes what was read and returns a Check; reading is orchestrator/doctor/readings.py's work. Those
about the machine stand in orchestrator/doctor/machine_checks.py, those about lq itself here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from orchestrator.service.status import ServiceReading


class State(StrEnum):
    """How well something is."""

    OK = "ok"
    WARN = "warn"  # a night can be trained with it, and may go worse than it need
    FAIL = "fail"  # a night cannot be trained with it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's."""

    name: str  # what was looked at, a word or two
    state: State  # how well it is
    says: str  # what was found, with numbers
    advice: str | None = None  # what to do; None where all is well


def ok(name: str, says: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, state=State.OK, says=says)


def warn(name: str, says: str, advice: str) -> Check:
    """Return a check that found something that may go worse than it need."""
    return Check(name=name, state=State.WARN, says=says, advice=advice)


def fail(name: str, says: str, advice: str) -> Check:
    """Return a check that found what stops a night."""
    return Check(name=name, state=State.FAIL, says=says, advice=advice)


def packages(shadow: tuple[str, Path] | None, lookalikes: Sequence[Path]) -> Check:
    """Judge whether Python takes lq's packages from where they are installed.

    Args:
        shadow: a package of lq's that comes from elsewhere, and from where.
        lookalikes: files and folders on PYTHONPATH that bear the name of one.
    """
    name = "packages"
    if shadow is not None:
        return fail(name, f"{shadow[0]} comes from {shadow[1]}", "run lq from elsewhere, or clear PYTHONPATH")
    if lookalikes:
        says = f"PYTHONPATH has {lookalikes[0]}, which looks like one of lq's"
        return warn(name, says, "take its folder out of PYTHONPATH, or rename it")
    return ok(name, "orchestrator, workers, configs and jobs are lq's own")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerReading:
    """What is known of the worker."""

    pid: int | None  # None where none runs
    version: str | None  # of the lq it runs; None where it does not say
    here: str  # version of this lq
    autostart: bool  # whether lq submit starts one


def worker(read: WorkerReading) -> Check:
    """Judge whether a worker runs, and the one that should."""
    name = "worker"
    if read.pid is None and read.autostart:
        return ok(name, "none runs; lq submit starts one")
    if read.pid is None:
        return warn(name, "none runs, and autostart is off in settings.yaml", "start one: lq worker --detach")
    if read.version != read.here:
        version = f"lq {read.version}" if read.version is not None else "an older lq"
        says = f"pid {read.pid} runs {version}, this is {read.here}"
        return warn(name, says, "lq worker stop, then lq worker --detach: jobs go on from a checkpoint")
    return ok(name, f"runs, pid {read.pid}, lq {read.version}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreReading:
    """What is known of lq.db."""

    version: int | None  # None where there is no store yet
    newest: int  # version that this lq works with
    wrong: str | None  # why it cannot be used


def store(read: StoreReading) -> Check:
    """Judge whether the store opens, and its version."""
    name = "store"
    if read.wrong is not None:
        return fail(name, read.wrong, "every verb needs it; the copies beside it are lq.db.v*.bak")
    if read.version is None:
        return ok(name, "none yet; the first lq submit makes it")
    if read.version > read.newest:
        says = f"version {read.version}, this lq knows {read.newest}"
        return fail(name, says, "update lq: a newer one wrote it")
    if read.version < read.newest:
        says = f"version {read.version}; this lq works with {read.newest}"
        return warn(name, says, "the next verb copies it (lq.db.v*.bak) and brings it up to date")
    return ok(name, f"opens, version {read.version}")


def notifications(names: Sequence[str], wrong: str | None) -> Check:
    """Judge settings.yaml and who is told.

    Args:
        names: of the services, never their URLs.
        wrong: why settings.yaml cannot be followed.
    """
    name = "messages"
    if wrong is not None:
        return fail(name, wrong, "no worker starts before settings.yaml is mended")
    if not names:
        return warn(name, "nobody is told how a night went", "name services in settings.yaml (README: Settings)")
    count = f"{len(names)} service{'' if len(names) == 1 else 's'}"
    return ok(name, f"{count}: {', '.join(names)}; try: lq notify test")


def service(read: ServiceReading) -> Check:
    """Judge whether the worker comes back after a reboot."""
    name = "service"
    if not read.present:
        says = "none: after a reboot the queue waits for lq submit or lq worker"
        return warn(name, says, "lq service install, or lq worker --detach after each login")
    if read.program is None:
        return fail(name, f"{read.path} does not say what to start", "write it anew, or remove it")
    if not read.program_there:
        return fail(name, f"{read.path} starts {read.program}, which is gone", "write it anew: lq has moved")
    if read.home is not None and read.home != read.here:
        return warn(name, f"{read.path.name} looks after {read.home}", f"this home is {read.here}")
    return ok(name, f"{read.path.name} starts a worker after a login")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubReading:
    """What is known of the Hugging Face hub from here; nothing is asked of it."""

    cache: Path  # where models are kept
    writable: bool  # whether it, or what it would be made in, can be written
    free: int  # bytes on its disk
    token: bool  # whether one is set
    offline: bool  # whether HF_HUB_OFFLINE forbids downloads


def hub(read: HubReading) -> Check:
    """Judge whether a model can be downloaded."""
    name = "hub"
    if not read.writable:
        return fail(name, f"its cache {read.cache} cannot be written", "set HF_HOME to a folder that can")
    if read.offline:
        return warn(name, "HF_HUB_OFFLINE is set: only models in the cache load", "unset it to download others")
    if read.free < 10e9:
        says = f"cache on a disk with {gb(read.free)} free; a 7B model in 4 bits takes 4.3 GB"
        return warn(name, says, "set HF_HOME to a larger disk, or delete models: hf cache")
    token = "a token is set" if read.token else "no token: gated models (Llama, Gemma) need hf auth login"
    return ok(name, f"cache {read.cache}; {token}")


def broken(name: str, error: BaseException) -> Check:
    """Return the line of a check that could not be made."""
    says = f"this check broke: {type(error).__name__}: {error}"
    return warn(name, " ".join(says.split()), "not a finding; please report it")


def gb(count: float) -> str:
    """Return bytes as disks are sold."""
    return f"{count / 1e9:.1f} GB" if count < 99.5e9 else f"{count / 1e9:.0f} GB"
