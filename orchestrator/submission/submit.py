"""From a file to a queued job: checked, frozen, recorded, with everything needed to say later what it was."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import platform
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.model import run_plan as run_plans
from jobs.model.errors import InvalidInput, NoSuchJob, NotAllowed
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED, Status
from orchestrator.core.app import App
from orchestrator.estimation import disk as budget
from orchestrator.estimation.memory import smaller_stage
from orchestrator.store.groups import free_name
from orchestrator.submission import staging
from workers.checkpoints import publishing
from workers.files.atomic import write_atomically, write_json
from workers.system import processor

if TYPE_CHECKING:
    from configs.data_files import DataFacts
    from configs.load import LoadedJob, Sweep
    from jobs.estimates.disk import SpaceNeed
    from jobs.model.spec import JobSpec

PROVENANCE_VERSION = 1
_OF_DATA = {
    "data",
    "hf_dataset",
    "batch_size",
    "test",
    "mask_prompt",
    "prompt_feature",
    "completion_feature",
    "chat_feature",
    "text_feature",
}
"""What a check of the data looks at (configs/data_files.py, data_rows.py)."""
_PACKAGES = ("lq", "mlx", "mlx-lm", "huey", "sqlalchemy", "numpy", "transformers", "tokenizers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """A job file that can be queued."""

    loaded: LoadedJob
    facts: DataFacts
    overwrites: Mapping[str, str]  # what the adapter may overwrite in adapter_path: sha256 by name
    need: SpaceNeed  # of disk

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told, one line each."""
        unknown = budget.unknown(self.need)
        return (*self.loaded.notes, *self.facts.notes, *((unknown,) if unknown is not None else ()))

    def in_group(self, name: str) -> Checked:
        """Return the same job as one of a group."""
        spec = self.loaded.spec
        spec = spec.model_copy(update={"lq": spec.lq.model_copy(update={"group": name})})
        return dataclasses.replace(self, loaded=dataclasses.replace(self.loaded, spec=spec))


def check(app: App, path: Path, *, overwrite: bool = False, sets: Sequence[str] = ()) -> list[Checked]:
    """Check a job file, its data and its model; nothing is changed.

    Args:
        app: store and settings.
        path: the job file.
        overwrite: whether the adapter may overwrite what lies in adapter_path now.
        sets: `key=value` each, laid upon the file.

    Returns:
        One for each job the file makes: each combination of its matrix, else one.

    Raises:
        InvalidInput: it cannot be trained with.
        NotAllowed: another live job publishes to the same adapter_path, or something lies there already.
        HomeUnusable, StoreUnusable: the home cannot take it.
    """
    from configs.data_files import check_data
    from configs.load import load_jobs

    found: dict[
        str, DataFacts
    ] = {}  # of the same data checked in the same way; a sweep has it once, not a thousand times
    checked = []
    jobs = load_jobs(path, sets, defaults=app.settings().defaults)
    _require_own_adapter_paths(app, [one.spec for one in jobs])
    for loaded in jobs:
        key = loaded.spec.model_dump_json(include=_OF_DATA)
        if key not in found:
            found[key] = check_data(loaded.spec, (loaded.source, loaded.data_line))
        checked.append(_checked(app, loaded, found[key], overwrite=overwrite))
    return checked


def _checked(app: App, loaded: LoadedJob, facts: DataFacts, *, overwrite: bool) -> Checked:
    return checked_job(loaded, facts, overwrites=overwritten(loaded, overwrite=overwrite))


def checked_job(loaded: LoadedJob, facts: DataFacts, *, overwrites: Mapping[str, str]) -> Checked:
    """Return a job whose file and data were checked, with the disk it needs."""
    valid = facts.files.get("valid.jsonl")
    need = budget.need_of(loaded.spec, valid_rows=valid.rows if valid is not None else 0)
    return Checked(loaded=loaded, facts=facts, overwrites=overwrites, need=need)


def check_all(app: App, paths: Sequence[Path], *, overwrite: bool = False, sets: Sequence[str] = ()) -> list[Checked]:
    """Check several job files that are to be queued together; as `check`.

    Raises:
        what `check_beside` does, InvalidInput: there is too little space on the disk for all of them.
    """
    checked = check_beside(app, paths, overwrite=overwrite, sets=sets)
    budget.require_space(app, [(one.loaded.source, one.need) for one in checked])
    return checked


def check_beside(
    app: App, paths: Sequence[Path], *, overwrite: bool = False, sets: Sequence[str] = ()
) -> list[Checked]:
    """Check several job files beside each other, without the space on the disk; as `check`.

    Raises:
        what `check` does, NotAllowed: two of them publish to the same adapter_path.
    """
    checked = [one for path in paths for one in check(app, path, overwrite=overwrite, sets=sets)]
    taken: dict[str | None, Path] = {}
    names: set[str] = set()
    for one in checked:
        require_predecessors(app, one.loaded, names)
        names |= {one.loaded.spec.name, *filter(None, [one.loaded.spec.lq.group])}
        target, source = one.loaded.spec.adapter_path, one.loaded.source
        if target is not None and target in taken:
            raise NotAllowed(f"{source}: adapter_path {target} is already that of {taken[target]}; name another one")
        taken[target] = source
    return checked


def enqueue_all(app: App, checked: Sequence[Checked], *, inbox_sha256: str | None = None) -> list[Job]:
    """Queue checked jobs in one transaction: all of them appear, each with its folder, or none does.

    The jobs of a sweep become a group: the one its `lq.group` names, else a new one named after the file.

    Args:
        app: store, settings and wake-up queue.
        checked: the jobs, in their order.
        inbox_sha256: of the file in the drop folder that they come from; recorded with them.
    """
    store = app.store  # makes the home where there is none
    with staging.opened(app.home.jobs) as staging_folder:
        while True:
            groups = _groups(app, checked)
            named = [one.in_group(groups[sweep]) if (sweep := one.loaded.sweep) else one for one in checked]
            folders = [staging_folder.filled(functools.partial(write_folder, checked=one)) for one in named]
            with store.transaction():  # short: only what the folders are called is left to do
                if _groups(app, checked) == groups:
                    _require_own_adapter_paths(app, [one.loaded.spec for one in named])
                    jobs = [_queued(app, one, folder, inbox_sha256) for one, folder in zip(named, folders, strict=True)]
                    break
    for job in jobs:
        for message in store.outbox.messages(job.id):
            app.wakeup.wake_for_delivery(message.id)
    return jobs


def _groups(app: App, checked: Sequence[Checked]) -> dict[Sweep, str]:
    """Return the group of each sweep: the one it joins, else one whose name nobody ever had."""
    taken = set(app.store.groups.names())
    found: dict[Sweep, str] = {}
    for sweep in dict.fromkeys(one.loaded.sweep for one in checked):
        if sweep is not None:
            found[sweep] = sweep.joins or free_name(sweep.name, taken)
            taken.add(found[sweep])
    return found


def enqueue(app: App, checked: Checked) -> Job:
    """Queue a checked job: its row and its folder appear together, or neither does."""
    (job,) = enqueue_all(app, [checked])
    return job


def _queued(app: App, checked: Checked, folder: Path, inbox_sha256: str | None) -> Job:
    """Queue a job within a transaction.

    Args:
        app: store and home.
        checked: the job.
        folder: its own, filled; it gets its name now.
        inbox_sha256: of the dropped file that it comes from.
    """
    from orchestrator.notify.publisher import JobNotifications

    spec = checked.loaded.spec
    return app.store.jobs.submit(
        name=spec.name,
        group=spec.lq.group,
        priority=spec.lq.priority,
        iters=spec.iters,
        spec_json=spec.model_dump_json(),
        inbox_sha256=inbox_sha256,
        prepare=lambda job_id: staging.moved(folder, app.home.jobs, f"{job_id}-{slug(spec.name)}"),
        now=time.time(),
        stage=smaller_stage(app.store, spec),
        after=predecessors(app, spec),
        announce=lambda job: JobNotifications(app, job, spec).submitted(),
    )


def require_predecessors(app: App, loaded: LoadedJob, before: Collection[str]) -> None:
    """Refuse a job that comes after one that is not there, or can no longer succeed.

    Args:
        app: the store.
        loaded: the job.
        before: names of the jobs that are queued with it, before it.
    """
    lq = loaded.spec.lq
    for key, wanted in (("after", lq.after), ("after_any", lq.after_any)):
        for one in wanted:
            if one in before:
                continue
            found = _ids(app, one)
            if not found:
                what = f"there is no job {one}" if isinstance(one, int) else f"no job and no group is called '{one}'"
                raise InvalidInput(f"{loaded.source}: lq.{key}: {what}; see: lq status --all")
            lost = [job for job in map(app.store.jobs.get, found) if job.status in ENDED - {Status.SUCCEEDED}]
            if key == "after" and lost:
                raise NotAllowed(
                    f"{loaded.source}: lq.after: job {lost[0].id} is {lost[0].status}, so this one would never run; "
                    f"first: lq retry {lost[0].id}, or write lq.after_any"
                )


def predecessors(app: App, spec: JobSpec) -> list[tuple[int, bool]]:
    """Return the ids of the jobs that must have ended first, and whether any end of them will do."""
    any_end = {job_id: True for one in spec.lq.after_any for job_id in _ids(app, one)}
    return sorted((any_end | {job_id: False for one in spec.lq.after for job_id in _ids(app, one)}).items())


def _ids(app: App, wanted: int | str) -> list[int]:
    """Return the ids of the job, or of the group's jobs, of that id or name."""
    if not app.home.store.exists():
        return []
    if isinstance(wanted, str):
        return app.store.jobs.ids_called(wanted)
    try:
        return [app.store.jobs.get(wanted).id]
    except NoSuchJob:
        return []


def _require_own_adapter_paths(app: App, specs: Sequence[JobSpec]) -> None:
    """Refuse a taken adapter_path in good time; it is asked once more when the jobs are queued."""
    paths = [spec.adapter_path for spec in specs if spec.adapter_path is not None]
    if paths and app.home.store.exists():
        app.store.jobs.require_free_paths(paths)


def overwritten(loaded: LoadedJob, *, overwrite: bool) -> dict[str, str]:
    """Return the sha256, by name, of what lies in adapter_path, if that may be overwritten.

    Raises:
        NotAllowed: something lies there, and nobody said that it may be; or adapter_path is no folder.
    """
    target = Path(loaded.spec.adapter_path) if loaded.spec.adapter_path is not None else None
    if target is None:
        return {}
    if target.exists() and not target.is_dir():
        raise NotAllowed(f"{loaded.source}: adapter_path {target} is not a folder; name another one")
    present = publishing.in_the_way(target)
    if present and not overwrite:
        whose = publishing.origin(target).get("job")
        by = f" of job {whose}" if whose is not None else ""
        raise NotAllowed(
            f"{loaded.source}: adapter_path {target} holds {present[0].name}{by}; "
            "name another folder, or let it be replaced with --overwrite"
        )
    return {path.name: sha256 for path in present if (sha256 := publishing.sha256_of(path)) is not None}


def write_folder(folder: Path, checked: Checked) -> None:
    """Write what a job's folder holds from the beginning."""
    from configs.load import dump_job

    spec, job_dir = checked.loaded.spec, JobDir(folder)
    write_atomically(job_dir.config, dump_job(spec))
    write_json(job_dir.provenance, provenance(checked))
    write_json(job_dir.run_plan, run_plans.to_json(run_plans.RunPlan.requested(spec)))


def provenance(checked: Checked) -> dict[str, Any]:
    """Return what provenance.json holds: where the job came from, and what it will run on."""
    source = checked.loaded.source
    return {
        "version": PROVENANCE_VERSION,
        "submitted": {
            "file": str(source),
            "sha256": hashlib.sha256(checked.loaded.content).hexdigest(),
            "set": list(checked.loaded.sets),
            "matrix": dict(checked.loaded.varied),
        },
        "host": {"name": platform.node(), "platform": platform.platform(), "machine": processor.machine()},
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "model": _model(checked.loaded.spec.model),
        "data": dataclasses.asdict(checked.facts),
        publishing.AGREED: dict(checked.overwrites),
        budget.RECORDED: budget.recorded(checked.need),
    }


def slug(name: str) -> str:
    """Return a name as it stands in a path: small letters, digits and dashes, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "job"


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _model(model: str) -> dict[str, Any]:
    """Describe a model folder without reading its weights; a hub name is described by itself."""
    folder = Path(model)
    if not folder.is_dir():
        return {"name": model, "revision": None}
    config = folder / "config.json"
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "name": model,
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else None,
        "weights": [{"file": path.name, "bytes": path.stat().st_size} for path in weights],
    }
