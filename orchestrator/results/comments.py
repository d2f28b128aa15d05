"""What stands beside a field in the source, as its description: one place for people who read either."""

from __future__ import annotations

import ast
import functools
import inspect
import io
import tokenize
from collections.abc import Mapping


@functools.cache
def comments_of(described: type) -> Mapping[str, str]:
    """Return the comment of each field, or member, that has one.

    A comment begins on the field's last line and goes on in the lines below that hold nothing else.

    Args:
        described: a dataclass, a TypedDict or an enumeration, with its source at hand.
    """
    source = inspect.cleandoc("\n" + inspect.getsource(described))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    fields = [(name, one) for one in definition.body if (name := _name(one)) is not None]
    taken = {line for one in definition.body for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)}
    found = {}
    for name, field in fields:
        line = field.end_lineno or field.lineno
        words = [comments[line]] if line in comments else []
        while words and (line := line + 1) in comments and line not in taken:
            words.append(comments[line])
        if words:
            found[name] = " ".join(words)
    return found


def _name(statement: ast.stmt) -> str | None:
    """Return what a statement gives a value or a type; None where it does neither."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None
