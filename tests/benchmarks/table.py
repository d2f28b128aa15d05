"""What was measured, for people and for machines."""

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
_HEADER = ("figure", "lq", "peer", "ratio or value", "lowest to highest", "reach", "met")
_VERSIONS = ("lq", "mlx", "mlx-lm", "sqlalchemy", "huey")


def as_text(figures: Sequence[Figure], seconds: float) -> list[str]:
    """Return the table and what it was measured with, one line each."""
    said = circumstances(seconds)
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    missed = [figure for figure in figures if not figure.reached]
    return [
        *table(_HEADER, [row(figure) for figure in figures], right="lrrrrrl"),
        "",
        f"{len(figures) - len(missed)} of {len(figures)} reached.",
        *(f"- {figure.what}: {figure.note}." for figure in figures if figure.note),
        f"- Machine: {said['machine']}, {said['cores']} cores, {said['system']}; load average of 5 minutes "
        f"{said['load']:.1f}.",
        f"- Versions: {versions}.",
        f"- Command: {said['command']}; {seconds / 60:.0f} min in all. Medians; ratios are taken within a round.",
    ]


def as_json(figures: Sequence[Figure], seconds: float) -> dict[str, Any]:
    """Return the same for machines."""
    rows = [dataclasses.asdict(figure) | {"reached": figure.reached} for figure in figures]
    return {"schema": SCHEMA, "figures": rows, **circumstances(seconds)}


def circumstances(seconds: float) -> dict[str, Any]:
    """Return machine, versions, command, and how busy the machine was."""
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
    """Return a figure's row."""
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
