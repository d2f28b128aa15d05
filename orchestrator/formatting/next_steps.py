"""The commands that follow for a job in each state, and the fix for each reason of a failure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from jobs.model.outcomes import Reason
from jobs.model.states import Status

_READ_OUTPUT = "read the output of the trainer with `lq logs {id} --output`, then remove its cause"
_RETRY, _RESUBMIT = "lq retry {id}", "lq submit {config}"

_FIXES: Mapping[str, tuple[str, str]] = {
    Reason.DATA_INVALID: ("correct the data at the place that the cause names", _RETRY),
    Reason.CONFIG_INVALID: ("correct the setting that the cause names in a copy of the job file", _RESUBMIT),
    Reason.MODEL_MISSING: ("put the model where the job file says, or connect to the hub", _RETRY),
    Reason.DEPENDENCY_FAILED: ("fix the job that this one waits for", _RESUBMIT),
    Reason.OUT_OF_MEMORY: ("close other programs, or reduce `batch_size` or `max_seq_length`", _RETRY),
    Reason.DISK_FULL: ("free disk space", _RETRY),
    Reason.DIVERGED: ("lower the learning rate", "lq show {id}"),
    Reason.DEADLINE: ("set a later deadline", _RETRY),
}

_NEXT_STEPS: Mapping[Status, Sequence[tuple[str, str]]] = {
    Status.QUEUED: (("lq move {id} --first", "run it next"), ("lq pause {id}", "keep it from running")),
    Status.RUNNING: (
        ("lq watch", "follow its progress"),
        ("lq logs {id} -f", "follow its log"),
        ("lq pause {id}", "stop it for now, with a checkpoint"),
    ),
    Status.WAITING: (("lq resume {id}", "resume it now"), ("lq logs {id} --output", "read the output of its trainers")),
    Status.PAUSED: (("lq resume {id}", "resume it from its checkpoint"),),
    Status.HELD: (("lq resume {id}", "return it to the queue"),),
    Status.SUCCEEDED: (
        ("lq report {id} --open", "read its report"),
        ("lq chat {id}", "chat with its best adapter"),
        ("lq test {id}", "measure its loss on the test set, with intervals"),
        ("lq fuse {id}", "write model and adapter into one folder"),
    ),
    Status.FAILED: (
        ("lq logs {id} --output", "read the output of its trainers"),
        ("lq retry {id}", "resume it, once the cause is fixed"),
    ),
    Status.CANCELLED: (("lq retry {id}", "resume it from its last checkpoint"),),
    Status.SKIPPED: ((_RESUBMIT, "queue it again"),),
}


def next_steps(status: Status, job_id: int, job_dir: str, *, cleaned: bool = False) -> list[tuple[str, str]]:
    """Return commands that make sense for a job in this state, each with its purpose."""
    if cleaned and status is not Status.SUCCEEDED:
        return [(_filled(_RESUBMIT, job_id, job_dir), "train it again from the beginning")]
    return [(_filled(command, job_id, job_dir), why) for command, why in _NEXT_STEPS[status]]


def fix_of(reason: str | None, job_id: int, job_dir: str) -> tuple[str, str]:
    """Return what to do about a failed job, without a full stop, and the next command."""
    fix, command = _FIXES.get(reason or "", (_READ_OUTPUT, _RETRY))
    return fix.format(id=job_id), _filled(command, job_id, job_dir)


def _filled(command: str, job_id: int, job_dir: str) -> str:
    return command.format(id=job_id, config=shlex.quote(f"{job_dir}/config.yaml"))
