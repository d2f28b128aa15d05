"""Drives `mlx_lm.tuner.trainer.train`, unmodified, through its own parameters. Only this file imports mlx and mlx_lm.

A run is a function of (spec, course, checkpoint). `train()` asks `iterate_batches` for each batch after it has
evaluated the whole state of the iteration before: between two batches is the place for reports, validation,
checkpoints and stopping (field-notes.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import math
import os
import platform
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast, overload

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import TrainingCallback, get_reporting_callbacks
from mlx_lm.tuner.datasets import CacheDataset, load_dataset
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers
from mlx_lm.utils import load

from jobs.course import Course, Leg
from jobs.errors import ConfigInvalid, DataInvalid, ModelMissing
from jobs.events import Kind
from jobs.outcomes import Quality, Reason
from jobs.spec import JobSpec
from workers import checkpoints, sensors
from workers.batches import BatchOrder, padded
from workers.checkpoints import Checkpoint
from workers.event_log import EventLog
from workers.job_dir import JobDir
from workers.mlx_names import mlx_config
from workers.process import footprint_bytes
from workers.reporter import Reporter
from workers.requests import Requests

NEVER = sys.maxsize
"""An interval MLX-LM never reaches: validating and saving are done here, at absolute iterations."""

SELF_TEST_BATCHES = 2
"""Where a checkpoint has no validation of its own, this many validation batches are its fingerprint."""

_OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}


class Rows:
    """The tokenised rows of one data file."""

    def __init__(self, dataset: Any) -> None:
        """Tokenise everything; the order of a run depends on every length."""
        cached = CacheDataset(dataset)
        rows = [cached[place] for place in range(len(dataset))]
        self.tokens: list[list[int]] = [row[0] for row in rows]
        self.offsets: list[int] = [int(row[1]) for row in rows]
        self.sort_keys = tuple(int(cached.itemlen(place)) for place in range(len(dataset)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tokens)

    def batch(self, rows: Sequence[int], max_seq_length: int) -> tuple[mx.array, mx.array]:
        """Return (tokens, spans) of these rows as MLX-LM's loss takes them."""
        tokens, spans = padded([self.tokens[row] for row in rows], [self.offsets[row] for row in rows], max_seq_length)
        return mx.array(tokens), mx.array(spans)


class Measured(types.SimpleNamespace):
    """A loss over rows: `loss` in nats per token, `standard_error` by row, `row_losses`, `examples`, `seconds`."""

    loss: float
    standard_error: float | None
    row_losses: list[float]
    examples: int
    seconds: float


class TrainingRun(TrainingCallback):
    """One attempt at a run, from loading the model to the last checkpoint."""

    def __init__(self, spec: JobSpec, course: Course, job_dir: JobDir, events: EventLog, requests: Requests) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            spec: what was asked for.
            course: the legs; this version runs one.
            job_dir: where checkpoints lie.
            events: the channel up.
            requests: what signals have asked.

        Raises:
            ConfigInvalid: the course has more legs than this version runs.
        """
        if len(course.legs) != 1:
            raise ConfigInvalid(f"course.json has {len(course.legs)} legs; this lq runs courses of one: update lq")
        self.spec, self.job_dir, self.events, self.requests = spec, job_dir, events, requests
        self.leg: Leg = course.legs[0]
        self.reporter = Reporter(events, steps_per_report=spec.steps_per_report, memory=_memory)
        self._validation: dict[str, Any] | None = None  # of the present iteration, where it was measured
        self._validation_saved = True  # a checkpoint holds it, or there is none to hold
        self._saved_at = 0  # iteration of the last checkpoint
        self._saved_time = time.monotonic()
        self._finished = False

    # --- the story ---

    def run(self, resume: Checkpoint | None, quality: Quality) -> Reason:
        """Train to the end, or until a stop is asked.

        Args:
            resume: the verified checkpoint to go on from; None for a fresh start.
            quality: how faithful that resume can be.

        Returns:
            `completed`, or `stopped_by_user` where it stopped with a checkpoint.
        """
        with self.requests.nothing_to_lose():
            self._load_model()
            self._load_rows()
            self._prepare_training(fresh=resume is None)
            if resume is not None:
                self._restore(resume, quality)
        with self._forwarded_callbacks():
            self._train()
        if not self._finished:
            return Reason.STOPPED_BY_USER
        if self.spec.test:
            with self.requests.nothing_to_lose():
                self._test()
        return Reason.COMPLETED

    def _load_model(self) -> None:
        self.events.append(Kind.PHASE, phase="load")
        remote = self.spec.trust_remote_code
        if remote:
            text = "trust_remote_code is on: code that comes with the model runs"
            self.events.append(Kind.WARNING, code="trust_remote_code", text=text)
        try:
            loaded = load(self.spec.model, tokenizer_config={"trust_remote_code": remote}, trust_remote_code=remote)
        except (FileNotFoundError, ValueError) as error:
            raise ModelMissing(f"the model {self.spec.model} cannot be loaded: {_one_line(error)}") from error
        self.model: Any = loaded[0]
        self.tokenizer: Any = loaded[1]

    def _load_rows(self) -> None:
        self.events.append(Kind.PHASE, phase="tokenize")
        try:
            sets = load_dataset(types.SimpleNamespace(**mlx_config(self.spec, self.leg)), self.tokenizer)
            self.train_rows, self.valid_rows, self.test_rows = (Rows(dataset) for dataset in sets)
        except (ValueError, KeyError, TypeError) as error:
            raise DataInvalid(f"the data {self.spec.data} cannot be used: {_one_line(error)}") from error
        if len(self.train_rows) < self.leg.batch_size:
            raise DataInvalid(
                f"the training set has {len(self.train_rows)} rows, but batch_size is {self.leg.batch_size}: "
                "add rows or lower batch_size"
            )
        self._warn_of_truncation()
        self.order = BatchOrder(
            lengths=tuple(len(row) for row in self.train_rows.tokens),
            sort_keys=self.train_rows.sort_keys,
            batch_size=self.leg.batch_size,
            seed=self.spec.seed,
            salt=self.leg.salt,
            mode=self.spec.lq.batching,
        )

    def _warn_of_truncation(self) -> None:
        limit = self.leg.max_seq_length
        cut = sum(len(row) > limit for row in self.train_rows.tokens)
        if cut:
            text = f"{cut} of {len(self.train_rows)} training rows are longer than {limit} tokens and are cut"
            self.events.append(Kind.WARNING, code="truncated", text=text, data={"rows": cut, "max_seq_length": limit})

    def _prepare_training(self, *, fresh: bool) -> None:
        """Do what mlx_lm.lora.train_model does before it calls train(), in the same order."""
        spec = self.spec
        mx.random.seed(spec.seed)
        self.model.freeze()
        if spec.num_layers > len(self.model.layers):
            raise ConfigInvalid(
                f"num_layers is {spec.num_layers}, but {spec.model} has {len(self.model.layers)} layers; -1 means all"
            )
        if spec.fine_tune_type == "full":
            for layer in self.model.layers[_first_trained(spec.num_layers, len(self.model.layers)) :]:
                layer.unfreeze()
        else:
            self._add_adapters()
        if fresh and spec.resume_adapter_file is not None:
            self._start_from(Path(spec.resume_adapter_file))
        self.optimizer = self._build_optimizer()
        self.optimizer.init(self.model.trainable_parameters())
        mx.eval(self.model.parameters(), self.optimizer.state)

    def _add_adapters(self) -> None:
        parameters = self.spec.lora_parameters.model_dump()
        keys = parameters.pop("keys")
        if keys is not None:
            parameters["keys"] = list(keys)
        try:
            linear_to_lora_layers(
                self.model, self.spec.num_layers, parameters, use_dora=self.spec.fine_tune_type == "dora"
            )
        except ValueError as error:
            raise ConfigInvalid(f"this model cannot take these adapters: {_one_line(error)}") from error
        if not _named(self.model.trainable_parameters()):
            raise ConfigInvalid("lora_parameters.keys names no linear layer of this model; nothing would be trained")

    def _start_from(self, path: Path) -> None:
        """Load adapter weights; MLX-LM's own strict=False would load nothing in silence where names differ."""
        try:
            weights = mx.load(str(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigInvalid(f"resume_adapter_file {path} cannot be read: {_one_line(error)}") from error
        shapes = _shapes(_named(self.model.trainable_parameters()))
        if not isinstance(weights, dict) or not weights or not _shapes(weights).items() <= shapes.items():
            raise ConfigInvalid(f"resume_adapter_file {path} does not fit this model and these lora_parameters")
        self.model.load_weights(list(weights.items()), strict=False)

    def _build_optimizer(self) -> Any:
        spec = self.spec
        schedule = spec.lr_schedule
        try:
            rate = build_schedule(schedule.model_dump()) if schedule is not None else spec.learning_rate
            arguments = spec.optimizer_config.get(spec.optimizer, {})
            return _OPTIMIZERS[spec.optimizer](learning_rate=rate, **arguments)
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigInvalid(f"optimizer or lr_schedule: {_one_line(error)}") from error

    # --- resuming ---

    def _restore(self, checkpoint: Checkpoint, quality: Quality) -> None:
        """Put weights, moments, schedule, random key and position back, in place, and prove it."""
        state = checkpoint.state()
        _fill(_named(self.model.trainable_parameters()), checkpoint.adapters, self._set_weights)
        if quality is not Quality.WEIGHTS:
            _fill(_named(self.optimizer.state), checkpoint.optimizer, self._set_moments)
        high, low = (int(half) for half in state["random_key"])
        mx.random.seed((high << 32) | low)
        self.reporter.restore(checkpoint.iteration, state["progress"])
        self._saved_at = checkpoint.iteration
        self._validation = state["validation"]
        self._self_test(state["self_test"])

    def _set_weights(self, weights: dict[str, mx.array]) -> None:
        self.model.load_weights(list(weights.items()), strict=False)
        mx.eval(self.model.parameters())

    def _set_moments(self, moments: dict[str, mx.array]) -> None:
        _replace_leaves(self.optimizer.state, moments)
        mx.eval(self.optimizer.state)

    def _self_test(self, recorded: dict[str, Any] | None) -> None:
        """Measure again what the checkpoint recorded when it was written."""
        if recorded is None or not len(self.valid_rows):
            return
        measured = self._measure(self.valid_rows, recorded["batches"])
        self.events.append(
            Kind.SELF_TEST,
            iteration=self.reporter.iteration,
            measured=measured.loss,
            recorded=recorded["loss"],
            equal=measured.loss == recorded["loss"],
            examples=measured.examples,
        )

    # --- training ---

    def _train(self) -> None:
        spec, leg = self.spec, self.leg
        scratch = self.job_dir.path / ".written-by-train.safetensors"  # train() insists on saving; lq does not use it
        arguments = TrainingArgs(
            batch_size=leg.batch_size,
            iters=spec.iters - self.reporter.iteration + 1,  # one more, so that _batches is asked after the last one
            val_batches=0,
            steps_per_report=1,
            steps_per_eval=NEVER,
            steps_per_save=NEVER,
            max_seq_length=leg.max_seq_length,
            adapter_file=str(scratch),
            grad_checkpoint=leg.grad_checkpoint,
            grad_accumulation_steps=leg.grad_accumulation_steps,
            clear_cache_threshold=spec.clear_cache_threshold,
        )
        self.events.append(Kind.PHASE, phase="train")
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            train(
                model=self.model,
                optimizer=self.optimizer,
                train_dataset=self.train_rows,
                val_dataset=None,
                args=arguments,
                iterate_batches=self._batches,
                training_callback=self,
            )
        scratch.unlink(missing_ok=True)

    def _batches(self, **_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        """Yield the batches from the present position on; between two, do what is due. Returning ends train()."""
        start = self.reporter.iteration
        for position in range(start, self.spec.iters):
            if self._between(position):
                return
            yield self.train_rows.batch(self.order.rows(position), self.leg.max_seq_length)
        self._between(self.spec.iters)

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Take MLX-LM's report; with steps_per_report=1 there is one for each iteration."""
        total = int(train_info["trained_tokens"])
        mean = self.reporter.count(train_info, total - self._attempt_tokens)
        self._attempt_tokens = total
        self._validation, self._validation_saved = None, True
        iteration = self.reporter.iteration
        due = iteration % self.spec.steps_per_report == 0 or iteration == self.spec.iters
        if due and self._forward is not None:
            mine = {"iteration": iteration, "train_loss": mean, "trained_tokens": self.reporter.tokens}
            self._forward.on_train_loss_report(train_info | mine)

    _attempt_tokens = 0
    _forward: TrainingCallback | None = None

    @contextlib.contextmanager
    def _forwarded_callbacks(self) -> Iterator[None]:
        """Report to wandb or swanlab too where the file asks for it, exactly as mlx_lm.lora does."""
        spec = self.spec
        try:
            self._forward = get_reporting_callbacks(
                spec.report_to,
                project_name=spec.project_name,
                log_dir=str(self.job_dir.path),
                config=cast("Any", mlx_config(spec, self.leg)),  # annotated as a string there, passed as a dictionary
            )
        except (ImportError, ValueError) as error:
            raise ConfigInvalid(f"report_to: {_one_line(error)}") from error
        yield

    def _between(self, iteration: int) -> bool:
        """Do what is due between two iterations; True means stop here.

        Args:
            iteration: completed iterations.
        """
        at_end = iteration == self.spec.iters
        aligned = iteration % self.leg.grad_accumulation_steps == 0 or at_end
        measure = self._validation_due(iteration, at_end, aligned)
        if measure and not self.requests.stop:
            self._validate()
        if aligned and iteration > 0 and self._checkpoint_due(iteration, at_end):
            self._save(iteration)
        if at_end:
            self.reporter.flush()
            self._finished = self._validation is not None or not measure  # a stop puts the last validation off
        return self.requests.stop and aligned and not at_end

    def _validation_due(self, iteration: int, at_end: bool, aligned: bool) -> bool:
        if self._validation is not None or not len(self.valid_rows) or self.spec.val_batches == 0:
            return False
        return iteration % self.spec.steps_per_eval == 0 or at_end or (self.requests.snapshot and aligned)

    def _checkpoint_due(self, iteration: int, at_end: bool) -> bool:
        if not self._validation_saved:
            return True  # the best adapter is chosen among checkpoints, and no stop may change which it is
        if iteration == self._saved_at:
            return False
        passed = iteration // self.spec.save_every > self._saved_at // self.spec.save_every
        late = time.monotonic() - self._saved_time >= self.spec.lq.checkpoint.every
        return at_end or passed or late or self.requests.stop or self.requests.snapshot

    # --- measuring ---

    def _validate(self) -> None:
        """Validate, unless a stop is asked meanwhile: then the attempt that goes on from here will."""
        self.events.append(Kind.PHASE, phase="validate")
        measured = self._measure(self.valid_rows, self.spec.val_batches, give_up=lambda: self.requests.stop)
        if measured is None:
            return
        self._validation = self._tell(Kind.VALIDATION, measured, iteration=self.reporter.iteration)
        self._validation_saved = False
        if self._forward is not None:
            info = {"iteration": self.reporter.iteration, "val_loss": measured.loss, "val_time": measured.seconds}
            self._forward.on_val_loss_report(info)
        self.events.append(Kind.PHASE, phase="train")

    def _tell(self, kind: Kind, measured: Measured, **more: Any) -> dict[str, Any]:
        summary = {
            "loss": measured.loss,
            "standard_error": measured.standard_error,
            "examples": measured.examples,
        } | more
        self.events.append(kind, **summary, seconds=round(measured.seconds, 3), row_losses=measured.row_losses)
        return summary

    @overload
    def _measure(self, rows: Rows, batches: int) -> Measured: ...

    @overload
    def _measure(self, rows: Rows, batches: int, give_up: Callable[[], bool]) -> Measured | None: ...

    def _measure(self, rows: Rows, batches: int, give_up: Callable[[], bool] = lambda: False) -> Measured | None:
        """Measure the loss over rows in file order, without dropout and without touching the random key.

        Args:
            rows: the rows.
            batches: at most this many batches; -1 for all.
            give_up: asked before each batch; where it says yes, nothing is measured.
        """
        began = time.monotonic()
        size = self.leg.batch_size
        count = len(rows) if batches < 0 else min(len(rows), batches * size)
        sums: list[float] = []
        tokens: list[int] = []
        self.model.eval()
        for start in range(0, count, size):
            if give_up():
                self.model.train()
                return None
            batch, spans = rows.batch(range(start, min(start + size, count)), self.leg.max_seq_length)
            row_sums, row_tokens = _row_losses(self.model, batch, spans)
            mx.eval(row_sums, row_tokens)
            sums += cast("list[float]", row_sums.tolist())
            tokens += cast("list[int]", row_tokens.tolist())
            if mx.get_cache_memory() > self.spec.clear_cache_threshold:
                mx.clear_cache()
        self.model.train()
        return Measured(seconds=time.monotonic() - began, **_summary(sums, tokens))

    def _test(self) -> None:
        """Measure the test set on the last weights, and on the best ones where they are others."""
        self.events.append(Kind.PHASE, phase="test")
        self._test_at(self.spec.iters)
        best = checkpoints.best_valid(self.job_dir.checkpoints)
        if best is not None and best.iteration != self.spec.iters:
            _fill(_named(self.model.trainable_parameters()), best.adapters, self._set_weights)
            self._test_at(best.iteration)

    def _test_at(self, iteration: int) -> None:
        measured = self._measure(self.test_rows, self.spec.test_batches)
        perplexity = math.exp(measured.loss) if measured.loss < 700 else math.inf
        self._tell(Kind.TEST, measured, iteration=iteration, perplexity=perplexity)

    # --- checkpoints ---

    def _save(self, iteration: int) -> None:
        self.events.append(Kind.PHASE, phase="save")
        if iteration % self.spec.steps_per_report == 0:
            self.reporter.flush()
        began = time.monotonic()
        checkpoint, size = checkpoints.write(self.job_dir.checkpoints, iteration, self._fill_checkpoint)
        self._saved_at, self._saved_time, self._validation_saved = iteration, time.monotonic(), True
        self.requests.snapshot = False
        self.events.append(
            Kind.CHECKPOINT,
            iteration=iteration,
            path=str(checkpoint.path.relative_to(self.job_dir.path)),
            bytes=size,
            seconds=round(self._saved_time - began, 3),
        )
        if not (self.requests.stop or iteration == self.spec.iters):
            self.events.append(Kind.PHASE, phase="train")

    def _fill_checkpoint(self, folder: Path) -> dict[str, Any]:
        mx.save_safetensors(str(folder / checkpoints.ADAPTERS), _named(self.model.trainable_parameters()))
        mx.save_safetensors(str(folder / checkpoints.OPTIMIZER), _named(self.optimizer.state))
        return {
            "examples_seen": self.reporter.iteration * self.leg.batch_size,
            "random_key": cast("Any", mx.random.state)[0].tolist(),
            "progress": self.reporter.pending(),
            "validation": self._validation,
            "self_test": self._fingerprint(),
            "versions": versions(),
            "machine": machine(),
            "data": data_hashes(self.spec),
        }

    def _fingerprint(self) -> dict[str, Any] | None:
        """Return what a resume measures again: this iteration's validation, else the first few batches of it."""
        if not len(self.valid_rows):
            return None
        if self._validation is not None:
            return {"loss": self._validation["loss"], "batches": self.spec.val_batches}
        return {"loss": self._measure(self.valid_rows, SELF_TEST_BATCHES).loss, "batches": SELF_TEST_BATCHES}


def versions() -> dict[str, str]:
    """Return the versions that an exact resume needs to be the same."""
    names = ("mlx", "mlx-lm", "numpy", "transformers", "tokenizers")
    return {name: importlib.metadata.version(name) for name in names} | {"python": platform.python_version()}


def machine() -> str:
    """Return the device and processor that an exact resume needs to be the same."""
    return f"{mx.default_device()} on {sensors.machine()}"


def data_hashes(spec: JobSpec) -> dict[str, str]:
    """Return the sha256 of train.jsonl and valid.jsonl; empty where the data comes from the hub."""
    folder = Path(spec.data)
    files = [folder / f"{name}.jsonl" for name in ("train", "valid")] if folder.is_dir() else []
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def _named(tree: Any) -> dict[str, mx.array]:
    """Return the arrays of a tree by their dotted names, as safetensors files hold them."""
    return dict(cast("list[tuple[str, mx.array]]", tree_flatten(tree)))


def _memory() -> dict[str, int]:
    return {
        "active": mx.get_active_memory(),
        "cache": mx.get_cache_memory(),
        "peak": mx.get_peak_memory(),
        "footprint": footprint_bytes(),
    }


def _first_trained(num_layers: int, layers: int) -> int:
    """Return the first trained layer, as MLX-LM's slice [-max(num_layers, 0):] has it (-1 and 0 mean all)."""
    return layers - num_layers if num_layers > 0 else 0


def _row_losses(model: Any, batch: mx.array, spans: mx.array) -> tuple[mx.array, mx.array]:
    """Return summed cross entropy (rows,) in nats and supervised tokens (rows,): MLX-LM's default_loss, by row."""
    logits = model(batch[:, :-1])
    targets = batch[:, 1:]
    steps = mx.arange(1, targets.shape[1] + 1)
    mask = mx.logical_and(steps >= spans[:, 0:1], steps <= spans[:, 1:])
    cross_entropy = nn.losses.cross_entropy(logits, targets) * mask
    return cross_entropy.astype(mx.float32).sum(axis=1), mask.sum(axis=1)


def _summary(sums: Sequence[float], tokens: Sequence[int]) -> dict[str, Any]:
    """Return loss, standard error and row losses.

    The loss is the ratio of two sums, so its standard error is the ratio estimator's (Cochran, Sampling Techniques,
    3rd ed., eq. 6.13 without the finite-population correction): sqrt(n/(n-1) * sum((s_i - loss*t_i)^2)) / sum(t_i).
    """
    total, count = sum(tokens), len(sums)
    loss = sum(sums) / total if total else math.nan
    spread = sum((one - loss * length) ** 2 for one, length in zip(sums, tokens, strict=True))
    error = math.sqrt(count / (count - 1) * spread) / total if total and count > 1 else None
    rows = [one / length if length else math.nan for one, length in zip(sums, tokens, strict=True)]
    return {"loss": loss, "standard_error": error, "examples": count, "row_losses": rows}


def _shapes(arrays: dict[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in arrays.items()}


def _fill(expected: dict[str, mx.array], path: Path, put: Any) -> None:
    """Load arrays and put them where they belong; their names and shapes must be exactly the expected ones."""
    loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    if _shapes(expected) != _shapes(loaded):
        raise ConfigInvalid(f"{path} does not fit this model and this optimizer; start over with: lq submit")
    put(loaded)


def _replace_leaves(tree: Any, leaves: dict[str, mx.array], prefix: str = "") -> None:
    """Replace the arrays of an optimizer's state in place: train() captures this very dictionary."""
    places = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(places):
        name = f"{prefix}{key}"
        if isinstance(value, dict | list):
            _replace_leaves(value, leaves, f"{name}.")
        elif name in leaves:
            tree[key] = leaves[name]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
