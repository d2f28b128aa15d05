"""The picture of the packages and their imports in docs/explanation/architecture.md, drawn from the code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from tests.docs.diagram import Arrow, Box, svg

PAGE = "docs/explanation/packages.svg"

_ROOT = Path(__file__).parents[2]
_LAYERS = {"orchestrator": "#ddf4ff", "workers": "#dafbe1", "configs": "#fff8c5", "jobs": "#fbefff"}
_ROW, _COLUMN, _WIDTH = 74, 142, 1010

Graph = dict[str, set[str]]
"""By package, the packages that it imports."""


def imports() -> Graph:
    """Return the imports between packages, those inside functions included."""
    graph: Graph = {}
    for path in sorted(path for layer in _LAYERS for path in (_ROOT / layer).rglob("*.py")):
        package = _package(path)
        targets = {_target(module) for module in _modules(path)}
        graph.setdefault(package, set()).update(targets - {package, ""})
    return {package: {target for target in targets if target in graph} for package, targets in graph.items()}


def page() -> str:
    """Return the picture: a package above all that it imports, without arrows that other arrows imply."""
    graph = imports()
    graph.pop("orchestrator", None), graph.pop("workers", None), graph.pop("jobs", None)
    rows: dict[int, list[str]] = {}
    for package, depth in depths(graph).items():
        rows.setdefault(depth, []).append(package)
    boxes = {name: box for depth, names in rows.items() for name, box in _row(names, len(rows) - depth).items()}
    arrows = [Arrow(start=start, end=end) for start, ends in reduced(graph).items() for end in sorted(ends)]
    count = sum(map(len, graph.values()))
    title = f"{len(graph)} packages, {count} imports between packages, no cycles"
    return svg(boxes, arrows, width=_WIDTH, height=_ROW * len(rows) + 20, title=title)


def depths(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Return the length of the longest chain of imports below each package.

    Raises:
        RecursionError: packages import each other in a cycle.
    """
    found: dict[str, int] = {}

    def depth(package: str) -> int:
        if package not in found:
            found[package] = 1 + max((depth(target) for target in graph[package] if target in graph), default=-1)
        return found[package]

    return {package: depth(package) for package in sorted(graph)}


def reduced(graph: Mapping[str, set[str]]) -> Graph:
    """Return the graph without imports that a longer chain of imports implies (its transitive reduction)."""
    below: Graph = {}

    def reachable(package: str) -> set[str]:
        if package not in below:
            below[package] = set().union(
                *({target} | reachable(target) for target in graph[package] if target in graph)
            )
        return below[package]

    return {
        package: {
            target
            for target in targets
            if target in graph and not any(target in reachable(other) for other in targets if other in graph)
        }
        for package, targets in graph.items()
    }


def _row(names: list[str], number: int) -> dict[str, Box]:
    left = (_WIDTH - _COLUMN * (len(names) - 1)) / 2
    return {
        name: Box(
            x=left + _COLUMN * column,
            y=_ROW * number - 24,
            lines=tuple(reversed(name.split("."))),
            width=112,
            fill=_LAYERS[name.partition(".")[0]],
        )
        for column, name in enumerate(names)
    }


def _package(path: Path) -> str:
    parts = path.relative_to(_ROOT).parts
    return parts[0] if parts[0] == "configs" or len(parts) == 2 else ".".join(parts[:2])


def _target(module: str) -> str:
    parts = module.split(".")
    if parts[0] not in _LAYERS:
        return ""
    return "configs" if parts[0] == "configs" else ".".join(parts[:2])


def _modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names if "." not in node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found
