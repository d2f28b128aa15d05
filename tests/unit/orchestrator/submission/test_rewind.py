"""retry --fresh and --from: what is given up, what counts again, and what is refused."""

from __future__ import annotations

import pytest

from jobs.model.job import Job
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.submission.rewind import rewind_to
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import WORKER, Home, Seen
from tests.unit.orchestrator.job_files import BATCH, damage, save
from workers.checkpoints import storage
from workers.checkpoints.adapters import place

SEEN = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)


@pytest.fixture
def failed(home: Home) -> Job:
    """Give a job that failed at iteration 500, with checkpoints of three iterations."""
    job = home.ended(Status.FAILED, Reason.CRASHED, seen=SEEN)
    for iteration in (100, 300, 500):
        save(job, iteration)
    return job


def stages(home: Home, job_id: int) -> list[Stage]:
    """Return the run plan."""
    return list(home.store.run_plans.get(job_id, home.store.spec(job_id)).stages)


def usable(home: Home, job: Job) -> list[int]:
    """Return the iterations of the checkpoints that a trainer could go on from."""
    spec = home.store.spec(job.id)
    found = storage.valid(job.dir.checkpoints, home.store.run_plans.get(job.id, spec))
    return [one.iteration for one in found]


def test_fresh_uses_no_earlier_training(home: Home, here: InProcess, failed: Job) -> None:
    said = here("retry", failed.id, "--fresh").out
    assert "begins again at iteration 0; 500 iterations" in said
    job = home.store.jobs.get(failed.id)
    assert (job.status, job.iteration, job.train_loss, job.val_loss) == (Status.QUEUED, 0, None, None)
    assert (home.store.metrics.points(job.id), home.store.metrics.validations(job.id)) == ([], [])
    assert len(home.store.metrics.points(job.id, superseded=True)) == 1
    assert usable(home, job) == []
    assert "beginning" in stages(home, job.id)[-1].because
    (told,) = home.store.incidents.of(job.id)
    assert told.text.startswith("lq retry 1 --fresh: ")
    assert "500 iterations" in told.text
    assert told.text in " ".join(here("show", job.id, "--verbose").out.split())


def test_from_resumes_a_kept_checkpoint(home: Home, here: InProcess, failed: Job) -> None:
    harder = stages(home, failed.id)[0].continued(
        400 * BATCH, because="spike", salt=1, warmup_updates=50, first_update=400, rollback=1, ends=True
    )
    home.store.run_plans.append(failed.id, harder, 1.0)
    out = here("retry", failed.id, "--from", 300).out
    assert "goes on from iteration 300; 200 iterations" in out
    assert usable(home, failed) == [100, 300]
    last = stages(home, failed.id)[-1]
    assert (last.first_example, last.salt, last.rollback, last.ends) == (300 * BATCH, 1, 0, False)
    assert last.first_update == 300, "a warm-up begins with the run"


def test_quarantined_rows_stay_out(home: Home, app: App, failed: Job) -> None:
    home.store.run_plans.append(failed.id, stages(home, failed.id)[0].continued(4, because="x", quarantined=(7,)), 1.0)
    assert rewind_to(app, failed, 0).stage.quarantined == (7,)
    assert rewind_to(app, failed, 0).stage.salt == 0


def test_missing_checkpoint_is_refused(home: Home, here: InProcess, failed: Job) -> None:
    folder = failed.dir
    folder.adapters.mkdir()
    place(
        folder.checkpoints / "step-0000100" / "adapters.safetensors",
        folder.adapters / "0000200_adapters.safetensors",
        link=True,
    )
    said = here("retry", failed.id, "--from", 150, expect=5).err
    assert "no checkpoint of iteration 150" in said
    assert said.endswith("100, 300, 500; or --fresh\n")
    alone = here("retry", failed.id, "--from", 200, expect=5).err
    assert "for a new job: resume_adapter_file: " in alone
    damage(folder.checkpoints / "step-0000300" / "optimizer.safetensors")
    assert "kept are 100, 500; or --fresh" in here("retry", failed.id, "--from", 300, expect=5).err
    home.store.run_plans.append(failed.id, stages(home, failed.id)[0].continued(200 * BATCH, because="spike"), 1.0)
    behind = here("retry", failed.id, "--from", 500, expect=5).err
    assert "back before it; kept are 100;" in behind
    for words in (["--fresh", "--from", 100], ["--from", 0], ["--from", "soon"]):
        here("retry", failed.id, *words, expect=2)
    assert (home.store.jobs.get(failed.id).status, home.store.incidents.of(failed.id)) == (Status.FAILED, [])


def test_one_refusal_rewinds_no_job(home: Home, here: InProcess, failed: Job) -> None:
    other = home.ended(Status.FAILED, Reason.CRASHED, seen=SEEN)
    here("retry", failed.id, other.id, "--from", 100, expect=5)
    assert {home.store.jobs.get(one.id).status for one in (failed, other)} == {Status.FAILED}
    running = home.running()
    here("retry", running.id, "--fresh", expect=5)


def test_job_that_never_ran_is_queued(home: Home, here: InProcess) -> None:
    job = home.cancelled()
    assert "begins again at iteration 0" in here("retry", job.id, "--fresh").out
    assert home.store.incidents.of(job.id) == []
    assert len(stages(home, job.id)) == 1


def test_given_up_progress_counts_again(home: Home, here: InProcess, failed: Job) -> None:
    here("retry", failed.id, "--fresh", "-q")
    assert home.store.leases.claim(WORKER, 1.0) is not None
    attempt = home.store.attempts.begin(failed.id, owner=WORKER, now=1.0)
    with home.store.database.writing() as db:
        reached = "UPDATE attempts SET first_iteration = 0, last_iteration = 120 WHERE id = ?"
        db.exec_driver_sql(reached, (attempt.id,))
    ending = Ending(outcome=Outcome.CRASHED, reason=Reason.CRASHED, detail="x")
    home.store.attempts.end(attempt.id, ending=ending, exit_code=1, signal=None, now=2.0)
    home.store.leases.settle(
        failed.id,
        Decision(status=Status.FAILED, reason=Reason.CRASHED, detail="x"),
        owner=WORKER,
        now=2.0,
    )
    assert [crash.gained for crash in home.store.attempts.crashes(failed.id)] == [120]
