"""Answers before and after training, to `lq.prompts` or to questions from the validation set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import mlx.core as mx
from mlx_lm.generate import generate

from jobs.model.errors import message_of
from jobs.model.events import FactEvent, PhaseEvent, WarningEvent
from jobs.model.spec import JobSpec
from workers.data.questions import questions
from workers.mlx.context import RunContext
from workers.mlx.data import text_tools
from workers.mlx.model import TrainedModel

MAX_TOKENS = 128
"""Length of an answer in tokens."""


class _Prompt(NamedTuple):
    shown: str
    tokens: list[int] | None  # None for text of the user, which the chat template may refuse
    max_tokens: int
    about: Mapping[str, Any]  # more fields of the fact


def answer_prompts(context: RunContext, model: TrainedModel, *, when: str, iteration: int) -> None:
    """Report the answers `before` or `after` training, generated greedily as by mlx_lm.generate.

    This changes no bit of the run. `iteration` is that of the model's weights.
    """
    if context.spec.lq.prompts == ():
        return
    context.events.append(PhaseEvent(phase="answer"))
    try:
        prompts = list(_prompts(context.spec, model))
    except (OSError, ValueError, TypeError, LookupError) as error:  # valid.jsonl changed during the run
        text = f"no validation row could be read as a prompt: {message_of(error)}"
        context.events.append(WarningEvent(code="no_answer", text=text))
        return
    model.network.eval()
    with model.without_checkpointing():
        for index, prompt in enumerate(prompts):
            try:
                tokens = prompt.tokens if prompt.tokens is not None else _tokens(model, prompt.shown)
                answer = generate(model.network, model.tokenizer, tokens, max_tokens=prompt.max_tokens)
            except (ValueError, TypeError, RuntimeError) as error:  # the report can do without an answer
                text = f"prompt {index + 1} could not be answered: {message_of(error)}"
                context.events.append(WarningEvent(code="no_answer", text=text))
                continue
            value = {"prompt": prompt.shown, "answer": answer, "iteration": iteration, "max_tokens": prompt.max_tokens}
            context.events.append(FactEvent(name=f"answer.{when}.{index}", value=value | dict(prompt.about)))
    model.network.train()
    mx.clear_cache()


def _prompts(spec: JobSpec, model: TrainedModel) -> Iterator[_Prompt]:
    """Yield `lq.prompts`; without them, questions of the validation set."""
    yield from (_Prompt(text, None, MAX_TOKENS, {}) for text in spec.lq.prompts or ())
    if spec.lq.prompts is not None:
        return
    tokenizer = model.tokenizer
    for question in questions(spec, text_tools(tokenizer)):
        shown = (
            tokenizer.decode(question.prompt, skip_special_tokens=True) if question.asked is None else question.asked
        )
        reference = tokenizer.decode(question.answer, skip_special_tokens=True).strip()
        limit = min(MAX_TOKENS, 2 * len(question.answer) + 8)
        yield _Prompt(shown.strip(), question.prompt, limit, {"row": question.row, "reference": reference})


def _tokens(model: TrainedModel, prompt: str) -> list[int]:
    """Return the tokens of a prompt, in the chat template if the model has one."""
    tokenizer = model.tokenizer
    if not tokenizer.has_chat_template:
        return cast("list[int]", tokenizer.encode(prompt))
    messages = [{"role": "user", "content": prompt}]
    return cast("list[int]", tokenizer.apply_chat_template(messages, add_generation_prompt=True))
