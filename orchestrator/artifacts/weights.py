"""What comes after a run: a job's model and its weights, as MLX-LM's own commands take them.

`lq chat` and its like are thin: they find model and adapter, see to the device (device.py), and start MLX-LM's command
(mlx_command.py). MLX-LM loads what lq publishes of every fine_tune_type, full fine-tunes too, as an adapter.
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
class Tuned:
    """A job's model, with the adapter to load into it."""

    job: Job
    model: str  # a folder, or a name on the Hugging Face hub
    trust_remote_code: bool
    adapter: Path | None  # a folder in MLX-LM's layout; None for the model as it was
    iteration: int | None  # of the adapter's weights; None where that is not known, or there is no adapter
    why: str | None  # why these weights were published as the best

    def arguments(self, command: str, *own: str) -> list[str]:
        """Return the words of one of MLX-LM's commands after `python -m mlx_lm`.

        Args:
            command: chat, generate or fuse.
            own: its other options, the user's last, so that they count.
        """
        adapter = ["--adapter-path", str(self.adapter)] if self.adapter is not None else []
        trust = ["--trust-remote-code"] if self.trust_remote_code else []
        return [command, "--model", self.model, *adapter, *trust, *own]

    @property
    def words(self) -> str:
        """Whose weights these are, for a person."""
        if self.adapter is None:
            return "the model before training"
        return "its best weights" if self.iteration is None else f"its best weights, of iteration {self.iteration:,}"


def tuned(app: App, job: Job, *, base: bool = False) -> Tuned:
    """Return a job's model with its best adapter.

    Args:
        app: the store.
        job: in any state, as long as its adapter is there.
        base: without the adapter.

    Raises:
        ModelMissing: the model's folder is gone.
        NotAllowed: there is no finished adapter.
    """
    spec = json.loads(app.store.jobs.spec_json(job.id))
    require_model(job, str(spec["model"]))
    adapter = None if base else _adapter(job, spec)
    about = publishing.origin(adapter) if adapter is not None else {}
    return Tuned(
        job=job,
        model=str(spec["model"]),
        trust_remote_code=bool(spec.get("trust_remote_code")),
        adapter=adapter,
        iteration=_iteration(about, "best"),
        why=str(about["why"]) if "why" in about else None,
    )


def require_model(job: Job, model: str) -> None:
    """Refuse where the model's folder is gone.

    Raises:
        ModelMissing: it is.
    """
    if Path(model).is_absolute() and not Path(model).is_dir():
        raise ModelMissing(f"job {job.id}: its model {model} is not there any more; put the folder back")


def _adapter(job: Job, spec: dict[str, Any]) -> Path:
    """Return the folder of the finished adapter: the job's own, else the one that was published."""
    job_dir = job.dir
    if _is_whole(job_dir.adapters):
        return job_dir.adapters
    named = spec.get("adapter_path")
    published = Path(named) if named is not None else None
    if published is not None and _is_whole(published) and publishing.origin(published).get("job_dir") == job.job_dir:
        return published
    raise NotAllowed(_without_adapter(job))


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (publishing.BEST, publishing.CONFIG))


def _without_adapter(job: Job) -> str:
    """Say why there is no adapter, and what to do."""
    if job.cleaned_at is not None:
        again = f"lq submit {job.dir.config}"
        return f"job {job.id} was cleaned, and its adapter is gone; train it again: {again}"
    if job.status is Status.SUCCEEDED:
        folder = job.dir.adapters
        return f"job {job.id}: its adapter is not in {folder} any more; see: lq verify {job.id}"
    remedy = {
        Status.HELD: f"let it run: lq resume {job.id}",
        Status.PAUSED: f"let it go on: lq resume {job.id}",
        Status.FAILED: f"see why: lq show {job.id}, and try again: lq retry {job.id}",
        Status.CANCELLED: f"let it go on: lq retry {job.id}",
        Status.SKIPPED: f"see why: lq show {job.id}",
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
    """Weights of a run, finished or not."""

    path: Path | None  # a safetensors file; None for what the run began from
    iteration: int | None  # None where that is not known
    words: str  # best, last, or what they are otherwise


def weights(app: App, job: Job, which: str | int) -> Weights:
    """Return some weights of a job.

    Args:
        app: the store.
        job: in any state.
        which: `best`, `last`, or an iteration; 0 for what the run began from.

    Raises:
        NotAllowed: they are not there.
        CheckpointInvalid: that checkpoint does not verify.
    """
    if which == 0:
        return Weights(path=None, iteration=0, words="before training")
    if isinstance(which, int):
        return _of_iteration(job, which)
    return _published(app, job, which) or _of_checkpoints(app, job, which)


def _of_iteration(job: Job, iteration: int) -> Weights:
    from workers.checkpoints import pruning, storage

    job_dir = job.dir
    present = {one.iteration: one for one in storage.listed(job_dir.checkpoints)}
    if iteration in present:
        storage.verify(present[iteration])
        return Weights(path=present[iteration].adapters, iteration=iteration, words="checkpoint")
    kept = pruning.kept_adapters(job_dir)
    if iteration in kept:
        path = job_dir.adapters / f"{iteration:07d}_adapters.safetensors"
        return Weights(path=path, iteration=iteration, words="kept")
    there = ", ".join(f"{one}" for one in sorted({*present, *kept}))
    raise NotAllowed(
        f"job {job.id} has no weights of iteration {iteration} any more; "
        + (f"there are those of {there}" if there else "there are none of any")
    )


def _published(app: App, job: Job, which: str) -> Weights | None:
    """Return what was published; None where nothing was, or it is gone."""
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
    found = storage.best_valid(folder, run_plan) if which == "best" else None
    found = found or storage.newest_valid(folder, run_plan)[0]
    if found is None:
        raise NotAllowed(_without_adapter(job).replace("finished adapter", "weights"))
    return Weights(path=found.adapters, iteration=found.iteration, words=f"{which} so far")


def test_file(job: Job, spec_json: str, data: Path | None) -> Path | None:
    """Return the file of test rows; None where the data comes from the Hugging Face hub.

    Raises:
        DataInvalid: there is none.
    """
    spec = json.loads(spec_json)
    folder = data if data is not None else Path(spec["data"])
    if data is None and (spec.get("hf_dataset") or not folder.is_absolute()):
        return None
    path = folder / "test.jsonl"
    if not path.is_file():
        another = f"lq test {job.id} --data FOLDER"
        raise DataInvalid(f"job {job.id}: {path} is not there; name a folder that has one: {another}")
    return path
