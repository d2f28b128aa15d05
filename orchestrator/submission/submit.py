"""From a job file to a queued job: checked, frozen, and recorded with its provenance."""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.model import run_plan as run_plans
from jobs.model.errors import InvalidInput, LqError, NotAllowed
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from orchestrator.core.app import App
from orchestrator.estimation import disk
from orchestrator.estimation.memory import smaller_stage
from orchestrator.model_files.examine import DEPENDS_ON, examine
from orchestrator.model_files.hashes import SUBMIT_S, FileHash, hash_files
from orchestrator.model_files.trainable import Finding
from orchestrator.store.groups import free_name
from orchestrator.submission import staging
from orchestrator.submission.data_check import check_data
from orchestrator.submission.predecessors import predecessors, require_predecessors
from orchestrator.submission.provenance import provenance
from workers.checkpoints import publishing
from workers.files.atomic import write_atomically, write_json

if TYPE_CHECKING:
    from configs.data_files import DataFacts
    from configs.load import LoadedJob, Sweep
    from jobs.estimates.disk import SpaceNeed
    from jobs.model.spec import JobSpec

_FEATURES = {f"{name}_feature" for name in ("prompt", "completion", "chat", "text")}
OF_DATA: dict[str, Any] = {
    **dict.fromkeys(["data", "hf_dataset", "batch_size", "test", "mask_prompt", *_FEATURES], True),
    **dict.fromkeys(["model", "max_seq_length"], True),
    "lq": {"objective"},
}
"""The keys that the check of the data depends on (data_check.py, configs/data_files.py, data_rows.py)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """A job that can be queued."""

    loaded: LoadedJob
    facts: DataFacts
    overwrites: Mapping[str, str]  # what the adapter may overwrite in adapter_path: sha256 by name
    need: SpaceNeed
    cautions: tuple[str, ...] = ()  # about the model, one line each
    retry_of: int | None = None  # the job whose settings it has, with changes

    @property
    def notes(self) -> tuple[str, ...]:
        """One line each, for the user."""
        unknown = disk.unknown(self.need)
        return (*self.loaded.notes, *self.facts.notes, *self.cautions, *((unknown,) if unknown is not None else ()))

    @property
    def model(self) -> str:
        """Folder of the model, or its name on the hub."""
        return self.loaded.spec.model

    def in_group(self, name: str) -> Checked:
        """Return the same job as a member of a group."""
        spec = self.loaded.spec
        spec = spec.model_copy(update={"lq": spec.lq.model_copy(update={"group": name})})
        return dataclasses.replace(self, loaded=dataclasses.replace(self.loaded, spec=spec))


def check(app: App, path: Path, *, overwrite: bool = False, sets: Sequence[str] = ()) -> list[Checked]:
    """Check a job file, its data and its model, and return its jobs; nothing is changed.

    Raises:
        InvalidInput: it cannot be trained.
        NotAllowed: another live job publishes to the same adapter_path, or it holds files and `overwrite` is false.
        HomeUnusable, StoreUnusable: the home cannot take it.
    """
    from configs.load import load_jobs

    checked: list[Checked] = []
    inputs = InputChecks(app)
    jobs = load_jobs(path, sets, defaults=app.settings().defaults)
    _require_own_adapter_paths(app, [loaded.spec for loaded in jobs])
    for loaded in jobs:
        checked.append(inputs.check(loaded, overwrites=overwritten(loaded, overwrite=overwrite)))
    return checked


class InputChecks:
    """Checks models and data. Jobs with the same model or data share one check: a sweep has a thousand jobs."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._facts: dict[str, DataFacts | InvalidInput] = {}
        self._findings: dict[str, list[Finding]] = {}

    def check(self, loaded: LoadedJob, *, overwrites: Mapping[str, str]) -> Checked:
        """Return a job whose model and data can be trained, with the disk space it needs.

        Raises:
            InvalidInput: they cannot; the message has one line for each fault.
        """
        findings = self._of_model(loaded)
        faults = [finding for finding in findings if finding.refused]
        facts = self._of_data(loaded, rendered=not any(fault.key == "model" for fault in faults))
        if isinstance(facts, InvalidInput) and not faults:
            raise facts
        if faults:
            lines = [_fault(loaded, fault) for fault in faults]
            raise InvalidInput("\n".join([*lines, str(facts)] if isinstance(facts, InvalidInput) else lines))
        assert not isinstance(facts, InvalidInput)
        valid = facts.files.get("valid.jsonl")
        need = disk.need_of(loaded.spec, valid_rows=valid.rows if valid is not None else 0)
        cautions = tuple(finding.text for finding in findings)
        return Checked(loaded=loaded, facts=facts, overwrites=overwrites, need=need, cautions=cautions)

    def _of_model(self, loaded: LoadedJob) -> list[Finding]:
        key = loaded.spec.model_dump_json(include=DEPENDS_ON)
        if key not in self._findings:
            self._findings[key] = examine(loaded.spec)
        return self._findings[key]

    def _of_data(self, loaded: LoadedJob, *, rendered: bool) -> DataFacts | InvalidInput:
        """Check the data; rows are rendered only if the model has what renders them."""
        from configs import data_files

        key = loaded.spec.model_dump_json(include=OF_DATA)
        named_in = (loaded.source, loaded.data_line)
        if key not in self._facts:
            try:
                if rendered:
                    self._facts[key] = check_data(self._app, loaded.spec, named_in)
                else:
                    self._facts[key] = data_files.check_data(loaded.spec, named_in)
            except InvalidInput as error:
                self._facts[key] = error
        return self._facts[key]


def _fault(loaded: LoadedJob, finding: Finding) -> str:
    from configs.errors import error_line

    return error_line(loaded.source, loaded.line_of(tuple(finding.key.split("."))), finding.text)


def check_all(
    app: App, paths: Sequence[Path], *, overwrite: bool = False, sets: Sequence[str] = (), space: bool = True
) -> list[Checked]:
    """Check several job files that are to be queued together, and that the disk has `space` for all of them.

    Raises:
        InvalidInput, NotAllowed: as `check`, with the mistakes of all files; or two publish to the same adapter_path.
    """
    checked: list[Checked] = []
    wrong: list[LqError] = []
    for path in paths:
        try:
            checked += check(app, path, overwrite=overwrite, sets=sets)
        except (InvalidInput, NotAllowed) as error:
            wrong.append(error)
    if wrong and len(paths) > 1:
        count = f"{len(wrong)} of {len(paths)} files cannot be queued, so none is"
        kinds = {type(error) for error in wrong}
        raise (kinds.pop() if len(kinds) == 1 else InvalidInput)("\n".join([*map(str, wrong), count]))
    if wrong:
        raise wrong[0]
    taken: dict[str | None, Path] = {}
    names: set[str] = set()
    for loaded in (job.loaded for job in checked):
        require_predecessors(app, loaded, names)
        names |= {loaded.spec.name, *filter(None, [loaded.spec.lq.group])}
        target, source = loaded.spec.adapter_path, loaded.source
        if target is not None and target in taken:
            raise NotAllowed(f"{source}: adapter_path {target} is already that of {taken[target]}; name another one")
        taken[target] = source
    if space:
        disk.require_space(app, [(job.loaded.source, job.need) for job in checked])
    return checked


def enqueue_all(app: App, checked: Sequence[Checked], *, inbox_sha256: str | None = None) -> list[Job]:
    """Queue checked jobs in one transaction: all of them appear, each with its folder, or none does.

    The jobs of a sweep become a group: the one its `lq.group` names, else a new one with the name of the file.
    """
    store = app.store  # makes the home if there is none
    files = {model: hash_files(model, app.home.cache, within_s=SUBMIT_S) for model in {job.model for job in checked}}
    with staging.opened(app.home.jobs) as staging_folder:
        while True:
            groups = _groups(app, checked)
            named = [job.in_group(groups[sweep]) if (sweep := job.loaded.sweep) else job for job in checked]
            folders = [write_folder(staging_folder, job, files[job.model]) for job in named]
            with store.transaction():  # short: only the names of the folders are left to do
                if _groups(app, checked) == groups:
                    _require_own_adapter_paths(app, [job.loaded.spec for job in named])
                    jobs = [_queued(app, *pair, inbox_sha256) for pair in zip(named, folders, strict=True)]
                    break
    for job in jobs:
        for message in store.outbox.messages(job.id):
            app.wakeup.wake_for_delivery(message.id)
    return jobs


def _groups(app: App, checked: Sequence[Checked]) -> dict[Sweep, str]:
    """Return the group of each sweep: the one it joins, else one with a name that no group ever had."""
    taken = set(app.store.groups.names())
    groups: dict[Sweep, str] = {}
    for sweep in dict.fromkeys(job.loaded.sweep for job in checked):
        if sweep is not None:
            groups[sweep] = sweep.joins or free_name(sweep.name, taken)
            taken.add(groups[sweep])
    return groups


def _queued(app: App, checked: Checked, folder: Path, inbox_sha256: str | None) -> Job:
    """Queue a job within a transaction; its filled folder gets its name."""
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


def _require_own_adapter_paths(app: App, specs: Sequence[JobSpec]) -> None:
    """Refuse a taken adapter_path early; the transaction that queues the jobs checks it again."""
    paths = [spec.adapter_path for spec in specs if spec.adapter_path is not None]
    if paths and app.home.store.exists():
        app.store.jobs.require_free_paths(paths)


def overwritten(loaded: LoadedJob, *, overwrite: bool) -> dict[str, str]:
    """Return the sha256, by name, of the files in adapter_path that may be overwritten.

    Raises:
        NotAllowed: it holds files and `overwrite` is False; or it is not a folder.
    """
    target = Path(loaded.spec.adapter_path) if loaded.spec.adapter_path is not None else None
    if target is None:
        return {}
    if target.exists() and not target.is_dir():
        raise NotAllowed(f"{loaded.source}: adapter_path {target} is not a folder; name another one")
    present = publishing.in_the_way(target)
    if present and not overwrite:
        job_id = publishing.origin(target).get("job")
        by = f" of job {job_id}" if job_id is not None else ""
        raise NotAllowed(
            f"{loaded.source}: adapter_path {target} holds {present[0].name}{by}; "
            "name another folder, or let it be replaced with --overwrite"
        )
    return {path.name: sha256 for path in present if (sha256 := publishing.sha256_of(path)) is not None}


def write_folder(staging_folder: Path, checked: Checked, files: Sequence[FileHash]) -> Path:
    """Return a new folder with the first files of a job's folder; `files` are the model's."""
    from configs.load import dump_job

    spec, folder = checked.loaded.spec, Path(tempfile.mkdtemp(dir=staging_folder))
    write_atomically(JobDir(folder).config, dump_job(spec))
    write_json(JobDir(folder).provenance, provenance(checked, files))
    write_json(JobDir(folder).run_plan, run_plans.to_json(run_plans.RunPlan.requested(spec)))
    return folder


def slug(name: str) -> str:
    """Return a name for use in a path: lower-case letters, digits and dashes, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "job"
