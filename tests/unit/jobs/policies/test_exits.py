"""The classification of the end of an attempt by event, exit code and signal."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.events import EndedEvent
from jobs.model.outcomes import ExitReport, Outcome, Reason
from jobs.policies.exits import classify
from tests.golden import assert_golden

NOTHING = ExitReport(exit_code=None, signal=None, ended=None, stop_asked=False, killed_by_lq=False, same_boot=True)


def report(
    exit_code: int | None = None,
    *,
    number: int | None = None,
    event: tuple[str, str, str] | None = None,
    tail: str = "",
    **more: Any,
) -> ExitReport:
    """Return a report; `event` is outcome, reason and detail of the `ended` event."""
    ended = None
    if event is not None:
        ended = EndedEvent.from_data({"outcome": event[0], "reason": event[1], "detail": event[2], "iteration": 5})
    return dataclasses.replace(NOTHING, exit_code=exit_code, signal=number, ended=ended, stderr_tail=tail, **more)


DONE = ("done", "completed", "trained to its last iteration")
STOPPED = ("stopped", "stopped_by_user", "stopped on request at iteration 5")
REFUSED = ("refused", "data_invalid", "train.jsonl:3: not JSON")
CRASHED = ("crashed", "crashed", "RuntimeError: boom")

TABLE = [
    # the exit codes of the trainer, with their events
    (report(0, event=DONE), Outcome.DONE, Reason.COMPLETED),
    (report(75, event=STOPPED), Outcome.STOPPED, Reason.STOPPED_BY_USER),
    (report(78, event=REFUSED), Outcome.REFUSED, Reason.DATA_INVALID),
    (report(1, event=CRASHED), Outcome.CRASHED, Reason.CRASHED),
    (report(1, event=("crashed", "out_of_memory", "MemoryError: 1 GB")), Outcome.CRASHED, Reason.OUT_OF_MEMORY),
    # exit codes alone
    (report(75), Outcome.STOPPED, Reason.STOPPED_BY_USER),
    (report(78, tail="usage\nno such folder\n"), Outcome.REFUSED, Reason.CONFIG_INVALID),
    (report(1, tail="Traceback\n  boom\n\n"), Outcome.CRASHED, Reason.CRASHED),
    (report(1), Outcome.CRASHED, Reason.CRASHED),
    (report(120), Outcome.CRASHED, Reason.CRASHED),
    # signals
    (report(number=signal.SIGKILL), Outcome.CRASHED, Reason.KILLED),
    (report(number=signal.SIGKILL, killed_by_lq=True), Outcome.CRASHED, Reason.KILLED),
    (report(number=signal.SIGSEGV), Outcome.CRASHED, Reason.CRASHED),
    (report(number=64 + 20), Outcome.CRASHED, Reason.CRASHED),
    # adopted trainer: no exit code, only the event
    (report(event=DONE), Outcome.DONE, Reason.COMPLETED),
    (report(event=STOPPED), Outcome.STOPPED, Reason.STOPPED_BY_USER),
    (report(event=REFUSED), Outcome.REFUSED, Reason.DATA_INVALID),
    (report(event=CRASHED), Outcome.CRASHED, Reason.CRASHED),
    (report(), Outcome.CRASHED, Reason.LOST),
    # the machine rebooted
    (report(same_boot=False), Outcome.CRASHED, Reason.HOST_REBOOTED),
    (report(event=DONE, same_boot=False), Outcome.DONE, Reason.COMPLETED),
    (report(event=STOPPED, same_boot=False), Outcome.STOPPED, Reason.STOPPED_BY_USER),
    # the last event has priority over what happens in the shutdown of Python
    (report(1, event=DONE), Outcome.DONE, Reason.COMPLETED),
    (report(number=signal.SIGSEGV, event=DONE), Outcome.DONE, Reason.COMPLETED),
    (report(number=signal.SIGKILL, event=STOPPED), Outcome.STOPPED, Reason.STOPPED_BY_USER),
    (report(0, event=STOPPED), Outcome.STOPPED, Reason.STOPPED_BY_USER),
    (report(number=signal.SIGKILL, event=CRASHED), Outcome.CRASHED, Reason.KILLED),
    # exit code 0 without an event proves nothing
    (report(0), Outcome.CRASHED, Reason.CRASHED),
    (report(0, event=CRASHED), Outcome.CRASHED, Reason.CRASHED),
    (report(0, event=("done", "no such reason", "")), Outcome.CRASHED, Reason.CRASHED),
    (report(0, event=("", "completed", "")), Outcome.CRASHED, Reason.CRASHED),
    (report(event=("another outcome", "completed", "x")), Outcome.CRASHED, Reason.CRASHED),
]


@pytest.mark.parametrize(("exit_report", "outcome", "reason"), TABLE)
def test_first_matching_row_decides(exit_report: ExitReport, outcome: Outcome, reason: Reason) -> None:
    ending = classify(exit_report)
    assert (ending.outcome, ending.reason) == (outcome, reason)


def test_details_of_exits_golden() -> None:
    around = [
        report(number=signal.SIGKILL, kernel_oom_kills=1),
        report(number=signal.SIGSEGV, pressure_high=True),
        report(number=signal.SIGSEGV, memory_share=0.85),
        report(number=signal.SIGABRT, phase="probe"),
        report(number=signal.SIGTERM, stop_asked=True),
        report(74),
    ]
    endings = [classify(exit_report) for exit_report in [*(row[0] for row in TABLE), *around]]
    text = "".join(sorted({f"{each.outcome}, {each.reason}: {each.detail}\n" for each in endings}))
    assert_golden(text, Path(__file__).parent / "golden" / "exits.txt")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_external_signal_is_killed(number: signal.Signals) -> None:
    ending = classify(report(number=number))
    assert (ending.outcome, ending.reason) == (Outcome.CRASHED, Reason.KILLED)


def test_early_stop_request_is_stopped() -> None:
    """A TERM from lq before the trainer has installed its handler."""
    ending = classify(report(number=signal.SIGTERM, stop_asked=True))
    assert (ending.outcome, ending.reason) == (Outcome.STOPPED, Reason.STOPPED_BY_USER)


WORDS = st.sampled_from(["done", "stopped", "refused", "crashed", "", "rubbish"])
REASONS = st.sampled_from([*(reason.value for reason in Reason), "", "rubbish"])
FIELDS = st.fixed_dictionaries({}, optional={"outcome": WORDS, "reason": REASONS, "detail": st.text()})
ENDED = st.none() | FIELDS.map(EndedEvent.from_data)


@given(code=st.none() | st.integers(0, 255), number=st.none() | st.integers(1, 64), ended=ENDED, boot=st.booleans())
def test_success_needs_an_ended_event(
    code: int | None, number: int | None, ended: EndedEvent | None, boot: bool
) -> None:
    code = None if number is not None else code  # a process ends with a code or by a signal
    ending = classify(dataclasses.replace(NOTHING, exit_code=code, signal=number, ended=ended, same_boot=boot))
    outcome = ended.outcome if ended is not None else None
    if ending.outcome is Outcome.DONE:
        assert outcome == "done"
    elif outcome in ("stopped", "refused"):
        assert ending.outcome == outcome
    assert ending.detail or code == 78 or outcome == "refused"


@pytest.mark.parametrize(
    "left", [report(75, event=STOPPED), report(75), report(number=signal.SIGKILL, killed_by_lq=True), report(1)]
)
def test_disk_watch_stop_is_disk_full(left: ExitReport) -> None:
    ending = classify(dataclasses.replace(left, disk_low="only 1 GB is free"))
    assert (ending.outcome, ending.reason, ending.detail) == (Outcome.CRASHED, Reason.DISK_FULL, "only 1 GB is free")
    assert classify(dataclasses.replace(report(0, event=DONE), disk_low="only 1 GB is free")).outcome is Outcome.DONE
