"""The results as a table and as JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from orchestrator.formatting.markdown import table
from tests.benchmarks.figures import Figure
from workers.system.processor import machine

SCHEMA = 1
_HEADER = ("figure", "lq", "peer", "ratio or value", "lowest to highest", "goal", "met")
_VERSIONS = ("lq", "mlx", "mlx-lm", "sqlalchemy", "huey")


def as_text(figures: Sequence[Figure], seconds: float) -> list[str]:
    """Return the lines of the table and of the conditions of the measurement."""
    conditions = conditions_of(seconds)
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    missed = [figure for figure in figures if not figure.reached]
    return [
        *table(_HEADER, [row(figure) for figure in figures], right="lrrrrrl"),
        "",
        f"{len(figures) - len(missed)} of {len(figures)} goals met.",
        *(f"- {figure.what}: {figure.note}." for figure in figures if figure.note),
        f"- Machine: {conditions['machine']}, {conditions['cores']} cores, {conditions['system']}; load average of 5 "
        f"minutes {conditions['load']:.1f}.",
        f"- Versions: {versions}.",
        f"- Command: {conditions['command']}; {seconds / 60:.0f} min in total. Values are medians; ratios are "
        "within a round.",
    ]


def as_json(figures: Sequence[Figure], seconds: float) -> dict[str, Any]:
    """Return the results as JSON."""
    rows = [dataclasses.asdict(figure) | {"reached": figure.reached} for figure in figures]
    return {"schema": SCHEMA, "figures": rows, **conditions_of(seconds)}


def conditions_of(seconds: float) -> dict[str, Any]:
    """Return machine, versions, command, and load of the machine."""
    versions = {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _VERSIONS}
    return {
        "machine": machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load": os.getloadavg()[1],
        "versions": versions,
        "command": shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]]),
        "seconds": seconds,
    }


def row(figure: Figure) -> tuple[str, ...]:
    """Return the row of a figure."""
    unit = f" {figure.unit}" if figure.unit else ""
    low, high = figure.spread
    sign = "<=" if figure.at_most else ">="
    return (
        figure.what,
        figure.lq,
        figure.peer,
        f"{figure.value:.3g}{unit}",
        f"{low:.3g} to {high:.3g}",
        f"{sign} {figure.goal:g}{unit}",
        "yes" if figure.reached else "no",
    )
