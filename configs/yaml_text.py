"""YAML text into plain values that remember their lines, and back. The only file that knows PyYAML.

What MLX-LM reads from a text is read here: `1e-5` is a number, YAML 1.1 otherwise. Four things differ, each
where PyYAML would go wrong in silence: a key is always its text (`on:` is not `true:`), a key given twice is an
error, a date is text, and only plain values exist. PyYAML's own classes are left as they are.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from configs.errors import Where, invalid, one_line
from jobs.model.errors import ConfigInvalid, Line

_LARGEST_FILE = 1024 * 1024  # bytes; a job file is a page of text
_MOST_VALUES = 100_000  # aliases can make a small text very large
_DEEPEST = 50  # mappings and lists inside each other

# mlx_lm/lora.py's: YAML 1.1 wants a dot in a number with an exponent, people do not
_FLOAT = re.compile(
    r"""^(?:
     [-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


def _without_dates(resolvers: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {first: [pair for pair in pairs if pair[0] != _TIMESTAMP] for first, pairs in resolvers.items()}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _without_dates(yaml.SafeLoader.yaml_implicit_resolvers)


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what `_Loader` would take for something else than text."""

    yaml_implicit_resolvers = _without_dates(yaml.SafeDumper.yaml_implicit_resolvers)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # every other style lets a line separator such as U+0085 pass as a line break
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A YAML file as plain values."""

    source: Path
    value: dict[str, Any]
    lines: Mapping[Where, Line]  # where each key and list item was given

    def line(self, where: Where) -> Line | None:
        """Return the line of a value, or of the nearest mapping around it that the file has."""
        for length in range(len(where), 0, -1):
            if where[:length] in self.lines:
                return self.lines[where[:length]]
        return None


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that lq does not read; its text never holds a value of the file."""


def read_typed(source: Path) -> bytes:
    """Return what comes on standard input, to its end.

    Args:
        source: what it is called in errors.

    Raises:
        ConfigInvalid: it is far larger than any file people write.
    """
    content = sys.stdin.buffer.read(_LARGEST_FILE + 1)
    return _not_too_large(source, content)


def read(source: Path) -> bytes:
    """Return the bytes of a small file.

    Raises:
        ConfigInvalid: it is missing, a folder, unreadable, or far larger than any file people write.
    """
    try:
        with source.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise invalid(source, None, "no such file") from error
    except IsADirectoryError as error:
        raise invalid(source, None, "is a folder; name the YAML file in it") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise invalid(source, None, f"cannot be read: {why}") from error
    return _not_too_large(source, content)


def _not_too_large(source: Path, content: bytes) -> bytes:
    if len(content) > _LARGEST_FILE:
        raise invalid(source, None, "is larger than 1 MB; this is not a YAML file people write")
    return content


def parse(source: Path, content: bytes, *, secret: bool = False) -> Document | None:
    """Read one YAML document whose top is a mapping.

    Args:
        source: named in errors.
        content: the file.
        secret: the file may hold secrets, so no error may quote it.

    Returns:
        None where the file holds nothing.

    Raises:
        ConfigInvalid: it is anything else.
    """
    line: int | None
    cause: Exception
    try:
        return _document(source, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line, text, cause = _line_at(content, error.start), "not a text in UTF-8", error
    except yaml.reader.ReaderError as error:
        before = content.decode("utf-8-sig")[: error.position]
        line, text, cause = before.count("\n") + 1, "a character that YAML does not allow", error
    except yaml.MarkedYAMLError as error:
        line, text, cause = _line_of(error), _problem(error, secret=secret), error
    except RecursionError as error:
        line, text, cause = None, "not valid YAML: nested too deeply", error
    except (ValueError, OverflowError) as error:
        line, text, cause = None, "an escape names a character that does not exist", error
    # raised out here, so that no chained error carries a secret into a traceback
    raise invalid(source, line, text) from (None if secret else cause)


def parse_value(text: str) -> Any:
    """Read one value as it would be read after a key of a file.

    Raises:
        ValueError: it is no valid YAML; its text says why.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Reading(loader).value(node, ())
    except yaml.reader.ReaderError as error:
        raise ValueError("a character that YAML does not allow") from error
    except yaml.MarkedYAMLError as error:
        raise ValueError(_problem(error, secret=False)) from error
    except RecursionError as error:
        raise ValueError("not valid YAML: nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise ValueError("an escape names a character that does not exist") from error


def dump(value: Mapping[str, Any]) -> str:
    """Return plain values as YAML that `parse` reads back equal; keys stay in their order."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _document(source: Path, text: str) -> Document | None:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        reading = _Reading(loader)
        value = reading.value(node, ())
    finally:
        loader.dispose()
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _Refused(problem="must be a mapping of keys and values", problem_mark=node.start_mark)
    return Document(source=source, value=value, lines=reading.lines)


class _Reading:
    """Turns nodes into values and notes the line of each."""

    def __init__(self, loader: _Loader) -> None:
        self.lines: dict[Where, Line] = {}
        self._loader = loader
        self._open: set[int] = set()  # the nodes around the present one: an alias to one of them never ends
        self._known: set[int] = set()  # mappings whose keys are checked and merged
        self._left = _MOST_VALUES

    def value(self, node: yaml.Node, where: Where) -> Any:
        self._left -= 1
        if id(node) in self._open or self._left < 0:
            raise _Refused(problem="an alias that makes the file endless", problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if len(self._open) >= _DEEPEST:
            raise _Refused(problem="nested too deeply", problem_mark=node.start_mark)
        self._open.add(id(node))
        value = self._mapping(node, where) if isinstance(node, yaml.MappingNode) else self._sequence(node, where)
        self._open.remove(id(node))
        return value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            value = self._loader.construct_object(node)
        except (ValueError, LookupError) as error:
            raise _Refused(problem="a value that is not what its tag says", problem_mark=node.start_mark) from error
        if isinstance(value, str):
            _require_characters(value, node)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        raise _Refused(problem="only text, numbers, true, false and null are read", problem_mark=node.start_mark)

    def _sequence(self, node: yaml.Node, where: Where) -> list[Any]:
        _require_tag(node, "tag:yaml.org,2002:seq")
        items = []
        for place, item in enumerate(node.value):
            self.lines[(*where, place)] = item.start_mark.line + 1
            items.append(self.value(item, (*where, place)))
        return items

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        _require_tag(node, "tag:yaml.org,2002:map")
        if id(node) not in self._known:
            _require_keys(node)
            self._loader.flatten_mapping(node)  # `<<`
            self._known.add(id(node))
        found: dict[str, Any] = {}
        for key, item in node.value:
            place = (*where, key.value)
            self.lines[place] = key.start_mark.line + 1
            found[key.value] = self.value(item, place)
        return found


def _require_characters(text: str, node: yaml.Node) -> None:
    """An escape can name half of a surrogate pair, which no file and no database takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Refused(problem="a character that does not exist", problem_mark=node.start_mark) from error


def _require_tag(node: yaml.Node, tag: str) -> None:
    if node.tag != tag:
        raise _Refused(problem="only plain lists and mappings are read, without a tag", problem_mark=node.start_mark)


def _require_keys(node: yaml.MappingNode) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused(problem="a key must be text", problem_mark=key.start_mark)
        _require_characters(key.value, key)
        if key.value in seen:
            problem = f"key {quoted_key(key.value)} is given twice, first in line {seen[key.value]}"
            raise _Refused(problem=problem, problem_mark=key.start_mark)
        seen[key.value] = key.start_mark.line + 1


def quoted_key(key: str) -> str:
    """Return a key for a message; one that looks like a URL may hold a password and is not shown."""
    return "'(hidden)'" if ":/" in key else f"'{one_line(key)}'"


def _line_at(content: bytes, position: int) -> int:
    return content[:position].count(b"\n") + 1


def _line_of(error: yaml.MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return None if mark is None else mark.line + 1


def _problem(error: yaml.MarkedYAMLError, *, secret: bool) -> str:
    if isinstance(error, _Refused):
        return str(error.problem)
    return "not valid YAML" if secret else f"not valid YAML: {error.problem}"


def require_document(source: Path, content: bytes | None = None) -> Document:
    """Read a file that must hold a mapping with something in it.

    Args:
        source: the file.
        content: what it holds, where that is known already.

    Raises:
        ConfigInvalid: it does not.
    """
    document = parse(source, read(source) if content is None else content)
    if document is None:
        raise ConfigInvalid(one_line(f"{source}: is empty; a job file holds at least a model and data"))
    return document
