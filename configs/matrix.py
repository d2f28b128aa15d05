"""`lq.matrix`: one file, many jobs. The lists of a matrix become combinations, each a list of settings with a label.

A key of the matrix is a key of the job file with a list of values, or any other name with settings that belong
together. The product is taken in the order written, the first key slowest. What the settings mean is not known here.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.errors import Where, dotted, invalid, show
from configs.labels import LabelPart, labels_of
from configs.overrides import IN_MATRIX, Setting, where_of
from configs.suggestions import unknown_key
from configs.validation import levels
from configs.yaml_text import Document
from jobs.model.errors import ConfigInvalid
from jobs.model.spec import JobSpec
from jobs.model.text import listed

MOST = 1000
"""Combinations of one file."""

EXCLUDE = "exclude"
_MOST_LOOKED_AT = 100_000  # combinations before `exclude`
_NEVER = ("lq.format", "lq.name", "lq.group", "lq.matrix", "train", "config")
"""Keys that no list may vary: what a sweep's jobs are called follows from what they vary."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisValue:
    """One value of an axis."""

    settings: tuple[Setting, ...]
    given: Any  # what `exclude` names it by
    choices: tuple[LabelPart, ...]  # what labels are made of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """A key of the matrix, with its values."""

    key: str
    values: tuple[AxisValue, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """One job of a sweep."""

    settings: tuple[Setting, ...]  # to lay upon the file
    varied: Mapping[str, Any]  # the values by dotted key
    label: str  # `lr=1e-5 r=8`; no two of a sweep have the same
    folder: str  # the label as a folder's name


def without_matrix(document: Document) -> Document:
    """Return a document as each of its jobs begins: without the matrix."""
    own = document.value.get("lq")
    if not isinstance(own, dict) or IN_MATRIX[-1] not in own:
        return document
    rest = {key: value for key, value in own.items() if key != IN_MATRIX[-1]}
    lines = {where: line for where, line in document.lines.items() if where[:2] != IN_MATRIX}
    return Document(source=document.source, value={**document.value, "lq": rest}, lines=lines)


def combinations(document: Document) -> list[Combination] | None:
    """Return the combinations of a file's matrix in their order; None where it has none.

    Raises:
        ConfigInvalid: the matrix cannot be followed, or makes more than MOST combinations.
    """
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
            raise self._wrong(IN_MATRIX, f"must be a mapping of keys and lists of values, not {show(self._given)}")
        axes = [self._axis(key) for key in self._given if key != EXCLUDE]
        if not axes:
            raise self._wrong(IN_MATRIX, "has nothing to vary; write a key of the file with a list of values")
        self._require_apart(axes)
        excluded = self._excluded(axes)
        product = math.prod(len(axis.values) for axis in axes)
        if product <= _MOST_LOOKED_AT:
            kept = [one for one in itertools.product(*(axis.values for axis in axes)) if not _is_out(one, excluded)]
            product = len(kept)
        if product > MOST:
            raise self._wrong(IN_MATRIX, f"makes {product:,} combinations, and at most {MOST:,} are queued together")
        if not kept:
            raise self._wrong((*IN_MATRIX, EXCLUDE), "leaves no combination")
        labels = labels_of([[choice for value in one for choice in value.choices] for one in kept])
        return [
            Combination(
                settings=tuple(setting for value in one for setting in value.settings),
                varied={dotted(setting.where): setting.value for value in one for setting in value.settings},
                label=label.text,
                folder=label.folder,
            )
            for one, label in zip(kept, labels, strict=True)
        ]

    # --- axes ---

    def _axis(self, key: str) -> Axis:
        at = (*IN_MATRIX, key)
        if key == "include":
            text = "is not read; a further file with the same lq.group joins the sweep"
            raise self._wrong(at, text)
        if key in _NEVER or key.startswith("lq.matrix."):
            raise self._wrong(at, "cannot be varied")
        given = self._given[key]
        if _is_key(key):
            return Axis(key=key, values=tuple(self._plain_values(key, given)))
        return Axis(key=key, values=tuple(self._bundles(key, given)))

    def _plain_values(self, key: str, given: Any) -> Iterator[AxisValue]:
        at, where = (*IN_MATRIX, key), where_of(key) or (key,)
        if not isinstance(given, list) or not given:
            raise self._wrong(at, f"must be a list of values, not {show(given) if given != [] else 'an empty one'}")
        for place, value in enumerate(given):
            setting = self._setting(where, value, (*at, place))
            choice = LabelPart(key=key, value=value, place=place + 1)
            yield AxisValue(settings=(setting,), given=value, choices=(choice,))

    def _bundles(self, key: str, given: Any) -> Iterator[AxisValue]:
        """Yield settings that belong together, under a name of their own or one by one."""
        at = (*IN_MATRIX, key)
        named = given if isinstance(given, dict) else dict(enumerate(given)) if isinstance(given, list) else {}
        if not named or not all(isinstance(one, dict) for one in named.values()):
            raise self._wrong_key(at, key, given)
        for place, (name, bundle) in enumerate(named.items(), start=1):
            inside = (*at, name)
            settings = tuple(self._bundled(bundle, inside, ()))
            if not settings:
                raise self._wrong(inside, "holds no setting")
            word = name if isinstance(name, str) else place
            yield AxisValue(settings=settings, given=word, choices=(LabelPart(key=key, value=word, place=place),))

    def _bundled(self, bundle: Mapping[str, Any], at: Where, under: Where) -> Iterator[Setting]:
        """Yield the settings of a piece of a job file: laid upon the file key by key, as deep as it goes."""
        for key, value in bundle.items():
            below = where_of(key)
            if below is None or (not under and key in _NEVER):
                raise self._wrong((*at, key), "cannot be varied" if below else "is no key of a job file")
            where = (*under, *below)
            if isinstance(value, dict) and value:
                yield from self._bundled(value, (*at, key), where)
            elif dotted(where) in _NEVER:
                raise self._wrong((*at, key), "cannot be varied")
            else:
                yield self._setting(where, value, (*at, key))

    def _setting(self, where: Where, value: Any, at: Where) -> Setting:
        """Return a setting whose lines are those of its place in the matrix."""
        inside = {
            (*where, *place[len(at) :]): line for place, line in self._document.lines.items() if place[: len(at)] == at
        }
        line = self._document.line(at)
        return Setting(where=where, value=value, lines=({where: line} if line is not None else {}) | inside)

    def _require_apart(self, axes: Sequence[Axis]) -> None:
        """Refuse two keys of the matrix that set the same key of the file: one of them would do nothing."""
        seen: dict[Where, str] = {}
        for axis in axes:
            own = {setting.where for value in axis.values for setting in value.settings}
            for where in own:
                other = next((key for had, key in seen.items() if overlap(had, where)), None)
                if other is not None:
                    raise self._wrong((*IN_MATRIX, axis.key), f"sets {dotted(where)}, and so does '{other}'")
            seen |= dict.fromkeys(own, axis.key)

    # --- exclude ---

    def _excluded(self, axes: Sequence[Axis]) -> list[dict[int, Any]]:
        """Return what is left out: by the place of an axis the value it has there."""
        at = (*IN_MATRIX, EXCLUDE)
        given = self._given.get(EXCLUDE)
        if given is None:
            return []
        if not isinstance(given, list) or not all(isinstance(one, dict) and one for one in given):
            raise self._wrong(at, "must be a list of mappings, each with keys of the matrix and a value of each")
        places = {axis.key: place for place, axis in enumerate(axes)}
        found = []
        for number, one in enumerate(given):
            for key, value in one.items():
                self._require_value((*at, number, key), key, value, axes, places)
            found.append({places[key]: value for key, value in one.items()})
        return found

    def _require_value(self, at: Where, key: str, value: Any, axes: Sequence[Axis], places: Mapping[str, int]) -> None:
        if key not in places:
            near = difflib.get_close_matches(key, places, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"the keys are {listed(places, 'or')}"
            raise self._wrong(at, f"is no key of the matrix; {hint}")
        values = [one.given for one in axes[places[key]].values]
        if not any(_same(value, one) for one in values):
            raise self._wrong(at, f"{show(value)} is not one of its values")

    # --- words ---

    def _wrong(self, at: Where, text: str) -> ConfigInvalid:
        return invalid(self._document.source, self._document.line(at), f"{dotted(at)}: {text}")

    def _wrong_key(self, at: Where, key: str, given: Any) -> ConfigInvalid:
        """Say that a name is no key of a job file, and that its values are no mappings either."""
        where = where_of(key) or (key,)
        text = unknown_key(where, None, top={}, levels=levels(JobSpec))
        line = self._document.line(at)
        if not isinstance(given, dict | list):
            return invalid(self._document.source, line, f"{dotted(at)}: {text}")
        text += "; a name of your own holds mappings of settings that belong together"
        return invalid(self._document.source, line, f"{dotted(at)}: {text}")


def _is_key(key: str) -> bool:
    """Say whether a dotted name is a key of a job file, or lies in a mapping whose keys are free."""
    where = where_of(key)
    if where is None:
        return False
    known = levels(JobSpec)
    for length, part in enumerate(where):
        level = dotted(where[:length])
        if level not in known:
            return True  # below a list or a free mapping: the checks know
        if part not in known[level]:
            return False
    return True


def overlap(one: Where, other: Where) -> bool:
    """Say whether two keys are the same, or one holds the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _is_out(values: Sequence[AxisValue], excluded: Sequence[Mapping[int, Any]]) -> bool:
    return any(all(_same(values[place].given, value) for place, value in one.items()) for one in excluded)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
