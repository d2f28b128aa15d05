"""The peak memory of a run, from the shape of its model and its longest batch. Pure; loads and reads nothing.

The bytes of a micro-batch of B rows with T tokens each (N = B * T), with b bytes per element of the activations:

- the weights, as large as on the disk; the trained arrays; the optimizer's state of these
- kept for the backward pass, per trained layer: outputs of norms and residuals (hidden size), queries, keys, values and
  attention's output (heads * head size), what the feed-forward multiplies (its size), attention's weights
  (B * heads * T * T: MLX 0.32 computes attention step by step if gradients are wanted), and, if the model is in half
  precision, a float32 copy of the input of each adapter, because adapters are float32
- with gradient checkpointing only each layer's input, and the inside of the layers whose backward pass runs
- the logits and what their loss needs: LOGITS * N * vocabulary * b; of preferences, b is that of float32
- in the update: the gradients of all trained arrays, and new arrays in addition to the old ones, which the non-finite
  guard keeps until the norm of the gradients is known to be finite

The peak is the loss, a layer's backward pass, or the update. The counts are derived from MLX-LM 0.32's llama, qwen2 and
qwen3 and adjusted to measured peaks (`python -m tests.benchmarks --only memory_plan`).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence

from jobs.estimates.estimate import MemoryEstimate, MemoryParts, Source
from jobs.estimates.run_time import named_jobs
from jobs.model.memory_limit import fits

LOGITS = 4.2
"""Copies of the logits at the peak, as measured with Qwen3-0.6B."""

HIDDEN_KEPT, QUERIES_KEPT, KEYS_KEPT, FEED_FORWARD_KEPT, SCORES_KEPT = 4.0, 3.0, 3.0, 5.0, 1.0
"""Arrays that a layer keeps for the backward pass, by their width."""

UNDER_WAY = 0.7
"""The last layer's backward pass while the logits exist, as a share of what a layer keeps."""

AGAIN, AGAIN_IN_HALF = 3.2, 4.1
"""With gradient checkpointing: a layer's second forward pass and its backward pass, as a share of what a layer keeps;
the second value is for models in half precision.
"""

UPDATE_COPIES = 3
"""Copies of each trained array in an update: gradients, new weights, and those chosen between the two."""

FORMULA_RANGE, FEW_RANGE, SOME_RANGE, MEASURED_RANGE = (0.85, 1.25), (0.88, 1.18), (0.92, 1.12), (0.97, 1.08)
"""The lowest and the highest value as shares of the expected one: by the formula alone, corrected by fewer than `MANY`
runs of the same model, by more, and measured with the same settings.
"""

MANY = 3

_FLOAT32 = 4
_LINEARS = 7
"""Linear modules of a layer that are adapted by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a model that its memory depends on."""

    hidden: int  # width of the residual stream
    layers: int
    feed_forward: int  # width inside a layer's feed-forward, of all experts that a token goes to
    queries: int  # heads * head size
    keys: int  # key-value heads * head size
    heads: int
    vocabulary: int
    itemsize: int  # bytes of an activation's element
    weights_bytes: int  # on the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingShape:
    """The sizes of a training that its memory depends on."""

    fine_tune_type: str  # lora, dora or full
    trained_layers: int
    rank: int  # of adapters
    dropout: bool  # before adapters
    trained_bytes: int  # of all trained arrays
    optimizer_bytes: int  # the optimizer's state
    renewed_bytes: int  # the part of that state that an update replaces
    rows: int  # of a micro-batch
    tokens: int  # of a row of the longest batch, padded
    checkpointing: bool
    float_logits: bool = False  # the loss converts the logits to float32, as that of preferences does

    @property
    def batch_tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.rows * self.tokens


def parts_of(model: ModelShape, training: TrainingShape) -> MemoryParts:
    """Return the bytes at the peak by their use."""
    activations, logits, gradients = max(_moments(model, training), key=sum)
    return MemoryParts(
        weights=model.weights_bytes,
        trained=training.trained_bytes * (training.fine_tune_type != "full") + training.optimizer_bytes,
        activations=int(activations),
        logits=int(logits),
        gradients=int(gradients),
    )


def _moments(model: ModelShape, training: TrainingShape) -> Iterator[tuple[float, float, float]]:
    """Yield the bytes of activations, logits and gradients at each moment that may be the peak."""
    inside = layer_bytes(model, training)
    itemsize = max(_FLOAT32, model.itemsize) if training.float_logits else model.itemsize
    logits = LOGITS * training.batch_tokens * model.vocabulary * itemsize
    if training.checkpointing:
        inputs = model.layers * training.batch_tokens * model.hidden * model.itemsize
        again = AGAIN if model.itemsize >= _FLOAT32 else AGAIN_IN_HALF
        yield inputs + UNDER_WAY * inside, logits, training.trained_bytes
        yield inputs + again * inside, 0, training.trained_bytes
    else:
        yield (training.trained_layers + UNDER_WAY) * inside, logits, training.trained_bytes
    yield 0, 0, UPDATE_COPIES * training.trained_bytes + training.renewed_bytes


def layer_bytes(model: ModelShape, training: TrainingShape) -> int:
    """Return the bytes that a trained layer keeps for its backward pass."""
    widths = (
        HIDDEN_KEPT * model.hidden
        + QUERIES_KEPT * model.queries
        + KEYS_KEPT * model.keys
        + FEED_FORWARD_KEPT * model.feed_forward
    )
    kept = training.batch_tokens * model.itemsize * widths
    kept += SCORES_KEPT * training.rows * model.heads * training.tokens**2 * model.itemsize
    if training.fine_tune_type != "full":
        kept += training.batch_tokens * _FLOAT32 * _LINEARS * training.rank
        if model.itemsize < _FLOAT32:
            kept += training.batch_tokens * _FLOAT32 * (2 * model.hidden + model.queries + model.feed_forward)
        if training.dropout:  # the input of each module after dropout, and its mask
            entering = 5 * model.hidden + model.queries + model.feed_forward
            copy = 0 if model.itemsize >= _FLOAT32 else _FLOAT32
            kept += training.batch_tokens * (model.itemsize + 1 + copy) * entering
    if training.fine_tune_type == "dora":  # the output of each linear module before its magnitude is applied
        outputs = 2 * model.hidden + model.queries + 2 * model.keys + 2 * model.feed_forward
        kept += training.batch_tokens * model.itemsize * outputs
    return int(kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservedPeak:
    """The peak memory of an earlier run."""

    job_id: int  # 0 for a dry run of a file
    peak_bytes: int
    ratio: float  # of the peak to the formula's value for that run


def estimate_memory(
    parts: MemoryParts, *, same: ObservedPeak | None = None, others: Sequence[ObservedPeak] = ()
) -> MemoryEstimate:
    """Estimate the peak by the formula, scaled by runs of the same model, or by a run with the `same` settings."""
    if same is not None:
        by, source = (f"in job {same.job_id}", Source.SAME_SETTINGS) if same.job_id else ("by lq check", Source.DRY_RUN)
        return _around(same.peak_bytes, MEASURED_RANGE, parts, source, f"measured {by}")
    if not others:
        return _around(parts.shown, FORMULA_RANGE, parts, Source.FORMULA, "estimated from the model's shape")
    ratio = statistics.median(run.ratio for run in others)
    because = (
        f"estimated from the model's shape, times {ratio:.2f} as measured in {named_jobs(run.job_id for run in others)}"
    )
    spread = SOME_RANGE if len(others) >= MANY else FEW_RANGE
    return _around(int(parts.shown * ratio), spread, parts, Source.OTHER_SETTINGS, because)


def _around(
    expected: int, spread: tuple[float, float], parts: MemoryParts, source: Source, because: str
) -> MemoryEstimate:
    low, high = int(spread[0] * expected), int(spread[1] * expected)
    return MemoryEstimate(low=low, expected=expected, high=high, parts=parts, source=source, because=because)


def verdict(estimate: MemoryEstimate, limit: int) -> str:
    """Return whether a run fits within its limit in bytes: `fits`, `tight` if it might not, or `does not fit`."""
    if not fits(estimate.expected, limit):
        return "does not fit"
    return "fits" if fits(estimate.high, limit) else "tight"
