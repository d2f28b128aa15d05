"""How much memory a run will take, from the shape of its model and the longest batch. Pure; loads and reads nothing.

Where the bytes go, of a micro-batch of B rows with T tokens each (N = B * T), b bytes an element of the activations:

- weights as they lie on the disk; trained arrays; what the optimizer remembers of them
- kept for the backward pass, of each trained layer: outputs of norms and residuals (hidden size), queries, keys, values
  and attention's output (heads * head size), what the feed-forward multiplies (its size), attention's weights
  (B * heads * T * T: MLX 0.32 computes attention step by step where gradients are wanted), and, where the model is in
  half precision, a float32 copy of whatever enters an adapter, because adapters are float32
- with gradient checkpointing only each layer's input, and the inside of the layers whose backward pass is under way
- the logits and what their loss needs: LOGITS * N * vocabulary * b
- in the update: the gradients of all that is trained, and new arrays beside the old ones, which lq's guard keeps until
  the norm of the gradients is known to be finite

The peak is the loss, a layer's backward pass, or the update. The counts below are derived from MLX-LM 0.32's
llama, qwen2 and qwen3 and adjusted to measured peaks (`python -m tests.benchmarks --only memory_plan`).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence

from jobs.model.memory_limit import fits

LOGITS = 4.2
"""Copies of the logits at the peak (field-notes.md)."""

HIDDEN_KEPT, QUERIES_KEPT, KEYS_KEPT, FEED_FORWARD_KEPT, SCORES_KEPT = 4.0, 3.0, 3.0, 5.0, 1.0
"""Arrays that a layer keeps for the backward pass, by their width."""

UNDER_WAY = 0.7
"""What the last layer's backward pass takes beside the logits, in parts of what a layer keeps."""

AGAIN, AGAIN_IN_HALF = 3.2, 4.1
"""With gradient checkpointing: what a layer's second forward pass and its backward pass take, in parts of what it
keeps; the second for models in half precision.
"""

UPDATE_COPIES = 3
"""An update's gradients, new weights, and those that are chosen between: of each trained array."""

PROGRAM_BYTES = 140_000_000
"""Python, MLX and MLX-LM themselves, beside what MLX counts (116 to 146 MB were seen on Linux)."""

FORMULA_RANGE, FEW_RANGE, SOME_RANGE, MEASURED_RANGE = (0.85, 1.25), (0.88, 1.18), (0.92, 1.12), (0.97, 1.08)
"""From the lowest to the highest in parts of what is expected: by the formula alone, corrected by one or two runs of
the same model, by more, and measured with these very settings.
"""

MANY = 3
"""So many other runs of a model are more than a few."""

_FLOAT32 = 4
_LINEARS = 7
"""Linear modules of a layer that are adapted by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A model as far as its memory goes."""

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
class Work:
    """What is trained, on how much at once."""

    fine_tune_type: str  # lora, dora or full
    trained_layers: int
    rank: int  # of adapters
    dropout: bool  # before adapters
    trained_bytes: int  # of all trained arrays
    optimizer_bytes: int  # what it remembers of them
    renewed_bytes: int  # of that, what an update writes anew
    rows: int  # of a micro-batch
    tokens: int  # of a row: the longest batch, padded
    checkpointing: bool

    @property
    def batch_tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.rows * self.tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """Where the bytes go at the peak."""

    weights: int
    trained: int  # trained arrays and the optimizer's memory
    activations: int
    logits: int
    gradients: int  # and new arrays of an update, where that is the peak

    @property
    def device(self) -> int:
        """What MLX counts at the peak."""
        return self.weights + self.trained + self.activations + self.logits + self.gradients

    @property
    def resting(self) -> int:
        """What MLX counts between two iterations."""
        return self.weights + self.trained

    @property
    def shown(self) -> int:
        """What an earlier run with these settings would have shown: the larger of MLX's peak and of the process between
        two iterations (jobs/policies/attempt_health.py).
        """
        return max(self.device, PROGRAM_BYTES + self.resting)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will take at most, in bytes."""

    low: int
    expected: int
    high: int
    parts: Parts
    because: str  # where it is known from, for a person


def parts_of(shape: ModelShape, work: Work) -> Parts:
    """Reckon where the bytes go at the peak."""
    activations, logits, gradients = max(_moments(shape, work), key=sum)
    return Parts(
        weights=shape.weights_bytes,
        trained=work.trained_bytes * (work.fine_tune_type != "full") + work.optimizer_bytes,
        activations=int(activations),
        logits=int(logits),
        gradients=int(gradients),
    )


def _moments(shape: ModelShape, work: Work) -> Iterator[tuple[float, float, float]]:
    """Yield the bytes of activations, logits and gradients at each moment that may be the peak."""
    inside = layer_bytes(shape, work)
    logits = LOGITS * work.batch_tokens * shape.vocabulary * shape.itemsize
    if work.checkpointing:
        inputs = shape.layers * work.batch_tokens * shape.hidden * shape.itemsize
        again = AGAIN if shape.itemsize >= _FLOAT32 else AGAIN_IN_HALF
        yield inputs + UNDER_WAY * inside, logits, work.trained_bytes
        yield inputs + again * inside, 0, work.trained_bytes
    else:
        yield (work.trained_layers + UNDER_WAY) * inside, logits, work.trained_bytes
    yield 0, 0, UPDATE_COPIES * work.trained_bytes + work.renewed_bytes


def layer_bytes(shape: ModelShape, work: Work) -> int:
    """Return what a trained layer keeps for its backward pass."""
    widths = (
        HIDDEN_KEPT * shape.hidden
        + QUERIES_KEPT * shape.queries
        + KEYS_KEPT * shape.keys
        + FEED_FORWARD_KEPT * shape.feed_forward
    )
    kept = work.batch_tokens * shape.itemsize * widths
    kept += SCORES_KEPT * work.rows * shape.heads * work.tokens**2 * shape.itemsize
    if work.fine_tune_type != "full":
        kept += work.batch_tokens * _FLOAT32 * _LINEARS * work.rank
        if shape.itemsize < _FLOAT32:
            kept += work.batch_tokens * _FLOAT32 * (2 * shape.hidden + shape.queries + shape.feed_forward)
        if work.dropout:  # what is left of each module's input, and which was kept
            entering = 5 * shape.hidden + shape.queries + shape.feed_forward
            copy = 0 if shape.itemsize >= _FLOAT32 else _FLOAT32
            kept += work.batch_tokens * (shape.itemsize + 1 + copy) * entering
    if work.fine_tune_type == "dora":  # what each linear module gives before its magnitude is applied
        outputs = 2 * shape.hidden + shape.queries + 2 * shape.keys + 2 * shape.feed_forward
        kept += work.batch_tokens * shape.itemsize * outputs
    return int(kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What an earlier run took."""

    job_id: int
    peak_bytes: int  # the most that was seen
    ratio: float  # of it to what the formula says of that run


def estimate(parts: Parts, *, same: Measurement | None = None, others: Sequence[Measurement] = ()) -> Estimate:
    """Say what a run will take: as the formula has it, corrected by what earlier runs took.

    Args:
        parts: by the formula.
        same: what a run with the very same settings took.
        others: what runs of the same model with other settings took.
    """
    if same is not None:
        by = f"in job {same.job_id}" if same.job_id else "by lq check"
        return _around(
            same.peak_bytes,
            MEASURED_RANGE,
            parts,
            f"measured {by}",
        )
    if not others:
        return _around(parts.shown, FORMULA_RANGE, parts, "reckoned from the model's shape")
    ratio = statistics.median(one.ratio for one in others)
    jobs = sorted({one.job_id for one in others})
    named = f"job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} jobs"
    because = f"reckoned, then times {ratio:.2f} as {named} with this model took"
    return _around(int(parts.shown * ratio), SOME_RANGE if len(others) >= MANY else FEW_RANGE, parts, because)


def _around(expected: int, spread: tuple[float, float], parts: Parts, because: str) -> Estimate:
    low, high = spread
    return Estimate(low=int(low * expected), expected=expected, high=int(high * expected), parts=parts, because=because)


def verdict(estimate: Estimate, limit: int) -> str:
    """Return whether a run fits within its limit in bytes: `fits`, `tight` if it may not, or `does not fit`."""
    if not fits(estimate.expected, limit):
        return "does not fit"
    return "fits" if fits(estimate.high, limit) else "tight"
