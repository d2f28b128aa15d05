"""A tiny random Qwen2 with its own BPE tokenizer, and small sets of questions and answers. Tests train it, too."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = list[dict[str, str]]  # the messages of a chat

HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, FEED_FORWARD = 32, 2, 4, 2, 64
VOCABULARY = 384
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_COLOURS = {"the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "blood": "red"}
_QUESTIONS = (
    "What colour is {}?",
    "Which colour does {} have?",
    "What is the colour of {}?",
    "Tell me the colour of {}.",
    "Name the colour of {}.",
)
_OPENINGS = ("", "Hello. ", "Please: ", "A question: ", "Tell me, ", "Hi! ")
_ANSWERS = (
    "{a} plus {b} is {c}.",
    "The sum of {a} and {b} is {c}.",
    "{c}, because {a} and {b} more make {c}.",
)


def build_first_job(folder: Path) -> None:
    """Write model/ and data/ of a first job: questions about colours, which the model learns in 240 iterations.

    No question of valid.jsonl or test.jsonl is in train.jsonl in the same words.
    """
    rng = random.Random(0)  # noqa: S311 not for security
    rows = [
        _row(opening + question.format(thing), rng.choice((f"{thing.capitalize()} is {colour}.", f"It is {colour}.")))
        for thing, colour in _COLOURS.items()
        for question in _QUESTIONS
        for opening in _OPENINGS
    ]
    rng.shuffle(rows)
    build_model(folder / "model", corpus=[message["content"] for row in rows for message in row], gain=4.0)
    (folder / "data").mkdir(exist_ok=True)
    for name, part in (("train", rows[:104]), ("valid", rows[104:164]), ("test", rows[164:])):
        _write_rows(folder / "data" / f"{name}.jsonl", part)


def build_model(folder: Path, *, seed: int = 0, corpus: Sequence[str] = (), gain: float = 1.0) -> None:
    """Write a model folder that mlx_lm loads: config.json, model.safetensors, tokenizer files.

    Args:
        seed: of the random weights.
        corpus: texts from which the tokenizer learns its tokens; sums by default.
        gain: factor of the logits. With 1 they are so small that no answer can get a probability near 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size, end = _build_tokenizer(folder, corpus)
    config = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FEED_FORWARD,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-6,
        "vocab_size": size,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "eos_token_id": end,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    from safetensors.numpy import save_file

    weights = _weights(size, np.random.default_rng(seed))
    weights["model.norm.weight"] *= np.float32(gain)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def build_data(folder: Path, *, train: int = 96, valid: int = 16, test: int = 16, seed: int = 0) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl: sums, as chat rows of different lengths; 0 rows write no file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)  # noqa: S311 not for security
    for name, rows in (("train", train), ("valid", valid), ("test", test)):
        if rows:
            _write_rows(folder / f"{name}.jsonl", [_exercise(rng) for _ in range(rows)])


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))


def _row(question: str, answer: str) -> Row:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _exercise(rng: random.Random) -> Row:
    a, b = rng.randint(1, 50), rng.randint(1, 50)
    answers = rng.sample(_ANSWERS, rng.randint(1, 2))
    answer = " ".join(answers).format(a=a, b=b, c=a + b)
    return _row(f"What is {a} plus {b}?", answer)


def _build_tokenizer(folder: Path, corpus: Sequence[str]) -> tuple[int, int]:
    """Train a byte-level BPE; return the size of its vocabulary and the id that ends a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(0)  # noqa: S311 the same tokenizer every time
    corpus = corpus or [message["content"] for _ in range(400) for message in _exercise(rng)]
    tokenizer.train_from_iterator(["user\nassistant\n", *corpus], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 4096,
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return int(tokenizer.get_vocab_size()), int(tokenizer.token_to_id("<|im_end|>"))


def _weights(vocabulary: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return random weights by Qwen2's names. Linear weights have shape (out, in)."""
    width = HIDDEN // HEADS * KEY_VALUE_HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name, size in (("q", HIDDEN), ("k", width), ("v", width)):
            shapes |= {
                f"{at}.self_attn.{name}_proj.weight": (size, HIDDEN),
                f"{at}.self_attn.{name}_proj.bias": (size,),
            }
        shapes |= {
            f"{at}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{at}.mlp.gate_proj.weight": (FEED_FORWARD, HIDDEN),
            f"{at}.mlp.up_proj.weight": (FEED_FORWARD, HIDDEN),
            f"{at}.mlp.down_proj.weight": (HIDDEN, FEED_FORWARD),
        }
    weights = {name: rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32) for name, shape in shapes.items()}
    norms = [f"model.layers.{layer}.{name}" for layer in range(LAYERS) for name in ("input", "post_attention")]
    ones = {f"{name}_layernorm.weight": np.ones(HIDDEN, np.float32) for name in norms}
    return weights | ones | {"model.norm.weight": np.ones(HIDDEN, np.float32)}
