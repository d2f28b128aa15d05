"""`lq retry --set` and `lq extend`: a job that has ended is trained again with other settings, or goes on.

A retry with other settings is a new job: it starts at iteration 0, or with the weights of a checkpoint but without its
optimizer. The old job stays as it is, so the two can be compared. An extension is the same job with more iterations: it
resumes exactly from its last checkpoint, so it ends like a job that was submitted with that many.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from configs.load import JobText, dump_job, load_jobs
from jobs.model.errors import ConfigInvalid, InvalidInput, NotAllowed
from jobs.model.job import Incident, Job
from jobs.model.outcomes import Reason
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from jobs.model.states import ENDED, RETRIABLE, Status
from orchestrator.core.app import App
from orchestrator.estimation import disk
from orchestrator.submission import rewind, submit
from orchestrator.submission.edit import changes
from orchestrator.submission.provenance import valid_rows
from orchestrator.submission.submit import Checked
from workers.checkpoints import publishing, storage
from workers.files.atomic import write_atomically

EXTENDED = "extended"
"""The code of the incident that `lq extend` records."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changed:
    """A new job with the settings of an ended one, except for some."""

    job: Job  # the ended one
    checked: Checked
    changes: list[str]  # as `iters 600 -> 900`


def changed(app: App, job: Job, sets: tuple[str, ...], *, iteration: int | None) -> Changed:
    """Check the settings of an ended job with changes, as a submit does.

    Args:
        sets: `key=value` each.
        iteration: of the checkpoint whose weights the new job starts with; None to start like the ended job did.

    Raises:
        InvalidInput, NotAllowed: the job has not ended, or it cannot be trained with these settings.
    """
    if job.status not in ENDED:
        raise NotAllowed(f"job {job.id} is {job.status}; with --set, only jobs that have ended can be retried")
    before = app.store.spec(job.id)
    if iteration is not None:
        weights = rewind.kept_checkpoint(job, app.store.run_plans.get(job.id, before), iteration).adapters
        sets = (*sets, f"resume_adapter_file={weights}")
    loaded, *others = load_jobs(JobText(name=f"job {job.id}", content=dump_job(before).encode()), sets)
    if others:
        raise ConfigInvalid("--set lq.matrix: a retry makes one job; submit a file with the matrix")
    done = loaded.spec.lq.model_copy(update={"after": (), "after_any": ()})  # they have ended
    loaded = dataclasses.replace(loaded, spec=loaded.spec.model_copy(update={"lq": done}))
    found = [change for change in changes(before, loaded.spec) if not change.startswith("lq.after")]
    if not found:
        raise InvalidInput(f"--set changes nothing: job {job.id} has these settings; see: lq show {job.id}")
    target = loaded.spec.adapter_path
    own = target is not None and publishing.origin(Path(target)).get("job") == job.id
    overwrites = submit.overwritten(loaded, overwrite=own)
    new = submit.InputChecks(app).check(loaded, overwrites=overwrites)
    return Changed(job=job, checked=dataclasses.replace(new, retry_of=job.id), changes=found)


def enqueue(app: App, changed: list[Changed]) -> list[Job]:
    """Queue the new jobs, or none of them if one cannot be queued."""
    disk.require_space(app, [(one.checked.loaded.source, one.checked.need) for one in changed])
    return submit.enqueue_all(app, [one.checked for one in changed])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extension:
    """More iterations for a job that has succeeded."""

    job: Job
    spec: JobSpec  # with more iterations
    resumes: int  # iteration of the checkpoint that it resumes from; 0 for the beginning
    stage: Stage | None  # to append, if that is not the newest checkpoint
    note: str | None  # what the schedule means for the new iterations


def extension(app: App, job: Job, iters: int) -> Extension:
    """Check that a job can go on to `iters` iterations.

    Raises:
        InvalidInput: it has as many already, or its learning rate has ended at 0.
        NotAllowed: it has not succeeded, was ended early, or has no checkpoint.
    """
    again = f"lq retry {job.id} --set iters={iters}"
    if job.status is not Status.SUCCEEDED:
        hint = f"; lq retry {job.id}" if job.status in RETRIABLE else ""
        raise NotAllowed(f"job {job.id} is {job.status}; only jobs that have succeeded can be extended{hint}")
    if job.reason == Reason.EARLY_STOPPED:
        raise NotAllowed(f"job {job.id} was ended by lq.early_stop; {again} --set lq.early_stop=null")
    if iters <= job.iters:
        raise InvalidInput(f"--iters {iters}: job {job.id} has {job.iters} iterations already; give a larger number")
    spec = app.store.spec(job.id).model_copy(update={"iters": iters})
    run_plan = app.store.run_plans.get(job.id, spec)
    kept = storage.valid(job.dir.checkpoints, run_plan)
    if not kept:
        raise NotAllowed(f"job {job.id}: its checkpoints were deleted, so it cannot go on; {again}")
    # an end within an update drops the gradients that were accumulated since the last one
    usable = [checkpoint for checkpoint in kept if checkpoint.iteration % spec.grad_accumulation_steps == 0]
    stage = None
    if not usable:
        stage = rewind.from_the_beginning(app, spec, run_plan)
    elif usable[-1] is not kept[-1]:
        stage = rewind.from_checkpoint(usable[-1], run_plan)
    disk.require_space(app, [(job.dir.config, disk.need_of(spec, valid_rows=valid_rows(job) or 0))])
    resumes, note = usable[-1].iteration if usable else 0, _schedule_note(job, spec, again)
    return Extension(job=job, spec=spec, resumes=resumes, stage=stage, note=note)


def _schedule_note(job: Job, spec: JobSpec, again: str) -> str | None:
    """Return what a schedule with an end means for the new iterations.

    Raises:
        InvalidInput: it ended at 0, so the new iterations would change nothing.
    """
    schedule, each = spec.lr_schedule, spec.grad_accumulation_steps
    if schedule is None or schedule.length is None or schedule.length >= spec.iters // each:
        return None
    longer = f"{again} --set 'lr_schedule.arguments[{schedule.length_argument}]={spec.iters // each - schedule.warmup}'"
    if schedule.last_rate == 0 and schedule.length <= job.iters // each:
        raise InvalidInput(
            f"job {job.id}: its lr_schedule ends after {schedule.length:,} updates with a learning rate of 0, so more "
            f"iterations would change nothing; train again with a longer schedule: {longer}"
        )
    return (
        f"lr_schedule ends after {schedule.length:,} updates; from there on the learning rate is "
        f"{schedule.last_rate:g}. For a longer schedule: {longer}"
    )


def extend(app: App, extension: Extension) -> Job:
    """Queue a job again with more iterations: its row and its config.yaml change together."""
    job, spec, now = extension.job, extension.spec, time.time()
    incident = Incident(
        job_id=job.id,
        attempt=job.attempts,
        time=now,
        code=EXTENDED,
        text=f"lq extend {job.id} --iters {spec.iters}: from {job.iters:,} to {spec.iters:,} iterations",
        evidence={"iteration": job.iters, "iters": spec.iters},
    )
    return app.store.edits.extend(
        job,
        iters=spec.iters,
        spec_json=spec.model_dump_json(),
        adapter_path=spec.adapter_path,
        back_to=(extension.stage, extension.resumes) if extension.stage is not None else None,
        incident=incident,
        prepare=lambda: write_atomically(job.dir.config, dump_job(spec)),
    )
