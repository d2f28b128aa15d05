"""Checks of lq itself: packages, store, worker, service, notifications, hub. Each reads and judges one thing."""

from __future__ import annotations

from jobs.model.errors import ConfigInvalid, HomeUnusable, StoreUnusable
from orchestrator.doctor.check import Check, fail, ok, warn
from orchestrator.doctor.readings import Readings
from orchestrator.formatting.text import size

_SMALL_CACHE = 10e9


def packages(readings: Readings) -> Check:
    """Check whether Python imports lq's packages from where lq is installed."""
    name = "packages"
    if readings.shadowed_package is not None:
        package, path = readings.shadowed_package
        return fail(name, f"{package} is imported from {path}", "run lq from another folder, or clear PYTHONPATH")
    if readings.lookalikes:
        says = f"PYTHONPATH contains {readings.lookalikes[0]}, which has the name of a package of lq"
        return warn(name, says, "remove its folder from PYTHONPATH, or rename it")
    return ok(name, "orchestrator, workers, configs and jobs are lq's own")


def store(readings: Readings) -> Check:
    """Check whether the store opens, and its version."""
    from orchestrator.store.versions import MIGRATIONS, version_of

    name, newest = "store", int(MIGRATIONS.newest)
    try:
        version = version_of(readings.home.store)
    except (StoreUnusable, HomeUnusable) as error:
        return fail(name, str(error), "copies of a damaged store are in the same folder: lq.db.v*.bak")
    if version is None:
        return ok(name, "does not exist yet; the first lq submit creates it")
    if version > newest:
        return fail(name, f"version {version}; this lq reads up to version {newest}", "update lq")
    if version < newest:
        says = f"version {version}; this lq uses version {newest}"
        return warn(name, says, "the next command copies it to lq.db.v*.bak and upgrades it")
    return ok(name, f"opens, version {version}")


def reports(readings: Readings) -> Check:
    """Check whether every finished job has its report."""
    name, ids = "reports", readings.unreported_jobs
    if not ids:
        return ok(name, "every finished job has one")
    shown = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return warn(name, f"missing for finished jobs: {shown}", f"lq report {ids[0]}")


def worker(readings: Readings) -> Check:
    """Check whether a worker runs, and whether it runs this version of lq."""
    name, running = "worker", readings.worker
    if running is None and readings.settings_or_defaults.autostart:
        return ok(name, "not running; lq submit starts it")
    if running is None:
        return warn(name, "not running, and autostart is off in settings.yaml", "start one: lq worker start")
    pid, version = running["pid"], running.get("lq")
    if version != readings.lq_version:
        shown = f"lq {version}" if version is not None else "an older lq"
        says = f"pid {pid} runs {shown}, this is {readings.lq_version}"
        return warn(name, says, "lq worker restart; jobs resume from a checkpoint")
    return ok(name, f"runs, pid {pid}, lq {version}")


def service(readings: Readings) -> Check:
    """Check whether a worker starts after a reboot."""
    name, file = "service", readings.service_file
    if not file.present:
        says = "not installed: after a reboot the queue waits for lq submit or lq worker"
        return warn(name, says, "lq service install, or lq worker start after each login")
    if file.program is None:
        return fail(name, f"{file.path} names no program", "lq service install writes it again")
    if not file.program.exists():
        return fail(name, f"{file.path} starts {file.program}, which does not exist", "lq service install again")
    if file.home is not None and file.home != str(readings.home.path):
        return warn(name, f"{file.path.name} serves {file.home}", f"this home is {readings.home.path}")
    return ok(name, f"{file.path.name} starts a worker after a login")


def notifications(readings: Readings) -> Check:
    """Check settings.yaml and its notification services."""
    name, names = "notify", readings.service_names
    if isinstance(readings.settings, ConfigInvalid):
        return fail(name, str(readings.settings), "fix settings.yaml; no worker starts before that")
    if not names:
        return warn(name, "no notification service configured", "add one to settings.yaml: lq notify --help")
    count = f"{len(names)} service{'' if len(names) == 1 else 's'}"
    return ok(name, f"{count}: {', '.join(names)}; test with: lq notify test")


def hub(readings: Readings) -> Check:
    """Check whether a model can be downloaded from the Hugging Face hub. Nothing is sent to it."""
    name, cache = "hub", readings.hub_cache
    writable, free = readings.hub_cache_disk
    if not writable:
        return fail(name, f"its cache {cache} cannot be written", "set HF_HOME to a folder that can be written")
    if readings.hub_offline:
        return warn(name, "HF_HUB_OFFLINE is set: only cached models load", "unset it to download other models")
    if free < _SMALL_CACHE:
        says = f"{size(free)} free on the disk of its cache; a 7B model in 4 bits takes 4.3 GB"
        return warn(name, says, "set HF_HOME to a larger disk, or delete models: hf cache")
    token = "token set" if readings.hub_token else "no token: gated models (Llama, Gemma) need hf auth login"
    return ok(name, f"cache {cache}; {token}")
