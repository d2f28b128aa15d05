"""A kill at any file operation between writing a checkpoint and deleting an old one loses nothing.

A child process forks itself for each operation. The fork writes a checkpoint, verifies it and prunes, as a trainer and
its worker do, and Python's audit hook kills it before its n-th change of the disk.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = '''
import json, os, shutil, signal, sys
from pathlib import Path
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec, Keep, LqSpec
from tests.unit.workers.tensor_files import holding, state_at
from workers.checkpoints import storage as checkpoints
from jobs.model.job_dir import JobDir
from workers.checkpoints.pruning import kept_adapters, prune

SPEC = JobSpec(iters=100, lq=LqSpec(keep=Keep(last=2, best=1, milestones="20%")))
RUN_PLAN = RunPlan.requested(SPEC)
CHANGES = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod"}


def save(folder, iteration, loss):
    def fill(where):
        for name in (checkpoints.ADAPTERS, checkpoints.OPTIMIZER):
            (where / name).write_bytes(holding(str(iteration).encode()))
        return state_at(iteration, examples=iteration * SPEC.batch_size, loss=loss)
    checkpoints.write(folder.checkpoints, iteration, fill)


def step(folder):
    """Save 60 and prune; 20 is the best, 40 and 50 are the last two, 40 is a milestone that is deleted."""
    save(folder, 60, 2.0)
    prune(folder, SPEC, RUN_PLAN)


def killed_at(number, folder):
    """Do a step, killed before the n-th change; return whether it completed."""
    pid = os.fork()
    if pid == 0:
        changes = 0
        def hook(event, arguments):
            nonlocal changes
            writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
            if event in CHANGES and writes:
                changes += 1
                if changes == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        try:
            step(folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def standing(folder):
    good = {}
    for checkpoint in checkpoints.listed(folder.checkpoints):
        checkpoints.verify(checkpoint)  # every named checkpoint is complete
        good[checkpoint.iteration] = checkpoint.state().validation_loss
    return good


scratch, before = Path(sys.argv[1]), Path(sys.argv[1]) / "before"
before.mkdir()
for iteration, loss in ((20, 1.0), (40, 2.0), (50, 2.0)):
    save(JobDir(before), iteration, loss)
number, moments = 0, set()
while True:
    number += 1
    folder = JobDir(scratch / "job")
    shutil.copytree(before, folder.path)
    ended = killed_at(number, folder)
    good = standing(folder)
    assert {20, 50} <= set(good), f"change {number}: lost {sorted(good)}"
    assert 60 in good or 40 in good, f"change {number}: only one of the last two is left: {sorted(good)}"
    assert 40 in good or 40 in kept_adapters(folder), f"change {number}: the milestone is lost"
    moments.add((60 in good, 40 in kept_adapters(folder), 40 in good))
    checkpoints.sweep(folder.checkpoints)  # the next attempt
    newest, bad = checkpoints.newest_valid(folder.checkpoints, RUN_PLAN)
    assert (newest.iteration, bad) == (max(good), [])
    step(folder)  # the next attempt saves and prunes
    assert sorted(standing(folder)) == [20, 50, 60]
    assert kept_adapters(folder) == {20, 40, 60}
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [f"step-00000{n}" for n in (20, 50, 60)]
    shutil.rmtree(folder.path)
    if ended:
        break
print(json.dumps({"instants": number - 1, "moments": sorted(moments)}))
'''

RENAMED, LINKED, DELETED = [True, False, True], [True, True, True], [True, True, False]
"""(the new checkpoint is named, the milestone's adapter is kept, the old checkpoint exists)"""


def test_kill_at_any_change_loses_nothing(tmp_path: Path) -> None:
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, tmp_path], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"instants": ' in done.stdout
    for moment in ([False, False, True], RENAMED, LINKED, DELETED):
        assert str(moment).lower() in done.stdout, f"no kill fell between {moment} and the next moment: {done.stdout}"
