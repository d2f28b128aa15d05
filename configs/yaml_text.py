"""YAML text to plain values with line numbers, and back. The only module that imports PyYAML.

The rules are those of MLX-LM: YAML 1.1, in which `1e-5` is a number. Four rules differ, to avoid silent errors: a key
is always text (`on:` is not `true:`), a duplicate key is an error, a date is text, and other tags are refused. PyYAML's
own classes stay unchanged.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from configs.errors import KeyPath, Problem, dotted, invalid, one_line
from jobs.model.errors import ConfigInvalid, Line

_MAX_BYTES = 1024 * 1024
_MAX_VALUES = 100_000  # aliases can make a small text very large
_MAX_DEPTH = 50  # nested mappings and lists

# from mlx_lm/lora.py: YAML 1.1 requires a dot in a number with an exponent
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
    """Quotes exactly those texts that `_Loader` would not read as text."""

    yaml_implicit_resolvers = _without_dates(yaml.SafeDumper.yaml_implicit_resolvers)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # in any other style, a line separator such as U+0085 would be read as a line break
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A YAML file as plain values."""

    source: Path
    value: dict[str, Any]
    lines: Mapping[KeyPath, Line]  # of each key and list item
    anchors: frozenset[str] = frozenset()  # the keys at the top that hold an anchor which another key uses

    def line(self, key_path: KeyPath) -> Line | None:
        """Return the line of a value, or of the nearest value around it in the file."""
        for length in range(len(key_path), 0, -1):
            if key_path[:length] in self.lines:
                return self.lines[key_path[:length]]
        return None

    def problem(self, key_path: KeyPath, text: str) -> Problem:
        """Return a problem with the line and the dotted key of a value."""
        return Problem(key_path=key_path, line=self.line(key_path), text=f"{dotted(key_path)}: {text}")


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that lq does not accept. The text never contains a value of the file."""


_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, OverflowError)


def read(source: Path, *, stdin: bool = False) -> bytes:
    """Return the bytes of a file of at most 1 MB, or of standard input; raise ConfigInvalid if it cannot be read."""
    try:
        with nullcontext(sys.stdin.buffer) if stdin else source.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise invalid(source, None, "no such file") from error
    except IsADirectoryError as error:
        all_files = f"{source.name}/*.yaml"
        raise invalid(source, None, f"is a folder; name the YAML file in it, or all of them: {all_files}") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise invalid(source, None, f"cannot be read: {why}") from error
    if len(content) > _MAX_BYTES:
        raise invalid(source, None, "is larger than 1 MB; name a YAML file, not a data or model file")
    return content


def parse(source: Path, content: bytes, *, secret: bool = False) -> Document | None:
    """Read one YAML document with a mapping at the top; return None if it is empty.

    Errors quote nothing of a `secret` file.
    """
    try:
        value, lines, anchors = _read(content.decode("utf-8-sig"), mapping=True)
        return None if value is None else Document(source=source, value=value, lines=lines, anchors=anchors)
    except _NOT_YAML as error:
        line, text = _fault(error, content, secret=secret)
        cause = None if secret else error
    # raised outside the except clause, so that no chained error shows a secret in a traceback
    raise invalid(source, line, text) from cause


def parse_value(text: str) -> Any:
    """Read one value, by the rules for a value in a file; raise ValueError with the reason if it is not valid YAML."""
    try:
        return _read(text, mapping=False)[0]
    except _NOT_YAML as error:
        raise ValueError(_fault(error, b"", secret=False)[1]) from error


def dump(value: Mapping[str, Any]) -> str:
    """Return plain values as YAML, with keys in their order. `parse` restores equal values."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _read(text: str, *, mapping: bool) -> tuple[Any, Mapping[KeyPath, Line], frozenset[str]]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}, frozenset()
        reading, anchors = _Reading(loader), frozenset(_anchors(node))  # before merge keys are replaced
        value = reading.value(node, ())
    finally:
        loader.dispose()
    if mapping and not isinstance(value, dict | None):
        raise _Refused(problem="must be a mapping of keys and values", problem_mark=node.start_mark)
    return value, reading.lines, anchors


def _anchors(top: yaml.Node) -> Iterator[str]:
    """Yield the keys of a mapping whose values hold a node that a later key uses too."""
    holders: dict[int, str] = {}
    for key, item in top.value if isinstance(top, yaml.MappingNode) else ():
        inside, left = set[int](), [item]
        while left:
            node = left.pop()
            if id(node) in inside:
                continue
            inside.add(id(node))
            if id(node) in holders:
                yield holders[id(node)]
            elif isinstance(node, yaml.MappingNode):
                left += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                left += node.value
        holders |= {node_id: str(key.value) for node_id in inside if node_id not in holders}


def _fault(error: Exception, content: bytes, *, secret: bool) -> tuple[int | None, str]:
    """Return the line of an error in a file, and what is wrong there."""
    if isinstance(error, UnicodeDecodeError):
        return content[: error.start].count(b"\n") + 1, "not UTF-8 text; convert the file to UTF-8"
    if isinstance(error, yaml.reader.ReaderError):
        before = content.decode("utf-8-sig")[: error.position]
        return before.count("\n") + 1, "a character that YAML does not allow"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        shown = f": {error.problem}" if not secret else ""
        text = str(error.problem) if isinstance(error, _Refused) else f"not valid YAML{shown}"
        return None if mark is None else mark.line + 1, text
    if isinstance(error, RecursionError):
        return None, "not valid YAML: nested too deeply"
    return None, "an escape names a character that does not exist"


class _Reading:
    """Converts nodes to values and records their lines."""

    def __init__(self, loader: _Loader) -> None:
        self.lines: dict[KeyPath, Line] = {}
        self._loader = loader
        self._open: set[int] = set()  # the nodes around the current one: an alias to one of them is endless
        self._merged: set[int] = set()  # mappings whose keys are checked and whose `<<` is merged
        self._left = _MAX_VALUES

    def value(self, node: yaml.Node, key_path: KeyPath) -> Any:
        self._left -= 1
        if id(node) in self._open or self._left < 0:
            raise _Refused(problem="an alias that expands without end", problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if len(self._open) >= _MAX_DEPTH:
            raise _Refused(problem="nested too deeply", problem_mark=node.start_mark)
        self._open.add(id(node))
        value = self._mapping(node, key_path) if isinstance(node, yaml.MappingNode) else self._sequence(node, key_path)
        self._open.remove(id(node))
        return value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            value = self._loader.construct_object(node)
        except (ValueError, LookupError) as error:
            raise _Refused(problem="a value that does not match its tag", problem_mark=node.start_mark) from error
        if isinstance(value, str):
            _require_characters(value, node)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        raise _Refused(problem="a value must be text, a number, true, false or null", problem_mark=node.start_mark)

    def _sequence(self, node: yaml.Node, key_path: KeyPath) -> list[Any]:
        _require_tag(node, "tag:yaml.org,2002:seq")
        items = []
        for index, item in enumerate(node.value):
            self.lines[(*key_path, index)] = item.start_mark.line + 1
            items.append(self.value(item, (*key_path, index)))
        return items

    def _mapping(self, node: yaml.MappingNode, key_path: KeyPath) -> dict[str, Any]:
        _require_tag(node, "tag:yaml.org,2002:map")
        if id(node) not in self._merged:
            _require_keys(node)
            self._loader.flatten_mapping(node)  # `<<`
            self._merged.add(id(node))
        mapping: dict[str, Any] = {}
        for key, item in node.value:
            below = (*key_path, key.value)
            self.lines[below] = key.start_mark.line + 1
            mapping[key.value] = self.value(item, below)
        return mapping


def _require_characters(text: str, node: yaml.Node) -> None:
    """Refuse an escape of a lone surrogate, which no file and no database accepts."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Refused(problem="an escape of a character that does not exist", problem_mark=node.start_mark) from error


def _require_tag(node: yaml.Node, tag: str) -> None:
    if node.tag != tag:
        raise _Refused(problem="a list or mapping must not have a tag", problem_mark=node.start_mark)


def _require_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused(problem="a key must be text", problem_mark=key.start_mark)
        _require_characters(key.value, key)
        if key.value in lines:
            text = f"duplicate key {quoted_key(key.value)}, first in line {lines[key.value]}; remove one"
            raise _Refused(problem=text, problem_mark=key.start_mark)
        lines[key.value] = key.start_mark.line + 1


def quoted_key(key: str) -> str:
    """Return a key for a message. A key that looks like a URL can contain a password and is hidden."""
    return "'(hidden)'" if ":/" in key else f"'{one_line(key)}'"


def require_document(source: Path, content: bytes | None = None) -> Document:
    """Return the mapping in a file, or in its `content`; raise ConfigInvalid if it is empty."""
    document = parse(source, read(source) if content is None else content)
    if document is None:
        raise ConfigInvalid(one_line(f"{source}: is empty; a job file needs at least a model and data"))
    return document


def with_item(text: str, keys: Sequence[str], item: Mapping[str, Any]) -> str:
    """Return YAML text with an item added to the list at `keys`. Comments and everything else stay.

    Raises:
        ValueError: the text has a form that cannot be edited, such as an alias in place of the list.
    """
    loader = _Loader(text)
    node, missing = loader.get_single_node(), list(keys)
    parent = node
    while isinstance(node, yaml.MappingNode) and missing:
        parent, node = node, next((value for key, value in node.value if key.value == missing[0]), None)
        if node is None:
            break
        missing.pop(0)
    new: Any = [dict(item)]
    for key in reversed(missing):
        new = {key: new}
    added = _added(text, node if node is not None else parent, new)
    if parse_value(added) != _expected(parse_value(text), keys, item):
        raise ValueError("the list cannot be edited")
    return added


def _added(text: str, node: yaml.Node | None, new: Any) -> str:
    """Return the text with the content of `new`, a mapping or list, at the end of a node."""
    flow = yaml.dump(new, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=True)
    if isinstance(node, yaml.ScalarNode):  # null
        return f"{text[: node.start_mark.index]} {flow.strip()}{text[node.end_mark.index :]}"
    if isinstance(node, yaml.CollectionNode) and node.flow_style:
        comma = ", " if node.value else ""
        return f"{text[: node.end_mark.index - 1]}{comma}{flow.strip()[1:-1]}{text[node.end_mark.index - 1 :]}"
    block = yaml.dump(new, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    indent = " " * (node.start_mark.column if node is not None else 0)
    end = _end(node) if node is not None else len(text)
    line_end = text.find("\n", end) + 1 if "\n" in text[end:] else len(text)
    before = text[:line_end]
    if before and not before.endswith("\n"):
        before += "\n"
    block = textwrap.indent(block, indent)
    if "\r\n" in text:
        before, block = before.removesuffix("\n").removesuffix("\r") + "\r\n", block.replace("\n", "\r\n")
    return before + block + text[line_end:]


def _end(node: yaml.Node) -> int:
    """Return where the last value of a node ends; PyYAML ends a block at the token after its comments."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    index: int = node.end_mark.index
    return index


def _expected(value: Any, keys: Sequence[str], item: Mapping[str, Any]) -> Any:
    if not keys:
        return [*(value or ()), dict(item)]
    below = value if isinstance(value, dict) else {}
    return below | {keys[0]: _expected(below.get(keys[0]), keys[1:], item)}
