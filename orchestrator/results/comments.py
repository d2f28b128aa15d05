"""The comment after a field, or after a member of an enumeration, as its description."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping

_FIELD = re.compile(r"^ {4}(\w+)(?:: | = )[^#\n]*?(?:#[^#\n]*)?  # (.+(?:\n {4,}# .+)*)$", re.MULTILINE)


@functools.cache
def comments_of(described: type) -> Mapping[str, str]:
    """Return the comments in the source of a class, by field. A comment may continue on the next lines."""
    source = inspect.cleandoc("\n" + inspect.getsource(described))
    return {name: re.sub(r"\s*\n\s*# ", " ", text) for name, text in _FIELD.findall(source)}
