"""Applies a model's chat template as transformers does, without transformers. The only file that imports jinja2.

A template comes with the model and is code, so it runs in jinja2's sandbox. The settings and additions are those of
transformers (transformers/utils/chat_template_utils.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workers.data.rendering import Messages, Render

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's reasoning; transformers fills in the first for the others, and `thinking` for gpt-oss."""


def renderer(sources: Mapping[str, str], variables: Mapping[str, Any]) -> Render:
    """Return a function that applies the templates of a model.

    Args:
        sources: by name; `default` is required.
        variables: what templates use besides the messages, such as `bos_token` and `enable_thinking`.

    Raises:
        ValueError: a template has errors.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 as transformers
    templates: dict[str, Template] = {}
    for name, source in sources.items():
        try:
            templates[name] = environment.from_string(source)
            # jinja2 copies these for each row, and a ChainMap slowly
            templates[name].globals = {**templates[name].globals, "documents": None, **variables}
        except TemplateError as error:
            raise ValueError(
                f"the chat template has an error in line {getattr(error, 'lineno', 1)}: {error}"
            ) from error

    def render(messages: Messages, tools: Any, *, add_generation_prompt: bool) -> str:
        template = templates["tool_use" if tools is not None and "tool_use" in templates else "default"]
        return template.render(
            messages=[_normalized(message) for message in messages],
            tools=tools,
            add_generation_prompt=add_generation_prompt,
        )

    return render


def _normalized(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what transformers makes of a message before a template sees it."""
    message = {key: value for key, value in message.items() if value is not None}
    if message.keys().isdisjoint(_REASONING):
        return message
    reasoning = next(message[key] for key in _REASONING if key in message)
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


class _Generation(Extension):
    """`{% generation %}` marks the text of the assistant; the text passes unchanged."""

    tags = {"generation"}  # noqa: RUF012 jinja2 reads it from the class

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the contents of the block, in a scope of their own as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

    def _unchanged(self, caller: Any) -> Any:
        return caller()


def _tojson(value: Any, **options: Any) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options))


def _raise(message: str) -> None:
    raise TemplateError(message)
