"""Runs all checks of `lq doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.core.paths import Home
from orchestrator.doctor import lq_checks, machine_checks
from orchestrator.doctor.check import Check, warn
from orchestrator.doctor.readings import Readings
from workers.mlx.device import DeviceQuery

CHECKS: Mapping[str, Callable[[Readings], Check]] = {
    "python": machine_checks.python,
    "packages": lq_checks.packages,
    "mlx": machine_checks.mlx,
    "compiler": machine_checks.compiler,
    "memory": machine_checks.memory,
    "swap": machine_checks.swap,
    "disk": machine_checks.disk,
    "home": machine_checks.home,
    "privacy": machine_checks.privacy,
    "store": lq_checks.store,
    "reports": lq_checks.reports,
    "worker": lq_checks.worker,
    "service": lq_checks.service,
    "notify": lq_checks.notifications,
    "hub": lq_checks.hub,
    "awake": machine_checks.awake,
    "power": machine_checks.power,
    "sensors": machine_checks.sensors,
    "display": machine_checks.display,
    "open files": machine_checks.open_files,
    "clock": machine_checks.clock,
    "time zone": machine_checks.time_zone,
}
"""In the order in which they are printed."""

_NEED_MLX = frozenset({"mlx", "compiler", "memory", "display"})


def examine(home: Home, environment: Mapping[str, str]) -> list[Check]:
    """Run every check of a home, which need not exist. The child process that examines MLX runs meanwhile."""
    with DeviceQuery() as device_query:
        readings = Readings(home, environment, device_query)
        order = sorted(CHECKS, key=lambda name: name in _NEED_MLX)
        results = {name: run_check(name, readings) for name in order}
    return [results[name] for name in CHECKS]


def run_check(name: str, readings: Readings) -> Check:
    """Run one check. A check that raises becomes a warning, so that the other checks still run."""
    try:
        return CHECKS[name](readings)
    except Exception as error:  # noqa: BLE001 an unusual machine must not hide the other checks
        says = f"this check failed to run: {type(error).__name__}: {error}"
        return warn(name, " ".join(says.split()), "report it as a bug of lq")
