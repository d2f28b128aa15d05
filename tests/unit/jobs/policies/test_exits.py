"""How an attempt ended, told from what a dead child leaves behind."""

from __future__ import annotations

import dataclasses
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.outcomes import ExitReport, Outcome, Reason
from jobs.policies.exits import classify

NOTHING = ExitReport(exit_code=None, signal=None, ended=None, stop_asked=False, killed_by_lq=False, same_boot=True)


def report(
    exit_code: int | None = None,
    *,
    number: int | None = None,
    said: tuple[str, str, str] | None = None,
    same_boot: bool = True,
    killed_by_lq: bool = False,
    tail: str = "",
) -> ExitReport:
    """A report; `said` is outcome, reason and detail of the `ended` event."""
    ended = None if said is None else {"outcome": said[0], "reason": said[1], "detail": said[2], "iteration": 5}
    return dataclasses.replace(
        NOTHING,
        exit_code=exit_code,
        signal=number,
        ended=ended,
        same_boot=same_boot,
        killed_by_lq=killed_by_lq,
        stderr_tail=tail,
    )


DONE = ("done", "completed", "trained to its last iteration")
STOPPED = ("stopped", "stopped_by_user", "stopped on request at iteration 5")
REFUSED = ("refused", "data_invalid", "train.jsonl:3: not JSON")
CRASHED = ("crashed", "crashed", "RuntimeError: boom")

TABLE = [
    # the child's own exit codes, with the event that goes with them
    (report(0, said=DONE), Outcome.DONE, Reason.COMPLETED, "trained to its last iteration"),
    (report(75, said=STOPPED), Outcome.STOPPED, Reason.STOPPED_BY_USER, "stopped on request at iteration 5"),
    (report(78, said=REFUSED), Outcome.REFUSED, Reason.DATA_INVALID, "train.jsonl:3: not JSON"),
    (report(1, said=CRASHED), Outcome.CRASHED, Reason.CRASHED, "RuntimeError: boom"),
    (
        report(1, said=("crashed", "out_of_memory", "MemoryError: 1 GB")),
        Outcome.CRASHED,
        Reason.OUT_OF_MEMORY,
        "the machine ran out of memory: MemoryError: 1 GB",
    ),
    # exit codes alone
    (report(75), Outcome.STOPPED, Reason.STOPPED_BY_USER, "stopped on request after a checkpoint"),
    (report(78, tail="usage\nno such folder\n"), Outcome.REFUSED, Reason.CONFIG_INVALID, "no such folder"),
    (report(1, tail="Traceback\n  boom\n\n"), Outcome.CRASHED, Reason.CRASHED, "exit code 1: boom"),
    (report(1), Outcome.CRASHED, Reason.CRASHED, "exit code 1"),
    (report(120), Outcome.CRASHED, Reason.CRASHED, "exit code 120"),
    # signals
    (
        report(number=signal.SIGKILL),
        Outcome.CRASHED,
        Reason.KILLED,
        "ended by SIGKILL, sent by something other than lq",
    ),
    (
        report(number=signal.SIGKILL, killed_by_lq=True),
        Outcome.CRASHED,
        Reason.KILLED,
        "ended by SIGKILL, sent by lq",
    ),
    (
        report(number=signal.SIGSEGV),
        Outcome.CRASHED,
        Reason.CRASHED,
        "ended by SIGSEGV, sent by something other than lq",
    ),
    (report(number=64 + 20), Outcome.CRASHED, Reason.CRASHED, "ended by signal 84, sent by something other than lq"),
    # adopted: no exit code; the event is all there is
    (report(said=DONE), Outcome.DONE, Reason.COMPLETED, "trained to its last iteration"),
    (report(said=STOPPED), Outcome.STOPPED, Reason.STOPPED_BY_USER, "stopped on request at iteration 5"),
    (report(said=REFUSED), Outcome.REFUSED, Reason.DATA_INVALID, "train.jsonl:3: not JSON"),
    (report(said=CRASHED), Outcome.CRASHED, Reason.CRASHED, "RuntimeError: boom"),
    (
        report(),
        Outcome.CRASHED,
        Reason.LOST,
        "the process is gone; it was adopted, so its exit code is unknown",
    ),
    # the machine was restarted
    (report(same_boot=False), Outcome.CRASHED, Reason.HOST_REBOOTED, "the machine was restarted (another boot id)"),
    (report(said=DONE, same_boot=False), Outcome.DONE, Reason.COMPLETED, "trained to its last iteration"),
    (
        report(said=STOPPED, same_boot=False),
        Outcome.STOPPED,
        Reason.STOPPED_BY_USER,
        "stopped on request at iteration 5",
    ),
    # the child's last line outranks what befell it afterwards, in Python's own shutdown
    (report(1, said=DONE), Outcome.DONE, Reason.COMPLETED, "trained to its last iteration"),
    (report(number=signal.SIGSEGV, said=DONE), Outcome.DONE, Reason.COMPLETED, "trained to its last iteration"),
    (
        report(number=signal.SIGKILL, said=STOPPED),
        Outcome.STOPPED,
        Reason.STOPPED_BY_USER,
        "stopped on request at iteration 5",
    ),
    (report(0, said=STOPPED), Outcome.STOPPED, Reason.STOPPED_BY_USER, "stopped on request at iteration 5"),
    (
        report(number=signal.SIGKILL, said=CRASHED),
        Outcome.CRASHED,
        Reason.KILLED,
        "ended by SIGKILL, sent by something other than lq",
    ),
    # but exit code 0 alone proves nothing
    (report(0), Outcome.CRASHED, Reason.CRASHED, "exit code 0"),
    (report(0, said=CRASHED), Outcome.CRASHED, Reason.CRASHED, "RuntimeError: boom"),
    (report(0, said=("done", "no such reason", "")), Outcome.CRASHED, Reason.CRASHED, "exit code 0"),
    (report(0, said=("", "completed", "")), Outcome.CRASHED, Reason.CRASHED, "exit code 0"),
    (report(said=("a good end", "completed", "x")), Outcome.CRASHED, Reason.CRASHED, "x"),
]


@pytest.mark.parametrize(("exit_report", "outcome", "reason", "detail"), TABLE)
def test_how_it_ended(exit_report: ExitReport, outcome: Outcome, reason: Reason, detail: str) -> None:
    ending = classify(exit_report)
    assert (ending.outcome, ending.reason, ending.detail) == (outcome, reason, detail)


WORDS = st.sampled_from(["done", "stopped", "refused", "crashed", "", "rubbish"])
REASONS = st.sampled_from([*(reason.value for reason in Reason), "", "rubbish"])
ENDED = st.none() | st.fixed_dictionaries({}, optional={"outcome": WORDS, "reason": REASONS, "detail": st.text()})


@given(code=st.none() | st.integers(0, 255), number=st.none() | st.integers(1, 64), ended=ENDED, boot=st.booleans())
def test_a_job_succeeds_only_where_its_child_said_so(
    code: int | None, number: int | None, ended: dict[str, str] | None, boot: bool
) -> None:
    code = None if number is not None else code  # a process ends by a code or by a signal
    ending = classify(dataclasses.replace(NOTHING, exit_code=code, signal=number, ended=ended, same_boot=boot))
    said = (ended or {}).get("outcome")
    if ending.outcome is Outcome.DONE:
        assert said == "done"
    elif said in ("stopped", "refused"):
        assert ending.outcome == said
    assert ending.detail or code == 78 or said == "refused"


@pytest.mark.parametrize(
    "left", [report(75, said=STOPPED), report(75), report(number=signal.SIGKILL, killed_by_lq=True), report(1)]
)
def test_one_that_was_stopped_for_want_of_space_waits_for_space(left: ExitReport) -> None:
    ending = classify(dataclasses.replace(left, disk_low="only 1 GB is free"))
    assert (ending.outcome, ending.reason, ending.detail) == (Outcome.CRASHED, Reason.DISK_FULL, "only 1 GB is free")
    assert classify(dataclasses.replace(report(0, said=DONE), disk_low="only 1 GB is free")).outcome is Outcome.DONE
