"""The model and the weights of a job, as the commands of MLX-LM take them.

`lq chat`, `lq generate` and `lq fuse` find model and adapter here, take the device lock, and start the command of
MLX-LM (mlx_cli.py). MLX-LM loads the published weights of every fine_tune_type as an adapter, those of full fine-tunes
too.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.model.errors import DataInvalid, ModelMissing, NotAllowed
from jobs.model.job import Job
from jobs.model.states import LIVE, Status
from workers.checkpoints import publishing

if TYPE_CHECKING:
    from orchestrator.core.app import App


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunedModel:
    """The model of a job, with the adapter to load."""

    job: Job
    model: str  # a folder, or a name on the Hugging Face hub
    trust_remote_code: bool
    adapter: Path | None  # a folder in the layout of MLX-LM; None for the base model
    iteration: int | None  # of the adapter; None if unknown or without an adapter
    why: str | None  # why these weights were published as the best

    def arguments(self, command: str, *own: str) -> list[str]:
        """Return the arguments of `python -m mlx_lm`; the last one of several equal options counts."""
        adapter = ["--adapter-path", str(self.adapter)] if self.adapter is not None else []
        trust = ["--trust-remote-code"] if self.trust_remote_code else []
        return [command, "--model", self.model, *adapter, *trust, *own]

    @property
    def words(self) -> str:
        """Which weights these are, in words."""
        if self.adapter is None:
            return "the model before training"
        return "its best weights" if self.iteration is None else f"its best weights, of iteration {self.iteration:,}"


def tuned(app: App, job: Job, *, base: bool = False) -> TunedModel:
    """Return the model of a job with its best adapter, or without one if `base`.

    Raises:
        ModelMissing: the folder of the model does not exist.
        NotAllowed: there is no finished adapter.
    """
    spec = json.loads(app.store.jobs.spec_json(job.id))
    require_model(job, str(spec["model"]))
    adapter = None if base else _adapter(job, spec)
    about = publishing.origin(adapter) if adapter is not None else {}
    return TunedModel(
        job=job,
        model=str(spec["model"]),
        trust_remote_code=bool(spec.get("trust_remote_code")),
        adapter=adapter,
        iteration=_iteration(about, "best"),
        why=str(about["why"]) if "why" in about else None,
    )


def require_model(job: Job, model: str) -> None:
    """Raise ModelMissing if the model is a folder that does not exist."""
    if Path(model).is_absolute() and not Path(model).is_dir():
        raise ModelMissing(f"job {job.id}: its model {model} does not exist any more; restore the folder")


def _adapter(job: Job, spec: dict[str, Any]) -> Path:
    """Return the folder of the finished adapter: in the job folder, or where it was published."""
    own, named = job.dir.adapters, spec.get("adapter_path")
    for folder in (own, *([Path(named)] if named is not None else [])):
        whole = all((folder / name).is_file() for name in (publishing.BEST, publishing.CONFIG))
        if whole and (folder == own or publishing.origin(folder).get("job_dir") == job.job_dir):
            return folder
    raise NotAllowed(_without_adapter(job))


def _without_adapter(job: Job) -> str:
    """Return why there is no adapter, and what to do."""
    if job.cleaned_at is not None:
        return f"job {job.id} was cleaned, which deleted its adapter; train it again: lq submit {job.dir.config}"
    if job.status is Status.SUCCEEDED:
        return f"job {job.id}: {job.dir.adapters} does not contain its adapter any more; see: lq verify {job.id}"
    remedy = {
        Status.HELD: f"let it run: lq resume {job.id}",
        Status.PAUSED: f"resume it: lq resume {job.id}",
        Status.FAILED: f"see lq show {job.id}, then lq retry {job.id}",
        Status.CANCELLED: f"resume it: lq retry {job.id}",
        Status.SKIPPED: f"see lq show {job.id}",
    }
    what = remedy.get(job.status, f"wait for it: lq wait {job.id}")
    yet = " yet" if job.status in LIVE else ""
    return f"job {job.id} is {job.status} and has no finished adapter{yet}; {what}"


def _iteration(about: Any, which: str) -> int | None:
    try:
        return int(about[which]["iteration"])
    except (KeyError, TypeError, ValueError):
        return None


# --- weights to measure ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of a run, which may not have ended."""

    path: Path | None  # a safetensors file; None for the weights before training
    iteration: int | None  # None if unknown
    words: str  # best, last, checkpoint, ...


def weights(app: App, job: Job, which: str | int) -> Weights:
    """Return weights of a job: `best`, `last`, or those of an iteration, where 0 means before training.

    Raises:
        NotAllowed: they do not exist.
        CheckpointInvalid: the checkpoint does not verify.
    """
    if which == 0:
        return Weights(path=None, iteration=0, words="before training")
    if isinstance(which, int):
        return _of_iteration(job, which)
    return _published(app, job, which) or _of_checkpoints(app, job, which)


def _of_iteration(job: Job, iteration: int) -> Weights:
    from workers.checkpoints import pruning, storage

    job_dir = job.dir
    present = {checkpoint.iteration: checkpoint for checkpoint in storage.listed(job_dir.checkpoints)}
    if iteration in present:
        storage.verify(present[iteration])
        return Weights(path=present[iteration].adapters, iteration=iteration, words="checkpoint")
    kept = pruning.kept_adapters(job_dir)
    if iteration in kept:
        path = job_dir.adapters / f"{iteration:07d}_adapters.safetensors"
        return Weights(path=path, iteration=iteration, words="kept")
    left = ", ".join(map(str, sorted({*present, *kept})))
    others = f"it has those of {left}" if left else "it has none at all"
    raise NotAllowed(f"job {job.id} has no weights of iteration {iteration}; {others}")


def _published(app: App, job: Job, which: str) -> Weights | None:
    """Return the published weights; None if they do not exist."""
    try:
        folder = _adapter(job, json.loads(app.store.jobs.spec_json(job.id)))
    except NotAllowed:
        return None
    path = folder / (publishing.BEST if which == "best" else publishing.FINAL)
    about = publishing.origin(folder)
    iteration = _iteration(about, "best" if which == "best" else "final")
    return Weights(path=path, iteration=iteration, words=which) if path.is_file() else None


def _of_checkpoints(app: App, job: Job, which: str) -> Weights:
    """Return the best or newest checkpoint of a run that was not published."""
    from workers.checkpoints import storage

    folder, run_plan = job.dir.checkpoints, app.store.run_plans.get(job.id, app.store.spec(job.id))
    checkpoint = storage.best_valid(folder, run_plan)[0] if which == "best" else None
    checkpoint = checkpoint or storage.newest_valid(folder, run_plan)[0]
    if checkpoint is None:
        raise NotAllowed(_without_adapter(job).replace("finished adapter", "weights"))
    return Weights(path=checkpoint.adapters, iteration=checkpoint.iteration, words=f"{which} so far")


def test_file(job: Job, spec_json: str, data: Path | None) -> Path | None:
    """Return the file of the test rows, which must exist; None if the data comes from the Hugging Face hub."""
    spec = json.loads(spec_json)
    folder = data if data is not None else Path(spec["data"])
    if data is None and (spec.get("hf_dataset") or not folder.is_absolute()):
        return None
    path = folder / "test.jsonl"
    if not path.is_file():
        raise DataInvalid(f"{path} does not exist; choose another folder: lq test {job.id} --data FOLDER")
    return path
