"""`lq edit`: the settings of a job that never ran, replaced as if it had been submitted so.

The job is held from the first look at its text until the new one is taken or not. Its spec, folder, run plan and
predecessors change in one transaction: the new files lie in a folder of their own, and the job's row says which folder
is its own. A killed lq leaves the job as it was, but held, with a reason that says what to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.data_files import check_data
from configs.full_text import full_text
from configs.load import JobText, LoadedJob, load_jobs
from jobs.model.errors import ConfigInvalid, InvalidInput
from jobs.model.job import Job
from jobs.model.spec import JobSpec
from orchestrator.core.app import App
from orchestrator.estimation import disk as budget
from orchestrator.submission import staging, submit
from orchestrator.submission.submit import Checked
from workers.checkpoints import publishing
from workers.files.atomic import write_json
from workers.files.job_dir import JobDir

_SHOWN = 40  # characters of a value in what is told of a change


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
    """A job held for an edit."""

    was: Job  # before it was held
    spec: JobSpec
    text: str  # what there is to edit
    left: str | None  # what an earlier edit made of it, where that was not taken

    @property
    def file(self) -> Path:
        """Where the text is edited, and stays where it is not taken."""
        return JobDir(Path(self.was.job_dir)).edited


@contextmanager
def opened(app: App, job_id: int) -> Iterator[Edit]:
    """Hold a job for an edit, and give it its place back in the end, however that comes.

    Raises:
        NotAllowed: it has run, has ended, or is being edited already.
    """
    was = app.store.edits.begin(job_id)
    try:
        spec = JobSpec.model_validate_json(app.store.jobs.spec_json(job_id))
        file = JobDir(Path(was.job_dir)).edited
        left = file.read_text(errors="replace") if file.exists() else None
        yield Edit(was=was, spec=spec, text=_headed(was, spec), left=left)
    finally:
        app.store.edits.abandon(was)


def _headed(job: Job, spec: JobSpec) -> str:
    return (
        f"# Job {job.id}: save and close to take it so, close without a change to leave it as it is.\n"
        "# What begins with # is the default. Relative paths start where you typed lq edit.\n"
        f"{full_text(spec)}"
    )


def checked(app: App, edit: Edit, content: bytes, *, overwrite: bool) -> Checked:
    """Check a new text as a submit would.

    Args:
        app: the store.
        edit: of the job.
        content: the new text.
        overwrite: whether the adapter may overwrite what lies in another adapter_path than before.

    Raises:
        InvalidInput, NotAllowed: it cannot be taken.
    """
    loaded, *others = load_jobs(JobText(name=edit.file.name, content=content))
    if others:
        raise ConfigInvalid(f"{loaded.source}: a matrix makes several jobs, and this is one; submit it as a file")
    facts = check_data(loaded.spec)
    submit.require_predecessors(app, loaded, ())
    _require_no_circle(app, edit.was, loaded)
    path = loaded.spec.adapter_path
    if path is not None:
        app.store.jobs.require_free_paths([path], besides=edit.was.id)
    agreed = path == edit.spec.adapter_path and not overwrite
    overwrites = _agreed(edit.was) if agreed else submit.overwritten(loaded, overwrite=overwrite)
    found = submit.checked_job(loaded, facts, overwrites=overwrites)
    (shortage,) = budget.shortages(app, [found.need], queued=[edit.was.id])
    if shortage is not None:
        raise InvalidInput(f"{loaded.source}: {shortage}")
    return found


def take(app: App, edit: Edit, new: Checked, now: float) -> Job:
    """Let a job be what its new text says.

    Args:
        app: the store.
        edit: of the job.
        new: the text, checked.
        now: unix seconds.

    Raises:
        NotAllowed: the job was let go on meanwhile, or its adapter_path was taken.
    """
    spec, before = new.loaded.spec, Path(edit.was.job_dir)
    with staging.opened(app.home.jobs) as staging_folder:
        folder = staging_folder.filled(lambda place: _fill(place, edit, new))
        with app.store.transaction():
            app.store.edits.apply(
                edit.was.id,
                name=spec.name,
                iters=spec.iters,
                priority=spec.lq.priority if spec.lq.priority != edit.spec.lq.priority else None,
                group=spec.lq.group,
                spec_json=spec.model_dump_json(),
                stage=submit.known_to_fit(app, spec),
                after=submit.predecessors(app, spec),
                adapter_path=spec.adapter_path,
                prepare=lambda job_id: staging.moved_beside(
                    folder, app.home.jobs, f"{job_id}-{submit.slug(spec.name)}"
                ),
                now=now,
            )
            job = app.store.edits.abandon(edit.was)
    shutil.rmtree(before, ignore_errors=True)  # it never ran, so nothing else lies there
    return job


def changes(old: JobSpec, new: JobSpec) -> list[str]:
    """Return what an edit changed, as `iters 600 -> 900`."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    keys = [key for key in (after | before) if before.get(key) != after.get(key)]
    return [f"{key} {_shown(before.get(key))} -> {_shown(after.get(key))}" for key in keys]


def _fill(folder: Path, edit: Edit, new: Checked) -> None:
    """Write what the job's folder holds; where it came from stays in its provenance, beside the edit."""
    submit.write_folder(folder, new)
    path = JobDir(folder).provenance
    told = json.loads(path.read_text())
    sha256 = hashlib.sha256(new.loaded.content).hexdigest()
    edits = [*_provenance(edit.was).get("edits", []), {"time": time.time(), "sha256": sha256}]
    submitted = _provenance(edit.was).get("submitted", told["submitted"])
    write_json(path, told | {"submitted": submitted, "edits": edits})


def _require_no_circle(app: App, job: Job, loaded: LoadedJob) -> None:
    """Refuse a job that would come after itself."""
    wants: dict[int, set[int]] = {}
    for one in app.store.dependencies.find():
        wants.setdefault(one.job_id, set()).add(one.on)
    reached: set[int] = set()
    ahead = {job_id for job_id, _ in submit.predecessors(app, loaded.spec)}
    while ahead:
        reached |= ahead
        ahead = {on for one in ahead for on in wants.get(one, ())} - reached
    if job.id in reached:
        raise InvalidInput(f"{loaded.source}: lq.after: job {job.id} would come after itself; name other jobs")


def _agreed(job: Job) -> Mapping[str, str]:
    agreed = _provenance(job).get(publishing.AGREED)
    return agreed if isinstance(agreed, dict) else {}


def _provenance(job: Job) -> Mapping[str, Any]:
    try:
        content = json.loads(JobDir(Path(job.job_dir)).provenance.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _flat(value: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{under}{key}.") if isinstance(item, dict) else {f"{under}{key}": item}
    return found


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
