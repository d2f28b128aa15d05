"""The one table at the end."""

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


def table(result: Result, *, seed: int, command: str) -> str:
    """Return the figures as plain text.

    Args:
        result: what the rounds came to.
        seed: they were drawn from.
        command: that plays them again.
    """
    rows = [*_what_happened(result), *_what_held(result), *_how_long(result), *_where(result, seed, command)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _what_happened(result: Result) -> Iterator[tuple[str, str]]:
    yield "rounds", f"{len(result.rounds)} in {result.seconds / 60:.1f} min"
    for kind in Kind:
        planned = [one for one in result.rounds if any(act.kind is kind for act in one.plan.acts)]
        missed = [why for one in planned if (why := one.did.get(kind, "the job had ended")) is not None]
        why = f", {len(missed)} came to nothing ({', '.join(sorted(set(missed)))})" if missed else ""
        yield f"  {kind.value}", f"{len(planned) - len(missed)}{why}"
    yield "full disk by", result.full_disk
    yield "deaths of a trainer", str(sum(one.crashes for one in result.rounds))
    yield "attempts", str(sum(one.attempts for one in result.rounds))


def _what_held(result: Result) -> Iterator[tuple[str, str]]:
    for name, check in (
        ("jobs lost", "lost"),
        ("jobs doubled", "doubled"),
        ("differing hashes", "hash"),
        ("two trainers of a job", "twice alive"),
        ("trainers left by a job", "orphan"),
        ("more repeated than allowed", "repeated"),
        ("stores damaged", "store"),
        ("other", "other"),
    ):
        where = [one for one in result.rounds if check in one.wrong]
        yield name, str(len(where)) + (f" (rounds {', '.join(str(one.plan.number) for one in where)})" if where else "")
    yield "orphans at the end", str(len(result.left))
    paused = [one.queue_paused for one in result.rounds if one.queue_paused]
    if paused:
        yield "queue paused by lq", f"{len(paused)}: {paused[0]}"
    for kept in result.kept:
        yield "home kept", str(kept)


def _how_long(result: Result) -> Iterator[tuple[str, str]]:
    repeated = [count for one in result.rounds for count in one.repeated]
    yield "iterations repeated", _worst_median(repeated, "") + f"; an interval is {INTERVAL}"
    recoveries = [recovery for one in result.rounds for recovery in one.recoveries]
    at_once = [recovery for recovery in recoveries if recovery.at_once]
    yield "from -9 to trained, all", _worst_median([one.whole_s for one in recoveries], " s")
    yield "  answered at once", _worst_median([one.whole_s for one in at_once], " s")
    yield "    of it until respawned", _worst_median([one.spawn_s for one in at_once], " s")
    yield "    of it start and load", _worst_median([one.load_s for one in at_once], " s")
    lq = [one.whole_s - one.load_s for one in at_once]
    yield "    beyond start and load", _worst_median(lq, " s")


def _where(result: Result, seed: int, command: str) -> Iterator[tuple[str, str]]:
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
