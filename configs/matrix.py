"""`lq.matrix`: one file that makes several jobs. Turns the lists of a matrix into labelled combinations of overrides.

A key of the matrix is a key of the job file with a list of values, or a free name with bundles of settings. The product
is taken in the order of the file; the first key varies slowest. The checks of a job file validate the values later.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.errors import KeyPath, as_written, dotted, invalid
from configs.labels import LabelPart, labels_of
from configs.overrides import IN_MATRIX, Override, parse_key
from configs.suggestions import unknown_key
from configs.validation import levels
from configs.yaml_text import Document
from jobs.model.errors import ConfigInvalid
from jobs.model.spec import JobSpec
from jobs.model.text import listed

MAX_COMBINATIONS = 1000  # jobs of one file

EXCLUDE = "exclude"
_MAX_PRODUCT = 100_000  # combinations before `exclude`
_NEVER = ("lq.format", "lq.name", "lq.group", "lq.matrix", "train", "config")
"""Keys that a matrix cannot vary. The names of a sweep's jobs come from the values that vary."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisValue:
    """One value of an axis."""

    overrides: tuple[Override, ...]
    given: Any  # the value by which `exclude` refers to it
    label_parts: tuple[LabelPart, ...]


Axes = Mapping[str, Sequence[AxisValue]]  # the values of each key of the matrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """One job of a sweep."""

    overrides: tuple[Override, ...]
    label: str  # `lr=1e-5 r=8`, unique in the sweep
    folder: str  # the label as the name of a folder

    @property
    def varied(self) -> Mapping[str, Any]:
        """The values by dotted key."""
        return {dotted(override.key_path): override.value for override in self.overrides}


def without_matrix(document: Document) -> Document:
    """Return the document without its matrix: the common part of its jobs."""
    own = document.value.get("lq")
    if not isinstance(own, dict) or IN_MATRIX[-1] not in own:
        return document
    rest = {key: value for key, value in own.items() if key != IN_MATRIX[-1]}
    lines = {key_path: line for key_path, line in document.lines.items() if key_path[:2] != IN_MATRIX}
    return dataclasses.replace(document, value={**document.value, "lq": rest}, lines=lines)


def combinations(document: Document) -> list[Combination] | None:
    """Return the combinations of the matrix in order, at most MAX_COMBINATIONS; None if the file has no matrix."""
    own = document.value.get("lq")
    given = own.get(IN_MATRIX[-1]) if isinstance(own, dict) else None
    if isinstance(given, dict):
        given = {key: value for key, value in given.items() if value is not None}
    if given is None or given == {}:
        return None
    return _Matrix(document, given).combinations()


class _Matrix:
    def __init__(self, document: Document, given: Any) -> None:
        self._document, self._given = document, given

    def combinations(self) -> list[Combination]:
        if not isinstance(self._given, dict):
            text = f"must be a mapping of keys and lists of values, not {as_written(self._given)}"
            raise self._error(IN_MATRIX, text)
        axes = {key: self._values(key, given) for key, given in self._given.items() if key != EXCLUDE}
        if not axes:
            raise self._error(IN_MATRIX, "has nothing to vary; write a key of the file with a list of values")
        self._require_disjoint(axes)
        rows = self._included(axes)
        labels = labels_of([[part for value in row for part in value.label_parts] for row in rows])
        return [
            Combination(
                overrides=tuple(override for value in row for override in value.overrides),
                label=label,
                folder=folder,
            )
            for row, (label, folder) in zip(rows, labels, strict=True)
        ]

    def _included(self, axes: Axes) -> list[tuple[AxisValue, ...]]:
        """Return the product of the axes without the excluded combinations."""
        excluded = self._excluded(axes)
        rows: list[tuple[AxisValue, ...]] = []
        count = math.prod(map(len, axes.values()))
        if count <= _MAX_PRODUCT:
            rows = [
                row
                for row in itertools.product(*axes.values())
                if not any(all(_same(row[at].given, value) for at, value in entry.items()) for entry in excluded)
            ]
            count = len(rows)
        if count > MAX_COMBINATIONS:
            text = f"makes {count:,} combinations; the maximum is {MAX_COMBINATIONS:,}: shorten a list"
            raise self._error(IN_MATRIX, text)
        if not rows:
            raise self._error((*IN_MATRIX, EXCLUDE), "leaves no combination; remove an entry")
        return rows

    # --- axes ---

    def _values(self, key: str, given: Any) -> list[AxisValue]:
        at = (*IN_MATRIX, key)
        if key == "include":
            raise self._error(at, "is not supported; add a job to the sweep with a second file of the same lq.group")
        if key in _NEVER or key.startswith("lq.matrix."):
            raise self._error(at, "cannot be varied; remove it from the matrix")
        return list(self._plain_values(at, key, given) if _is_job_key(key) else self._bundles(at, key, given))

    def _plain_values(self, at: KeyPath, key: str, given: Any) -> Iterator[AxisValue]:
        if not isinstance(given, list) or not given:
            shown = as_written(given) if given != [] else "an empty list"
            raise self._error(at, f"must be a list of values, not {shown}")
        for index, value in enumerate(given):
            override = self._override(parse_key(key) or (key,), value, (*at, index))
            part = LabelPart(key=key, value=value, position=index + 1)
            yield AxisValue(overrides=(override,), given=value, label_parts=(part,))

    def _bundles(self, at: KeyPath, key: str, given: Any) -> Iterator[AxisValue]:
        """Yield bundles of settings, from a mapping of names or from a list."""
        named = given if isinstance(given, dict) else dict(enumerate(given)) if isinstance(given, list) else {}
        if not named or not all(isinstance(bundle, dict) for bundle in named.values()):
            raise self._unknown_key(at, key, given)
        for position, (name, bundle) in enumerate(named.items(), start=1):
            overrides = tuple(self._bundled(bundle, (*at, name), ()))
            if not overrides:
                raise self._error((*at, name), "contains no setting; write keys of the job file with values")
            word = name if isinstance(name, str) else position
            part = LabelPart(key=key, value=word, position=position)
            yield AxisValue(overrides=overrides, given=word, label_parts=(part,))

    def _bundled(self, bundle: Mapping[str, Any], at: KeyPath, under: KeyPath) -> Iterator[Override]:
        """Yield an override for each value of a bundle, at any depth."""
        for key, value in bundle.items():
            below = parse_key(key)
            if below is None:
                raise self._error((*at, key), "is not a key of a job file")
            key_path = (*under, *below)
            if (not under and key in _NEVER) or dotted(key_path) in _NEVER:
                raise self._error((*at, key), "cannot be varied; remove it from the matrix")
            if isinstance(value, dict) and value:
                yield from self._bundled(value, (*at, key), key_path)
            else:
                yield self._override(key_path, value, (*at, key))

    def _override(self, key_path: KeyPath, value: Any, at: KeyPath) -> Override:
        """Return an override with the lines of its place in the matrix."""
        lines = {
            (*key_path, *position[len(at) :]): line
            for position, line in self._document.lines.items()
            if position[: len(at)] == at
        }
        line = self._document.line(at)
        return Override(key_path=key_path, value=value, lines=({key_path: line} if line is not None else {}) | lines)

    def _require_disjoint(self, axes: Axes) -> None:
        """Refuse two keys of the matrix that set the same key of the file: one of them would have no effect."""
        setters: dict[KeyPath, str] = {}
        for key, values in axes.items():
            own = {override.key_path for value in values for override in value.overrides}
            for key_path in own:
                other = next((setter for earlier, setter in setters.items() if overlap(earlier, key_path)), None)
                if other is not None:
                    text = f"sets {dotted(key_path)}, and so does '{other}'; remove one of them"
                    raise self._error((*IN_MATRIX, key), text)
            setters |= dict.fromkeys(own, key)

    def _excluded(self, axes: Axes) -> list[dict[int, Any]]:
        """Return the excluded combinations, each as values by the index of the axis."""
        at, keys = (*IN_MATRIX, EXCLUDE), list(axes)
        given = self._given.get(EXCLUDE)
        if given is None:
            return []
        if not isinstance(given, list) or not all(isinstance(entry, dict) and entry for entry in given):
            raise self._error(at, "must be a list of mappings, each with keys of the matrix and one value of each")
        for number, entry in enumerate(given):
            for key, value in entry.items():
                if key not in axes:
                    near = difflib.get_close_matches(key, keys, n=1)
                    hint = f"did you mean '{near[0]}'?" if near else f"the keys are {listed(keys, 'or')}"
                    raise self._error((*at, number, key), f"is not a key of the matrix; {hint}")
                if not any(_same(value, each.given) for each in axes[key]):
                    raise self._error((*at, number, key), f"{as_written(value)} is not one of its values")
        return [{keys.index(key): value for key, value in entry.items()} for entry in given]

    def _error(self, at: KeyPath, text: str) -> ConfigInvalid:
        return invalid(self._document.source, self._document.line(at), f"{dotted(at)}: {text}")

    def _unknown_key(self, at: KeyPath, key: str, given: Any) -> ConfigInvalid:
        """Return the error for a key that is not a key of a job file and whose values are not bundles."""
        text = unknown_key(parse_key(key) or (key,), None, top={}, levels=levels(JobSpec))
        if isinstance(given, dict | list):
            text += "; a free name needs mappings of settings as values"
        return self._error(at, text)


def _is_job_key(key: str) -> bool:
    """Return whether a dotted name is a key of a job file, or lies in a free mapping."""
    key_path = parse_key(key)
    if key_path is None:
        return False
    known = levels(JobSpec)
    for length, part in enumerate(key_path):
        level = dotted(key_path[:length])
        if level not in known:
            return True  # below a list or a free mapping, which the checks validate
        if part not in known[level]:
            return False
    return True


def overlap(one: KeyPath, other: KeyPath) -> bool:
    """Return whether two keys are equal, or one contains the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
