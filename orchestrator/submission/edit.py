"""`lq edit`: replaces the settings of a job that never ran, as if it had been submitted with them.

lq holds the job from the first look at its text until the new one is applied or rejected. Its spec, folder, run plan
and predecessors change in one transaction: the new files are in a folder of their own, and the job's row names the
folder. A killed lq leaves the job as it was, but held, with a reason that says what to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.load import JobText, full_text, load_jobs
from jobs.model.errors import ConfigInvalid, InvalidInput
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.spec import JobSpec
from orchestrator.core.app import App
from orchestrator.estimation import disk
from orchestrator.estimation.memory import smaller_stage
from orchestrator.model_files.hashes import SUBMIT_S, FileHash, hash_files
from orchestrator.submission import provenance, staging, submit
from orchestrator.submission.predecessors import predecessors, require_no_circle, require_predecessors
from orchestrator.submission.submit import Checked
from workers.checkpoints import publishing
from workers.files.atomic import write_json

_SHOWN = 40  # characters of a value in a change
_HEAD = """\
# Job {}: save and close to apply, close without a change to leave it as it is.
# Lines that begin with # are defaults. Relative paths start in the folder in which you ran lq edit.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
    """A job held for an edit."""

    was: Job  # before it was held
    spec: JobSpec
    text: str  # the text to edit
    left: str | None  # the text of an earlier edit that was not applied

    @property
    def file(self) -> Path:
        """The file with the edited text; it stays if the text is not applied."""
        return self.was.dir.edited


@contextmanager
def opened(app: App, job_id: int) -> Iterator[Edit]:
    """Hold a job for an edit, and put it back into its place at the end.

    Raises:
        NotAllowed: it has run, has ended, or is being edited already.
    """
    was = app.store.edits.begin(job_id)
    try:
        spec, file = app.store.spec(job_id), was.dir.edited
        left = file.read_text(errors="replace") if file.exists() else None
        yield Edit(was=was, spec=spec, text=_HEAD.format(job_id) + full_text(spec), left=left)
    finally:
        app.store.edits.abandon(was)


def checked(app: App, edit: Edit, content: bytes, *, overwrite: bool) -> Checked:
    """Check a new text as a submit does; `overwrite` concerns the files in an adapter_path that the edit changes.

    Raises:
        InvalidInput, NotAllowed: it cannot be applied.
    """
    loaded, *others = load_jobs(JobText(name=edit.file.name, content=content))
    if others:
        raise ConfigInvalid(f"{loaded.source}: a matrix makes several jobs, and this is one; submit it as a file")
    require_predecessors(app, loaded, ())
    require_no_circle(app, edit.was, loaded)
    path = loaded.spec.adapter_path
    if path is not None:
        app.store.jobs.require_free_paths([path], besides=edit.was.id)
    if path == edit.spec.adapter_path and not overwrite:
        agreed = provenance.read(edit.was).get(publishing.AGREED)
        overwrites = agreed if isinstance(agreed, dict) else {}
    else:
        overwrites = submit.overwritten(loaded, overwrite=overwrite)
    new = submit.InputChecks(app).check(loaded, overwrites=overwrites)
    (shortage,) = disk.shortages(app, [new.need], queued=[edit.was.id])
    if shortage is not None:
        raise InvalidInput(f"{loaded.source}: {shortage}")
    return new


def apply(app: App, edit: Edit, new: Checked, now: float) -> Job:
    """Give a job its new settings.

    Raises:
        NotAllowed: the job was released meanwhile, or its adapter_path was taken.
    """
    spec, before = new.loaded.spec, edit.was.dir.path
    name = f"{edit.was.id}-{submit.slug(spec.name)}"
    with staging.opened(app.home.jobs) as staging_folder:
        folder = _filled(staging_folder, edit, new, hash_files(new.model, app.home.cache, within_s=SUBMIT_S))
        with app.store.transaction():
            app.store.edits.apply(
                edit.was.id,
                name=spec.name,
                iters=spec.iters,
                priority=spec.lq.priority if spec.lq.priority != edit.spec.lq.priority else None,
                group=spec.lq.group,
                spec_json=spec.model_dump_json(),
                stage=smaller_stage(app.store, spec),
                after=predecessors(app, spec),
                adapter_path=spec.adapter_path,
                prepare=lambda _: staging.moved_beside(folder, app.home.jobs, name),
                now=now,
            )
            job = app.store.edits.abandon(edit.was)
    shutil.rmtree(before, ignore_errors=True)  # the job never ran, so the folder holds nothing else
    return job


def _filled(staging_folder: Path, edit: Edit, new: Checked, files: Sequence[FileHash]) -> Path:
    """Return a new folder of the job; its provenance keeps where the job came from, and lists the edits."""
    folder = submit.write_folder(staging_folder, new, files)
    path, before = JobDir(folder).provenance, provenance.read(edit.was)
    content = json.loads(path.read_text())
    sha256 = hashlib.sha256(new.loaded.content).hexdigest()
    edits = [*before.get("edits", []), {"time": time.time(), "sha256": sha256}]
    write_json(path, content | {"submitted": before.get("submitted", content["submitted"]), "edits": edits})
    return folder


def changes(old: JobSpec, new: JobSpec) -> list[str]:
    """Return the changes of an edit, as `iters 600 -> 900`."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    keys = [key for key in (after | before) if before.get(key) != after.get(key)]
    return [f"{key} {_shown(before.get(key))} -> {_shown(after.get(key))}" for key in keys]


def _flat(value: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{under}{key}.") if isinstance(item, dict) else {f"{under}{key}": item}
    return flat


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
