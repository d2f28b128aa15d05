"""Answers to `lq.prompts` before and after training."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
from mlx_lm.generate import generate

from jobs.model.errors import message_of
from jobs.model.events import FactEvent, PhaseEvent, WarningEvent
from workers.mlx.context import RunContext
from workers.mlx.model import TrainedModel

MAX_TOKENS = 128
"""Length of an answer in tokens."""


def answer_prompts(context: RunContext, model: TrainedModel, *, when: str, iteration: int) -> None:
    """Report the answers `before` or `after` training, generated greedily as by mlx_lm.generate.

    This changes no bit of the run. `iteration` is that of the model's weights.
    """
    if not context.spec.lq.prompts:
        return
    context.events.append(PhaseEvent(phase="answer"))
    model.network.eval()
    with model.without_checkpointing():
        for index, prompt in enumerate(context.spec.lq.prompts):
            try:
                answer = generate(model.network, model.tokenizer, _tokens(model, prompt), max_tokens=MAX_TOKENS)
            except (ValueError, TypeError, RuntimeError) as error:  # the report can do without an answer
                text = f"prompt {index + 1} could not be answered: {message_of(error)}"
                context.events.append(WarningEvent(code="no_answer", text=text))
                continue
            value = {"prompt": prompt, "answer": answer, "iteration": iteration, "max_tokens": MAX_TOKENS}
            context.events.append(FactEvent(name=f"answer.{when}.{index}", value=value))
    model.network.train()
    mx.clear_cache()


def _tokens(model: TrainedModel, prompt: str) -> list[int]:
    """Return the tokens of a prompt, in the chat template if the model has one."""
    tokenizer = model.tokenizer
    if not tokenizer.has_chat_template:
        return cast("list[int]", tokenizer.encode(prompt))
    messages = [{"role": "user", "content": prompt}]
    return cast("list[int]", tokenizer.apply_chat_template(messages, add_generation_prompt=True))
