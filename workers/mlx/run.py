"""Drives `mlx_lm.tuner.trainer.train`, unmodified, through its own parameters. Only this file imports mlx and mlx_lm.

A run is a function of (spec, run plan, checkpoint). `train()` asks `iterate_batches` for each batch after it has
evaluated the whole state of the iteration before: between two batches is the place for reports, validation,
checkpoints and stopping (field-notes.md).
"""

from __future__ import annotations

import contextlib
import errno
import functools
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
import mlx.nn.utils as mlx_utils
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.generate import generate
from mlx_lm.tuner.callbacks import TrainingCallback, get_reporting_callbacks
from mlx_lm.tuner.datasets import load_dataset
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, grad_checkpoint, train
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers
from mlx_lm.utils import get_total_parameters, load

from jobs.model.errors import ConfigInvalid, DataInvalid, ModelMissing
from jobs.model.events import Kind
from jobs.model.job_dir import JobDir
from jobs.model.memory_limit import limit_bytes
from jobs.model.outcomes import Quality, Reason
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from workers.checkpoints import storage
from workers.checkpoints.mlx_config import mlx_config
from workers.checkpoints.publishing import sha256_of
from workers.checkpoints.storage import Checkpoint
from workers.data.batches import BatchOrder, Rows, learned_tokens, orders
from workers.data.dataset_facts import dataset_facts, targets
from workers.data.measures import Measured
from workers.data.tokenizing import Encoder, all_rows, tokenised
from workers.events.log import EventLog
from workers.events.reporter import Reporter, Trained
from workers.process.stop_requests import Requests
from workers.system import sensors
from workers.system.processes import address_space_share, battery, footprint_bytes, swap_bytes

NEVER = sys.maxsize
"""An interval MLX-LM never reaches: reporting, validating and saving are done here, at absolute iterations."""

SELF_TEST_S = 10.0
"""A resume measures again what took at most so long of the checkpoint's own validation."""

ANSWER_TOKENS = 128
"""An answer to one of `lq.prompts` is cut after so many tokens."""

SELF_TEST_BATCHES = 2
"""Where a checkpoint has no validation of its own, this many validation batches are its fingerprint."""

MOST_NAMED = 20
"""Non-finite iterations of one attempt whose rows are looked at; past that they are only counted."""

AUTOPSY_ROWS, AUTOPSY_TOLD = 256, 20
"""Rows around a spike that are measured again, and how many of them are told."""

GUARD = "lq_guard"
"""The loss guard's own entry in the optimizer's state: train() carries it through its compiled step. Not saved."""

SMALL = 1 << 16
"""Elements of an array; those of up to so many are summed together: a sum for each would cost a start for each."""

HELD_BYTES = 64 << 20
"""Trained weights and moments of up to so much are held beside their next ones, to be put back where an update is lost;
of more, the compiled step itself chooses between the two, which costs no memory, and a start for each array."""

OTHER_BATCHES_TOLERANCE = 1e-3
"""How far a loss may lie off, in parts of it, when the same rows are measured in batches of another size."""

_OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}


class TrainingRun:
    """One attempt at a run, from loading the model to the last checkpoint."""

    def __init__(self, spec: JobSpec, run_plan: RunPlan, job_dir: JobDir, events: EventLog, requests: Requests) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            spec: what was asked for.
            run_plan: the stages.
            job_dir: where checkpoints lie.
            events: the channel up.
            requests: what signals have asked.
        """
        self.spec, self.run_plan, self.job_dir, self.events, self.requests = spec, run_plan, job_dir, events, requests
        self.stage: Stage = run_plan.stages[0]
        self.end = spec.iters if run_plan.ends_at is None else run_plan.ends_at // spec.batch_size  # its last iteration
        self.reporter = Reporter(events, steps_per_report=spec.steps_per_report, memory=self._memory)
        self._validation: dict[str, Any] | None = None  # of the present iteration, where it was measured
        self._measured: Measured | None = None  # the same, where this very process measured it
        self._validation_saved = True  # a checkpoint holds it, or there is none to hold
        self._saved_at = 0  # iteration of the last checkpoint
        self._saved_time = time.monotonic()
        self._finished = False
        self._segment_ends: int | None = None  # iteration at which this process makes room for a fresh one
        self._pressure = sensors.PressureGauge()
        self._limit = limit_bytes(spec.lq.memory.limit, recommended_memory())
        self._checkpointing = False  # gradient checkpointing is on; MLX-LM turns it on for good
        self._lost_updates = 0  # updates that were not applied, of this process
        self._not_finite: float | None = None  # loss of the last iteration, where it was not finite or was lost
        self._named = 0  # non-finite iterations whose rows were looked at
        self._plain_call: Any = None  # what a layer does without it

    # --- the story ---

    def run(self, resume: Checkpoint | None, quality: Quality) -> Reason:
        """Train to the end, or until a stop is asked.

        Args:
            resume: the verified checkpoint to go on from; None for a fresh start.
            quality: how faithful that resume can be.

        Returns:
            `completed`, or `early_stopped` where the run plan ends before its time; `stopped_by_user` where it stopped
            with a checkpoint, on request or at a segment's end.
        """
        self.stage = self.run_plan.stages[self._index_at(resume.iteration if resume is not None else 0)]
        with self.requests.nothing_to_lose():
            self._load_model()
            self._load_rows()
            self._prepare_training(fresh=resume is None)
            if resume is not None:
                self._restore(resume, quality)
            self._begin_stage()
            if resume is None:
                self._look_before()
            self._autopsy()
            if self.spec.lq.memory.probe and self.reporter.iteration < self.end:
                self._probe()
        with self._forwarded_callbacks():
            self._train_stages()
        if not self._finished:
            return Reason.STOPPED_BY_USER
        if self.spec.test:
            with self.requests.nothing_to_lose():
                self._test()
        with self.requests.nothing_to_lose():
            self._look_after()
        return Reason.COMPLETED if self.run_plan.ends_at is None else Reason.EARLY_STOPPED

    def _load_model(self) -> None:
        self.events.append(Kind.PHASE, phase="load")
        remote = self.spec.trust_remote_code
        if remote:
            text = "trust_remote_code is on: code that comes with the model runs"
            self.events.append(Kind.WARNING, code="trust_remote_code", text=text)
        try:
            loaded = load(self.spec.model, tokenizer_config={"trust_remote_code": remote}, trust_remote_code=remote)
        except (FileNotFoundError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and type(error) is not FileNotFoundError:
                raise  # the hub's own, such as no network: a new attempt may find it
            raise ModelMissing(f"the model {self.spec.model} cannot be loaded: {_one_line(error)}") from error
        self.model: Any = loaded[0]
        self.tokenizer: Any = loaded[1]

    def _load_rows(self) -> None:
        self.events.append(Kind.PHASE, phase="tokenize")
        self._data = data_hashes(self.spec)  # of what is trained, whatever becomes of the files
        try:
            settings = types.SimpleNamespace(**mlx_config(self.spec, self.stage))
            self.train_rows, self.valid_rows, self.test_rows = all_rows(
                self.spec, self.tokenizer, self.job_dir, lambda encoder: load_dataset(settings, cast("Any", encoder))
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataInvalid(f"the data {self.spec.data} cannot be used: {_one_line(error)}") from error
        if len(self.train_rows) < self.spec.batch_size:
            raise DataInvalid(
                f"the training set has {len(self.train_rows)} rows, but batch_size is {self.spec.batch_size}: "
                "add rows or lower batch_size"
            )
        self._warn_of_truncation()
        self._draw_orders()

    def _draw_orders(self) -> None:
        """Take the order of each stage; their batches are the job file's, however a stage cuts them."""
        first = BatchOrder(
            lengths=tuple(len(row) for row in self.train_rows.tokens),
            sort_keys=self.train_rows.sort_keys,
            batch_size=self.spec.batch_size,
            seed=self.spec.seed,
            mode=self.spec.lq.batching,
        )
        self._orders = orders(self.run_plan, first, self._usable)
        self.order = self._orders[self._index_at(0)]

    def _usable(self, stage: Stage) -> tuple[int, ...] | None:
        """Return the rows that may be trained on a stage; None for all."""
        supervised = self.train_rows.supervised(stage.max_seq_length)
        quarantined = set(stage.quarantined)
        rows = tuple(row for row in supervised if row not in quarantined)
        if len(rows) < self.spec.batch_size:
            raise DataInvalid(
                f"only {len(rows)} training rows have a token to learn, but batch_size is {self.spec.batch_size}: "
                "add rows, lower batch_size, or raise max_seq_length"
            )
        return None if len(rows) == len(self.train_rows) else rows

    def _line(self, row: int) -> str:
        """Return where a training row stands, as file and line."""
        return f"train.jsonl:{row + 1}" if Path(self.spec.data).is_dir() else f"training row {row + 1}"

    def _warn_of_truncation(self) -> None:
        limit = self.stage.max_seq_length
        cut = sum(len(row) > limit for row in self.train_rows.tokens)
        if cut:
            text = f"{cut} of {len(self.train_rows)} training rows are longer than {limit} tokens and are cut"
            self.events.append(Kind.WARNING, code="truncated", text=text, data={"rows": cut, "max_seq_length": limit})
        supervised = set(self.train_rows.supervised(limit))
        without = [row for row in range(len(self.train_rows)) if row not in supervised]
        if without:
            text = (
                f"{len(without)} of {len(self.train_rows)} training rows have no token to learn and are left out; "
                f"the first is {self._line(without[0])}"
            )
            self.events.append(Kind.WARNING, code="unsupervised", text=text, data={"rows": len(without)})

    def _prepare_training(self, *, fresh: bool) -> None:
        """Do what mlx_lm.lora.train_model does before it calls train(), in the same order."""
        self._choose_trained(fresh=fresh)
        self.optimizer = GuardedOptimizer(self._build_optimizer())
        self.optimizer.init(self.model.trainable_parameters())
        mx.eval(self.model.parameters(), self.optimizer.state)
        self._held = Held(self.model, self.optimizer.state)
        self.optimizer.chooses = not self._held.whole or self._held.bytes > HELD_BYTES

    def _choose_trained(self, *, fresh: bool) -> None:
        """Make trainable what is trained, and give it the weights that training begins from."""
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
            if any(stage.learning_rate_factor != 1.0 or stage.warmup_updates for stage in self.run_plan.stages):
                rate = StageRate(rate, lambda: self.stage)
            arguments = spec.optimizer_config.get(spec.optimizer, {})
            return _OPTIMIZERS[spec.optimizer](learning_rate=rate, **arguments)
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigInvalid(f"optimizer or lr_schedule: {_one_line(error)}") from error

    # --- resuming ---

    def _restore(self, checkpoint: Checkpoint, quality: Quality) -> None:
        """Put weights, moments, schedule, random key and position back, in place, and prove it."""
        state = checkpoint.state()
        self._take_weights(checkpoint.adapters)
        if quality is not Quality.WEIGHTS:
            _fill(self._moments(), checkpoint.optimizer, self._set_moments)
        high, low = (int(half) for half in state["random_key"])
        mx.random.seed((high << 32) | low)
        self.reporter.restore(checkpoint.iteration, state["progress"])
        self._saved_at = checkpoint.iteration
        self._validation = state["validation"]
        self._self_test(state["self_test"])

    def _take_weights(self, path: Path) -> None:
        """Put weights that were trained in the place of the present ones."""
        _fill(_named(self.model.trainable_parameters()), path, self._set_weights)

    def _set_weights(self, weights: dict[str, mx.array]) -> None:
        self.model.load_weights(list(weights.items()), strict=False)
        mx.eval(self.model.parameters())

    def _set_moments(self, moments: dict[str, mx.array]) -> None:
        _replace_leaves(self.optimizer.state, moments)
        mx.eval(self.optimizer.state)

    def _moments(self) -> dict[str, mx.array]:
        """Return the optimizer's state as checkpoints hold it."""
        return _named({name: value for name, value in self.optimizer.state.items() if name != GUARD})

    def _self_test(self, recorded: dict[str, Any] | None) -> None:
        """Measure again what the checkpoint recorded when it was written."""
        if recorded is None or not len(self.valid_rows):
            return
        measured = self._measure(self.valid_rows, range(recorded["examples"]))
        same_batches = recorded["batch_size"] == self.stage.batch_size
        self.events.append(
            Kind.SELF_TEST,
            iteration=self.reporter.iteration,
            measured=measured.loss,
            recorded=recorded["loss"],
            equal=measured.loss == recorded["loss"] or (not same_batches and self._as_close(measured, recorded)),
            examples=measured.examples,
            batch_size=self.stage.batch_size,
            recorded_batch_size=recorded["batch_size"],
        )

    @staticmethod
    def _as_close(measured: Measured, recorded: dict[str, Any]) -> bool:
        """Compare what was measured in batches of another size: padding moves the last bits."""
        return math.isclose(measured.loss, recorded["loss"], rel_tol=OTHER_BATCHES_TOLERANCE)

    # --- memory ---

    def _probe(self) -> None:
        """Do one whole update on the longest batch, so that a run which cannot fit fails in its first minute.

        Weights, moments and the random key are put back: the run does not notice.
        """
        lengths = self.order.lengths
        shares = {f"p{share}": math.ceil(float(np.percentile(lengths, share))) for share in (99, 95)}
        self.events.append(Kind.PHASE, phase="probe", lengths=shares | {"max": max(lengths)})
        self._turn_on_checkpointing()
        key = cast("Any", mx.random.state)[0].tolist()
        longest = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True)[: self.stage.batch_size]
        self.model.train()
        (loss, tokens), gradients = mlx_utils.value_and_grad(self.model, default_loss)(
            self.model, *self._batch(self.train_rows, longest)
        )
        mx.eval(loss, tokens, gradients)
        weights, moments = _named(self.model.trainable_parameters()), _named(self.optimizer.state)
        self.optimizer.update(self.model, gradients)
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        self._set_weights(weights)
        self._set_moments(moments)
        del loss, tokens, gradients
        self.reporter.beat()  # says what it took, should the next thing be a death without a word
        mx.clear_cache()
        mx.random.seed((key[0] << 32) | key[1])

    def _turn_on_checkpointing(self) -> None:
        """Turn on gradient checkpointing as train() would: for all layers of that class, and for good."""
        if self.stage.grad_checkpoint and not self._checkpointing:
            self._plain_call = type(self.model.layers[0]).__call__
            grad_checkpoint(self.model.layers[0])
            self._checkpointing = True

    # --- training ---

    def _batch(self, rows: Rows, chosen: Sequence[int]) -> tuple[mx.array, mx.array]:
        """Return (tokens, spans) of the chosen rows as MLX-LM's loss takes them."""
        tokens, spans = rows.padded(chosen, self.stage.max_seq_length)
        return mx.array(tokens), mx.array(spans)

    def _index_at(self, iteration: int) -> int:
        """Return the index of the stage that trains the iteration after so many."""
        return self.run_plan.at(iteration * self.spec.batch_size)

    def _begin_stage(self) -> None:
        """Take the settings of the stage that holds here; do once what happens only where it begins."""
        index = self._index_at(self.reporter.iteration)
        self.stage, self.order = self.run_plan.stages[index], self._orders[index]
        self.optimizer.clip = self.stage.grad_clip
        if self.stage.reset_moments and self._at_its_beginning():
            kept = ("step", "learning_rate")
            self._set_moments({name: mx.zeros_like(one) for name, one in self._moments().items() if name not in kept})

    def _at_its_beginning(self) -> bool:
        return self.reporter.iteration * self.spec.batch_size == self.stage.first_example

    def _train_stages(self) -> None:
        """Train stage after stage; each is one call of MLX-LM's train()."""
        if self.stage.segment is not None:
            self._segment_ends = self.reporter.iteration + self.stage.segment
        while not self._finished:
            self._begin_stage()
            end = self.run_plan.holds_until(self.reporter.iteration * self.spec.batch_size)
            if not self._train_until(self.end if end is None else end // self.spec.batch_size):
                return

    def _train_until(self, iteration: int) -> bool:
        """Train until so many iterations are completed; False where a stop came first."""
        spec, stage = self.spec, self.stage
        self._turn_on_checkpointing()
        self._stopped = False
        scratch = self.job_dir.path / ".written-by-train.safetensors"  # train() insists on saving; lq does not use it
        arguments = TrainingArgs(
            batch_size=stage.batch_size,
            iters=(iteration - self.reporter.iteration) * self._cuts
            + 1,  # so that _batches is asked after the last one
            val_batches=0,
            steps_per_report=NEVER,
            steps_per_eval=NEVER,
            steps_per_save=NEVER,
            max_seq_length=stage.max_seq_length,
            adapter_file=str(scratch),
            grad_checkpoint=False,  # turned on already, where the stage has it
            grad_accumulation_steps=stage.grad_accumulation_steps,
            clear_cache_threshold=spec.clear_cache_threshold,
        )
        epoch = {"rows": len(self.train_rows), "batches_per_epoch": self.order.batches_per_epoch}
        self.events.append(Kind.PHASE, phase="train", **epoch)
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            train(
                model=self.model,
                optimizer=self.optimizer,
                train_dataset=self.train_rows,
                val_dataset=None,
                args=arguments,
                loss=self.optimizer.loss,
                iterate_batches=lambda **_: self._batches(iteration),
            )
        scratch.unlink(missing_ok=True)
        return not self._stopped

    @property
    def _cuts(self) -> int:
        """Micro-batches per iteration."""
        return self.spec.batch_size // self.stage.batch_size

    def _batches(self, end: int) -> Iterator[tuple[mx.array, mx.array]]:
        """Yield the micro-batches from the present position on; between two iterations, do what is due.

        Returning ends train(). After the last iteration of a stage nothing is due before the next stage has begun.
        """
        for position in range(self.reporter.iteration, end):
            if self._between(position):
                self._stopped = True
                return
            yield from self._iteration(position)
        if end == self.end:
            self._between(end)
            self._stopped = not self._finished

    def _iteration(self, position: int) -> Iterator[tuple[mx.array, mx.array]]:
        """Yield the micro-batches of an iteration, and count it: train() asks on when it has evaluated each.

        Its own reports would say the same, but draw a table for every one.
        """
        rows, size = self.order.rows(position), self.stage.batch_size
        losses, tokens, seconds = [], 0, 0.0
        if not self.optimizer.chooses:
            self._held.hold()
        for start in range(0, len(rows), size):
            batch, spans = self.train_rows.padded(rows[start : start + size], self.stage.max_seq_length)
            arrays = mx.array(batch), mx.array(spans)
            began = time.perf_counter()
            yield arrays
            seconds += time.perf_counter() - began
            losses.append(float(self.optimizer.state[GUARD]["loss"].item()))
            tokens += learned_tokens(spans, batch.shape[1])
        self._count(sum(losses) / len(losses), tokens, seconds)

    def _count(self, loss: float, tokens: int, seconds: float) -> None:
        """Count an iteration that was trained.

        Args:
            loss: the mean of its micro-batches.
            tokens: that it learned from.
            seconds: it took.
        """
        seen = self.optimizer.state[GUARD]
        lost = int(seen["skipped"].item()) > self._lost_updates
        self._lost_updates += lost
        if not self.optimizer.chooses:
            self._held.let_go(put_back=lost)
        trained = Trained(
            loss=loss,
            tokens=tokens,
            seconds=seconds,
            learning_rate=float(self.optimizer.learning_rate.item()),
            grad_norm=float(seen["grad_norm"].item()),
            lost=min(self.spec.grad_accumulation_steps, self.reporter.iteration + 1) if lost else 0,
        )
        mean = self.reporter.count(trained)
        self._not_finite = loss if lost or not math.isfinite(loss) else None
        self._validation, self._validation_saved, self._measured = None, True, None
        iteration = self.reporter.iteration
        if self._forward is not None and (iteration % self.spec.steps_per_report == 0 or iteration == self.end):
            self._forward.on_train_loss_report(self._as_mlx_reports(trained, mean))

    def _as_mlx_reports(self, trained: Trained, mean: float) -> dict[str, Any]:
        return {
            "iteration": self.reporter.iteration,
            "train_loss": mean,
            "learning_rate": trained.learning_rate,
            "iterations_per_second": 1.0 / trained.seconds,
            "tokens_per_second": trained.tokens / trained.seconds,
            "trained_tokens": self.reporter.tokens,
            "peak_memory": mx.get_peak_memory() / 1e9,
        }

    _stopped = False
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
                config=cast("Any", mlx_config(spec, self.stage)),  # annotated as a string there, passed as a dictionary
            )
        except (ImportError, ValueError) as error:
            raise ConfigInvalid(f"report_to: {_one_line(error)}") from error
        yield

    def _between(self, iteration: int) -> bool:
        """Do what is due between two iterations; True means stop here.

        Args:
            iteration: completed iterations.
        """
        at_end = iteration == self.end
        if self._not_finite is not None:
            self._tell_not_finite(iteration, self._not_finite)
        aligned = iteration % self.spec.grad_accumulation_steps == 0 or at_end
        if self._segment_ends is not None and iteration >= self._segment_ends and not at_end:
            self.requests.segment_over = not self.requests.stop
            self.requests.stop = True
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
        examples = self._examples(self.valid_rows, self.spec.val_batches)
        measured = self._measure(self.valid_rows, range(examples), give_up=lambda: self.requests.stop)
        if measured is None:
            return
        iteration = self.reporter.iteration
        due = iteration % self.spec.steps_per_eval == 0 or iteration == self.spec.iters
        # one that was asked for in between is no candidate for the best: another run of this job would not have it
        more: dict[str, Any] = {} if due else {"asked": True}
        self._validation = self._tell(Kind.VALIDATION, measured, iteration=iteration, **more)
        self._measured = measured
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
    def _measure(self, rows: Rows, chosen: Sequence[int]) -> Measured: ...

    @overload
    def _measure(self, rows: Rows, chosen: Sequence[int], give_up: Callable[[], bool]) -> Measured | None: ...

    def _measure(
        self, rows: Rows, chosen: Sequence[int], give_up: Callable[[], bool] = lambda: False
    ) -> Measured | None:
        """Measure the loss over rows in the order given, without dropout and without touching the random key.

        Args:
            rows: the rows.
            chosen: the numbers of those to measure.
            give_up: asked before each batch; where it says yes, nothing is measured.
        """
        began = time.monotonic()
        size = self.stage.batch_size
        sums: list[float] = []
        tokens: list[int] = []
        self.model.eval()
        for start in range(0, len(chosen), size):
            if give_up():
                self.model.train()
                return None
            batch, spans = self._batch(rows, chosen[start : start + size])
            row_sums, row_tokens = _row_losses(self.model, batch, spans)
            mx.eval(row_sums, row_tokens)
            sums += cast("list[float]", row_sums.tolist())
            tokens += cast("list[int]", row_tokens.tolist())
            if mx.get_cache_memory() > self.spec.clear_cache_threshold:
                mx.clear_cache()
        self.model.train()
        return Measured(sums=tuple(sums), tokens=tuple(tokens), seconds=time.monotonic() - began)

    def _examples(self, rows: Rows, batches: int) -> int:
        """Return how many rows so many batches of the job file hold; -1 for all."""
        return len(rows) if batches < 0 else min(len(rows), batches * self.spec.batch_size)

    def _test(self) -> None:
        """Measure the test set on the last weights, and on the best ones where they are others."""
        self.events.append(Kind.PHASE, phase="test")
        self._test_at(self.end)
        best = storage.best_valid(self.job_dir.checkpoints, self.run_plan)
        if best is not None and best.iteration != self.end:
            self._take_weights(best.adapters)
            self._test_at(best.iteration)

    def _test_at(self, iteration: int) -> None:
        measured = self._measure(self.test_rows, range(self._examples(self.test_rows, self.spec.test_batches)))
        perplexity = math.exp(measured.loss) if measured.loss < 700 else math.inf
        self._tell(Kind.TEST, measured, iteration=iteration, perplexity=perplexity)

    def tested(self, weights: Path | None) -> Measured:
        """Measure the whole test set, in its order, without a run around it (workers/mlx/measure.py).

        Args:
            weights: what was trained, as a safetensors file; None for what the run begins from.
        """
        self.stage = self.run_plan.stages[-1]
        self._load_model()
        rows = self._test_rows()
        self._choose_trained(fresh=weights is None)
        if weights is not None:
            self._take_weights(weights)
        return self._measure(rows, range(len(rows)))

    def _test_rows(self) -> Rows:
        """Tokenise the test set alone."""
        config = mlx_config(self.spec, self.stage) | {"train": False, "test": True}
        encoder = Encoder(self.tokenizer)
        try:
            _, _, data = load_dataset(types.SimpleNamespace(**config), cast("Any", encoder))
            return tokenised(data, encoder)
        except (ValueError, KeyError, TypeError) as error:
            raise DataInvalid(f"the data {self.spec.data} cannot be used: {_one_line(error)}") from error

    # --- the loss guard ---

    def _tell_not_finite(self, iteration: int, loss: float) -> None:
        """Say which rows made an iteration's loss non-finite by themselves; its update was not applied."""
        self._not_finite = None
        self._named += 1
        if self._named > MOST_NAMED:
            return
        rows = self.order.rows(iteration - 1)
        alone = self._ranked(rows)
        well = self._is_well(iteration)
        guilty = [one for one in alone if not math.isfinite(one["loss"])] if well else []
        named = ", ".join(str(one["line"]) for one in guilty) or "no single row"
        why = f"by itself not finite: {named}" if well else "every row gives that under these weights"
        self.events.append(
            Kind.WARNING,
            code="not_applied",
            text=f"iteration {iteration:,}: the loss is {loss:g}, so the update is not applied; {why}",
            data={"iteration": iteration, "loss": loss, "rows": guilty, "weights_finite": well},
        )

    def _is_well(self, iteration: int) -> bool:
        """Say whether the weights themselves still give finite losses, on rows that are not accused."""
        if len(self.valid_rows):
            measured = self._measure(self.valid_rows, range(self._examples(self.valid_rows, 1)))
        else:
            accused = set(self.order.rows(iteration - 1))
            others = [row for row in self.order.pool if row not in accused]
            measured = self._measure(self.train_rows, others[: self.spec.batch_size])
        return any(math.isfinite(one) for one in measured.row_losses)

    def _ranked(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows with their own losses under the present weights, the worst first."""
        measured = self._measure(self.train_rows, rows)
        found = [
            {"row": row, "line": self._line(row), "loss": loss}
            for row, loss in zip(rows, measured.row_losses, strict=True)
        ]
        return sorted(found, key=lambda one: one["loss"] if math.isfinite(one["loss"]) else math.inf, reverse=True)

    def _autopsy(self) -> None:
        """Where a rollback begins: rank the rows around the first flag by their own loss under the healthy weights."""
        stage, every = self.stage, self.spec.steps_per_report
        if not stage.rollback or stage.first_flag is None or not self._at_its_beginning():
            return
        before = RunPlan(stages=self.run_plan.stages[: self._index_at(self.reporter.iteration)])
        around = range(max(0, stage.first_flag - 2 * every), min(stage.first_flag + every, self.spec.iters))
        rows: dict[int, None] = {}  # a set that keeps its order
        for position in around:
            order = self._orders[before.at(position * self.spec.batch_size)]
            rows.update(dict.fromkeys(order.rows(position)))
        ranked = self._ranked(list(rows)[-AUTOPSY_ROWS:])
        worst = ", ".join(f"{one['line']} ({one['loss']:.3g})" for one in ranked[:3])
        middle = ranked[len(ranked) // 2]["loss"]
        self.events.append(
            Kind.WARNING,
            code="autopsy",
            text=(
                f"the {len(ranked)} rows around iteration {stage.first_flag:,}, by their own loss at iteration "
                f"{self.reporter.iteration:,}: {worst}; their median is {middle:.3g}"
            ),
            data={
                "first_flag": stage.first_flag,
                "measured": len(ranked),
                "median": middle,
                "rows": ranked[:AUTOPSY_TOLD],
            },
        )

    # --- for the report ---

    def _look_before(self) -> None:
        """Say what is about to be trained on what, and how the model does that it begins from."""
        self._tell_fact(
            "dataset", dataset_facts(self.train_rows, self.valid_rows, self.test_rows, self.order, self.stage)
        )
        self._tell_fact("parameters", self._parameters())
        self._tell_fact("battery.before", battery())
        if self.spec.test and len(self.test_rows):
            self.events.append(Kind.PHASE, phase="test")
            self._test_at(0)
        self._answer("before", 0)

    def _look_after(self) -> None:
        """Answer once more, with the weights that are published."""
        self._tell_fact("battery.after", battery())
        best = storage.best_valid(self.job_dir.checkpoints, self.run_plan) if self.spec.lq.prompts else None
        if best is not None:
            self._take_weights(best.adapters)
        self._answer("after", self.reporter.iteration if best is None else best.iteration)

    def _tell_fact(self, name: str, value: Any) -> None:
        if value is not None:
            self.events.append(Kind.FACT, name=name, value=value)

    def _parameters(self) -> dict[str, Any]:
        """Count parameters as mlx_lm.lora prints them, and name what is trained."""
        trained = _named(self.model.trainable_parameters())
        return {
            "trained": sum(value.size for value in trained.values()),
            "total": int(get_total_parameters(self.model)),
            "targets": targets(trained),
            "layers": len({name.partition("layers.")[2].partition(".")[0] for name in trained if "layers." in name}),
        }

    def _answer(self, when: str, iteration: int) -> None:
        """Answer `lq.prompts` as mlx_lm.generate would, without chance. The run does not notice."""
        if not self.spec.lq.prompts:
            return
        self.events.append(Kind.PHASE, phase="answer")
        self.model.eval()
        with self._as_it_was_written():
            for place, prompt in enumerate(self.spec.lq.prompts):
                try:
                    said = generate(self.model, self.tokenizer, self._asked(prompt), max_tokens=ANSWER_TOKENS)
                except (ValueError, TypeError, RuntimeError) as error:  # a report can do without
                    text = f"prompt {place + 1} could not be answered: {_one_line(error)}"
                    self.events.append(Kind.WARNING, code="no_answer", text=text)
                    continue
                answer = {"prompt": prompt, "answer": said, "iteration": iteration, "max_tokens": ANSWER_TOKENS}
                self._tell_fact(f"answer.{when}.{place}", answer)
        self.model.train()
        mx.clear_cache()

    def _asked(self, prompt: str) -> list[int]:
        """Return a prompt's tokens, in the chat template where the model has one, as mlx_lm.generate does."""
        tokenizer = self.tokenizer
        if not tokenizer.has_chat_template:
            return cast("list[int]", tokenizer.encode(prompt))
        messages = [{"role": "user", "content": prompt}]
        return cast("list[int]", tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    @contextlib.contextmanager
    def _as_it_was_written(self) -> Iterator[None]:
        """Take back gradient checkpointing for a while: generating passes caches, which it cannot take."""
        layer = type(self.model.layers[0])
        patched = layer.__call__
        if self._plain_call is not None:
            layer.__call__ = self._plain_call
        try:
            yield
        finally:
            layer.__call__ = patched

    def _memory(self) -> dict[str, Any]:
        return {
            "active": mx.get_active_memory(),
            "cache": mx.get_cache_memory(),
            "peak": mx.get_peak_memory(),
            "footprint": footprint_bytes(),
            "limit": self._limit,
            "address_space_share": address_space_share(),
            "swap": swap_bytes(),
            "pressure_high": self._pressure.high(),
        }

    # --- checkpoints ---

    def _save(self, iteration: int) -> None:
        self.events.append(Kind.PHASE, phase="save")
        if iteration % self.spec.steps_per_report == 0:
            self.reporter.flush()
        began = time.monotonic()
        checkpoint, size = storage.write(self.job_dir.checkpoints, iteration, self._fill_checkpoint)
        self._saved_at, self._saved_time, self._validation_saved = iteration, time.monotonic(), True
        self.requests.snapshot = False
        self.events.append(
            Kind.CHECKPOINT,
            iteration=iteration,
            path=str(checkpoint.path.relative_to(self.job_dir.path)),
            bytes=size,
            seconds=round(self._saved_time - began, 3),
        )
        if not (self.requests.stop or iteration == self.end):
            self.events.append(Kind.PHASE, phase="train")

    def _fill_checkpoint(self, folder: Path) -> dict[str, Any]:
        _save_tensors(folder / storage.ADAPTERS, _named(self.model.trainable_parameters()))
        _save_tensors(folder / storage.OPTIMIZER, self._moments())
        return {
            "examples_seen": self.reporter.iteration * self.spec.batch_size,
            "stage": self.run_plan.at(max(0, self.reporter.iteration * self.spec.batch_size - 1)),
            "updates": int(self.optimizer.state["step"].item()),
            "finite": _all_finite([*_named(self.model.trainable_parameters()).values(), *self._moments().values()]),
            "random_key": cast("Any", mx.random.state)[0].tolist(),
            "progress": self.reporter.pending(),
            "validation": self._validation,
            "self_test": self._fingerprint(),
            "versions": versions(),
            "machine": machine(),
            "data": self._data,
        }

    def _fingerprint(self) -> dict[str, Any] | None:
        """Return what a resume measures again: this iteration's validation, or as much of it as a resume has time for;
        where there is none, the first few batches.
        """
        if not len(self.valid_rows):
            return None
        size = self.stage.batch_size
        if self._measured is not None:
            measured = self._measured.first(self._measured.rows_within(SELF_TEST_S, multiple=size))
        else:
            measured = self._measure(self.valid_rows, range(self._examples(self.valid_rows, SELF_TEST_BATCHES)))
        return {"loss": measured.loss, "examples": measured.examples, "batch_size": size}


class GuardedOptimizer:
    """An optimizer around another one: an update whose gradients are not finite leaves everything as it was.

    train() drives it like any optimizer. All of it is part of the compiled step; what it saw is carried in the
    optimizer's own state, the only thing the step hands out besides the weights.
    """

    def __init__(self, inner: Any) -> None:
        """Wrap an optimizer of MLX's."""
        self._inner = inner
        self.clip: float | None = None  # largest global norm; read when the step is traced, as the next one
        self.chooses = True  # keeps everything itself as it was; else whoever drives it puts it back

    @property
    def state(self) -> dict[str, Any]:
        """The wrapped optimizer's state, the very dictionary, with the guard's entry in it."""
        return cast("dict[str, Any]", self._inner.state)

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the last update."""
        return self._inner.learning_rate

    def init(self, parameters: Any) -> None:
        """Make the state for these parameters."""
        self._inner.init(parameters)
        self.state[GUARD] = {"loss": mx.array(0.0), "grad_norm": mx.array(0.0), "skipped": mx.array(0)}

    def loss(self, model: Any, batch: mx.array, spans: mx.array) -> tuple[mx.array, mx.array]:
        """Return MLX-LM's loss, and keep it. Where it is not finite its gradients are not either: no update is made.

        Args:
            model: what is trained.
            batch: tokens, (rows, length).
            spans: first and last supervised position, (rows, 2).

        Returns:
            the mean over the tokens in nats, and how many these are.
        """
        loss, tokens = default_loss(model, batch, spans)
        loss = loss * mx.stop_gradient(mx.where(mx.isfinite(loss), 1.0, math.nan))
        self.state[GUARD]["loss"] = loss
        return loss, tokens

    def update(self, model: Any, gradients: Any) -> None:
        """Apply the gradients, clipped where that is asked for; or nothing, where their norm is not finite.

        Args:
            model: whose trainable parameters are updated.
            gradients: by parameter.
        """
        seen = self.state[GUARD]
        norm = _global_norm(gradients)
        applies = mx.isfinite(norm)
        before = self._before(model) if self.chooses else None
        if self.clip is not None:
            share = mx.minimum(self.clip / (norm + 1e-6), 1.0)
            gradients = tree_map(lambda one: one * share.astype(one.dtype), gradients)
        self._inner.update(model, gradients)
        if before is not None:
            weights, moments = before
            model.update(tree_map(lambda new, old: mx.where(applies, new, old), model.trainable_parameters(), weights))
            _keep_unless(applies, self.state, moments)
        seen["grad_norm"] = norm
        seen["skipped"] = seen["skipped"] + mx.where(applies, 0, 1)

    def _before(self, model: Any) -> tuple[Any, Any]:
        """Return the trained weights and the state, apart from the guard's, as they are now."""
        state = {name: value for name, value in self.state.items() if name != GUARD}
        return model.trainable_parameters(), _copied(state)


Place = tuple[Any, Any]
"""A dictionary or list, and the key of an array in it."""


class Held:
    """Trained weights and optimizer state before an update, to be put back where it must not apply."""

    def __init__(self, model: Any, state: dict[str, Any]) -> None:
        """Find every array, and where it is; train() replaces them there.

        Args:
            model: whose trainable parameters are meant.
            state: the optimizer's; the guard's entry is not held.
        """
        held = [place for place in _places(state) if place[0] is not state.get(GUARD)]
        self._places: list[Place] = [*_trained_places(model), *held]
        named = {**_named(model.trainable_parameters()), **_named({k: one for k, one in state.items() if k != GUARD})}
        self.bytes = sum(one.nbytes for one in named.values())
        self.whole = len(self._places) == len(named)
        self._arrays: list[mx.array] = []

    def hold(self) -> None:
        """Keep the arrays that are there now."""
        self._arrays = [tree[key] for tree, key in self._places]

    def let_go(self, *, put_back: bool) -> None:
        """Keep them no longer; put them back before, where that is asked for."""
        if put_back:
            for (tree, key), array in zip(self._places, self._arrays, strict=True):
                tree[key] = array
        self._arrays = []


class StageRate:
    """A learning rate as a stage of the run plan has it: the job file's, times a factor, after a climb of its own."""

    def __init__(self, rate: float | Callable[[mx.array], mx.array], stage: Callable[[], Stage]) -> None:
        """Wrap the job file's rate.

        Args:
            rate: a number, or a schedule over updates.
            stage: the stage that holds when the step is traced.
        """
        self._rate, self._stage = rate, stage

    def __call__(self, step: mx.array) -> mx.array:
        """Return the rate of an update.

        Args:
            step: updates made before it.
        """
        stage = self._stage()
        rate = self._rate(step) if callable(self._rate) else mx.array(self._rate)
        rate = rate * stage.learning_rate_factor
        if stage.warmup_updates:
            made = step.astype(mx.float32) - stage.first_update
            rate = rate * mx.clip((made + 1.0) / stage.warmup_updates, 0.0, 1.0)
        return rate


def _global_norm(gradients: Any) -> mx.array:
    """Return the 2-norm over all gradients, summed in float32: half precision would overflow."""
    arrays = [one.astype(mx.float32) for one in _named(gradients).values()]
    small = [one.reshape(-1) for one in arrays if one.size <= SMALL]
    parts = [*([mx.concatenate(small)] if small else []), *(one for one in arrays if one.size > SMALL)]
    return mx.sqrt(mx.stack([mx.square(one).sum() for one in parts]).sum())


def _all_finite(arrays: Sequence[mx.array]) -> bool:
    return bool(mx.stack([mx.isfinite(one).all() for one in arrays]).all().item())


def _trained_places(model: Any) -> Iterator[Place]:
    """Yield where the trained weights of a model are: a module is a dictionary, and train() captures that very one."""
    for _, module in model.named_modules():
        for key, value in module.items():
            if isinstance(value, mx.array) and model.trainable_parameter_filter(module, key, value):
                yield module, key


def _places(tree: Any) -> Iterator[Place]:
    """Yield where the arrays of dictionaries and lists are."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, mx.array):
            yield tree, key
        elif isinstance(value, dict | list):
            yield from _places(value)


def _copied(tree: Any) -> Any:
    """Return the same arrays in new containers."""
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def _keep_unless(applies: mx.array, tree: Any, before: Any) -> None:
    """Put the arrays of before back in place, unless the update applies."""
    for key in before if isinstance(before, dict) else range(len(before)):
        if isinstance(before[key], dict | list):
            _keep_unless(applies, tree[key], before[key])
        else:
            tree[key] = mx.where(applies, tree[key], before[key])


@functools.cache  # each is looked up on the disk, and every checkpoint asks
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
    return {path.name: sha256 for path in files if (sha256 := sha256_of(path)) is not None}


def _named(tree: Any) -> dict[str, mx.array]:
    """Return the arrays of a tree by their dotted names, as safetensors files hold them."""
    return dict(cast("list[tuple[str, mx.array]]", tree_flatten(tree)))


def recommended_memory() -> int:
    """Return what the device recommends to take, in bytes: Metal's working set, else what the system allows."""
    if mx.metal.is_available():
        return int(mx.device_info()["max_recommended_working_set_size"])
    return sensors.allowed_memory()


def device_facts() -> dict[str, Any]:
    """Return the device facts for `lq doctor`. Compiles a kernel to see whether that works."""
    fused = mx.compile(lambda x: mx.exp(x) * 2 + x)
    try:
        mx.eval(fused(mx.zeros(4)))
        kernel_error = None
    except RuntimeError as error:
        kernel_error = _one_line(error)
    found = versions()
    return {
        "mlx": found["mlx"],
        "mlx_lm": found["mlx-lm"],
        "device": machine(),
        "metal": bool(mx.metal.is_available()),
        "recommended": recommended_memory(),
        "kernel_error": kernel_error,
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


def _shapes(arrays: dict[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in arrays.items()}


def _save_tensors(path: Path, tensors: dict[str, mx.array]) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it cannot be written; ENOSPC, because MLX does not say why and a full disk is how it comes about.
    """
    try:
        mx.save_safetensors(str(path), tensors)
    except RuntimeError as error:
        if not str(error).startswith(("[write] Unable to write", "[save_safetensors] Failed to open")):
            raise  # the arrays are computed here, so this may be the GPU's
        raise OSError(errno.ENOSPC, f"the disk took no more ({_one_line(error)})", str(path)) from error


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
