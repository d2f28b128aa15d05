"""`lq retry --fresh` and `--from`: give up what was trained after an iteration, and train again from there.

It works like a rollback: a stage that begins at the iteration is appended to the run plan, so later checkpoints are off
the plan and are never used, and their reports are superseded, all in the transaction that queues the job. The
trainer starts from the newest checkpoint on the run plan, or from the beginning if there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jobs.model.errors import CheckpointInvalid, NotAllowed
from jobs.model.job import Incident, Job
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from orchestrator.core.app import App
from orchestrator.estimation.memory import smaller_stage
from orchestrator.model_files.hashes import hash_files, record_files
from orchestrator.store.attempts import USER_WENT_BACK
from workers.checkpoints import pruning, storage
from workers.checkpoints.storage import Checkpoint

_MOST_NAMED = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewind:
    """Where a job begins again."""

    stage: Stage
    iteration: int  # completed; 0 for the beginning
    given_up: int  # iterations
    text: str  # one line, printed after "job 3 queued; "


def rewind_to(app: App, job: Job, iteration: int) -> Rewind:
    """Return the rewind of a failed or cancelled job to the iteration of a kept checkpoint, or to 0, the beginning.

    Raises:
        NotAllowed: no intact checkpoint of that iteration is kept; the text names those that are.
    """
    spec = app.store.spec(job.id)
    run_plan = app.store.run_plans.get(job.id, spec)
    given_up = max(0, job.iteration - iteration)
    lost = f"; {given_up:,} iterations are given up" if given_up else ""
    if iteration == 0:
        stage, text = from_the_beginning(app, spec, run_plan), "begins again at iteration 0"
    else:
        stage = from_checkpoint(kept_checkpoint(job, run_plan, iteration), run_plan)
        text = f"goes on from iteration {iteration:,}"
    return Rewind(stage=stage, iteration=iteration, given_up=given_up, text=f"{text}{lost}")


def requeue(app: App, job: Job, rewind: Rewind, now: float) -> Job:
    """Queue a rewound job; the caller opens the transaction."""
    app.store.jobs.retry(job.id, now)
    if rewind.iteration == 0:  # the job begins with the model as it is now
        record_files(job.dir, hash_files(app.store.spec(job.id).model, app.home.cache))
    if job.attempts:
        app.store.run_plans.roll_back(job.id, rewind.stage, rewind.iteration, _incident(job, rewind, now), now=now)
    return app.store.jobs.get(job.id)


def _incident(job: Job, rewind: Rewind, now: float) -> Incident:
    start = f"iteration {rewind.iteration:,}" if rewind.iteration else "the beginning"
    option = f"--from {rewind.iteration}" if rewind.iteration else "--fresh"
    return Incident(
        job_id=job.id,
        attempt=job.attempts,
        time=now,
        code=USER_WENT_BACK,
        text=f"lq retry {job.id} {option}: again from {start}; {rewind.given_up:,} iterations given up",
        evidence={"back_to": rewind.iteration, "iterations_given_up": rewind.given_up},
    )


def from_the_beginning(app: App, spec: JobSpec, run_plan: RunPlan) -> Stage:
    """Return the requested stage, with the settings that are known to fit and without the quarantined rows."""
    stage = smaller_stage(app.store, spec) or RunPlan.requested(spec).stages[0]
    learned = "" if stage.because == "requested" else f"; {stage.because}"
    return dataclasses.replace(
        stage,
        quarantined=run_plan.stages[-1].quarantined,  # they would make the loss non-finite again
        because=f"the user went back to the beginning{learned}",
    )


def from_checkpoint(checkpoint: Checkpoint, run_plan: RunPlan) -> Stage:
    """Return the stage of a run that resumes from a checkpoint under its last settings."""
    updates = checkpoint.state().updates
    last = run_plan.stages[-1]
    return last.continued(
        run_plan.example_of(checkpoint.iteration),
        because=f"the user went back to iteration {checkpoint.iteration:,}",
        first_update=min(last.first_update, updates),  # otherwise a warm-up would wait for its first update
        ends=False,
    )


def kept_checkpoint(job: Job, run_plan: RunPlan, iteration: int) -> Checkpoint:
    """Return the checkpoint of an iteration if it is intact and on the run plan; raise NotAllowed if not."""
    job_dir = job.dir
    checkpoints = storage.listed(job_dir.checkpoints)
    on_run_plan = [checkpoint for checkpoint in checkpoints if _is_on(run_plan, checkpoint)]
    wanted = next((checkpoint for checkpoint in checkpoints if checkpoint.iteration == iteration), None)
    if wanted is None or wanted not in on_run_plan:
        why = "is kept" if wanted is None else "can be gone on from: the run had gone back before it"
        instead = _instead(job_dir, on_run_plan, iteration)
        raise NotAllowed(f"job {job.id}: no checkpoint of iteration {iteration} {why}; {instead}")
    try:
        storage.verify(wanted)
    except CheckpointInvalid as error:
        others = [checkpoint for checkpoint in on_run_plan if checkpoint != wanted]
        raise NotAllowed(f"job {job.id}: {error}; {_instead(job_dir, others, iteration)}") from error
    return wanted


def _is_on(run_plan: RunPlan, checkpoint: Checkpoint) -> bool:
    try:
        return storage.is_on(run_plan, checkpoint)
    except CheckpointInvalid:
        return False


def _instead(job_dir: JobDir, kept: Sequence[Checkpoint], iteration: int) -> str:
    """Return which iterations are kept instead; for an adapter without its optimizer, how to use it."""
    adapter = job_dir.adapters / f"{iteration:07d}_adapters.safetensors"
    alone = f"its adapter is, without the optimizer, for a new job: resume_adapter_file: {adapter}; "
    alone = alone if iteration in pruning.kept_adapters(job_dir) else ""
    if not kept:
        return f"{alone}none is kept, so: --fresh"
    named = [f"{checkpoint.iteration}" for checkpoint in kept[-_MOST_NAMED:]]
    more = f"{len(kept) - _MOST_NAMED} earlier ones, " if len(kept) > _MOST_NAMED else ""
    return f"{alone}kept are {more}{', '.join(named)}; or --fresh"
