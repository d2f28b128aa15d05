"""Applies a model's chat template as transformers does, without transformers. The only file that imports jinja2.

A template comes with the model and is code, so it runs in jinja2's sandbox. The settings and additions are those of
transformers (transformers/utils/chat_template_utils.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Render = Callable[[Sequence[Mapping[str, Any]], Any], str]
"""Returns the text of messages and tools."""


class TemplateUnusable(Exception):
    """The template cannot be applied."""


def source_of(model: Path) -> str | None:
    """Return the template of a model folder; None if it has none."""
    file = model / "chat_template.jinja"
    try:
        if file.is_file():
            return file.read_text()
        template = json.loads((model / "tokenizer_config.json").read_text()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    if isinstance(template, list):  # named templates
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def renderer(source: str, special_tokens: Mapping[str, str]) -> Render:
    """Return a function that applies a template.

    Args:
        source: the template.
        special_tokens: by name, such as `bos_token`; templates use them.

    Raises:
        TemplateUnusable: the template has errors. The function raises it if the template refuses the messages.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise TemplateUnusable(str(error)) from error

    def render(messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
        try:
            return template.render(messages=messages, tools=tools, add_generation_prompt=False, **special_tokens)
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise TemplateUnusable(str(error)) from error

    return render


class _Generation(Extension):
    """`{% generation %}` marks the text of the assistant; the text passes unchanged."""

    tags = {"generation"}  # noqa: RUF012 jinja2 reads it from the class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the contents of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: Any, **options: Any) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options))


def _raise(message: str) -> None:
    raise TemplateError(message)
