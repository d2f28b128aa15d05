"""The summary of a campaign."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from collections.abc import Iterator, Sequence

import psutil

from tests.chaos.campaign import Result
from tests.chaos.schedule import Kind
from tests.chaos.testbed import INTERVAL

_PACKAGES = ("lq", "mlx", "mlx-lm", "huey", "sqlalchemy")


def summary(result: Result, *, seed: int, command: str) -> str:
    """Return the figures as plain text.

    Args:
        command: the command that repeats the campaign.
    """
    rows = [*_faults(result), *_checks(result), *_times(result), *_environment(result, seed, command)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _faults(result: Result) -> Iterator[tuple[str, str]]:
    yield "rounds", f"{len(result.rounds)} in {result.seconds / 60:.1f} min"
    for kind in Kind:
        planned = [played for played in result.rounds if any(act.kind is kind for act in played.plan.acts)]
        missed = [why for played in planned if (why := played.skipped.get(kind, "the job had ended")) is not None]
        why = f", {len(missed)} skipped ({', '.join(sorted(set(missed)))})" if missed else ""
        yield f"  {kind.value}", f"{len(planned) - len(missed)}{why}"
    yield "full disk by", result.full_disk
    yield "killed trainers", str(sum(played.crashes for played in result.rounds))
    yield "attempts", str(sum(played.attempts for played in result.rounds))


def _checks(result: Result) -> Iterator[tuple[str, str]]:
    for name, check in (
        ("jobs lost", "lost"),
        ("jobs doubled", "doubled"),
        ("differing hashes", "hash"),
        ("two trainers of a job", "two trainers"),
        ("trainers left by a job", "orphan"),
        ("more repeated than allowed", "repeated"),
        ("stores damaged", "store"),
        ("other", "other"),
    ):
        where = [played for played in result.rounds if check in played.wrong]
        yield (
            name,
            str(len(where)) + (f" (rounds {', '.join(str(played.plan.number) for played in where)})" if where else ""),
        )
    yield "orphans at the end", str(len(result.left))
    paused = [played.queue_paused for played in result.rounds if played.queue_paused]
    if paused:
        yield "queue paused by lq", f"{len(paused)}: {paused[0]}"
    for kept in result.kept:
        yield "home kept", str(kept)


def _times(result: Result) -> Iterator[tuple[str, str]]:
    repeated = [count for played in result.rounds for count in played.repeated]
    yield "iterations repeated", _worst_median(repeated, "") + f"; an interval is {INTERVAL}"
    recoveries = [recovery for played in result.rounds for recovery in played.recoveries]
    immediate = [recovery for recovery in recoveries if recovery.immediate]
    yield "from kill to trained, all", _worst_median([recovery.total_s for recovery in recoveries], " s")
    yield "  restarted immediately", _worst_median([recovery.total_s for recovery in immediate], " s")
    yield "    until the next attempt", _worst_median([recovery.spawn_s for recovery in immediate], " s")
    yield "    start and load", _worst_median([recovery.load_s for recovery in immediate], " s")
    lq = [recovery.total_s - recovery.load_s for recovery in immediate]
    yield "    without start and load", _worst_median(lq, " s")


def _environment(result: Result, seed: int, command: str) -> Iterator[tuple[str, str]]:
    yield "seed", str(seed)
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total >> 30
    yield "machine", f"{platform.system()} {platform.machine()}, {cores} cores, {memory} GiB"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    yield "versions", ", ".join([f"Python {platform.python_version()}", *versions])
    yield "undisturbed adapter", result.undisturbed.sha256["adapters.safetensors"][:16]
    yield "command", command


def _worst_median(values: Sequence[float], unit: str) -> str:
    if not values:
        return "none"
    return f"worst {max(values):.3g}{unit}, median {statistics.median(values):.3g}{unit} of {len(values)}"
