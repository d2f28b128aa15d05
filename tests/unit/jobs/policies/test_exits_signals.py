"""Signals that somebody sends before a trainer listens: its death says nothing about the next job."""

from __future__ import annotations

import signal

import pytest

from jobs.model.outcomes import ExitReport, Outcome, Reason
from jobs.policies.exits import classify


def ended_by(number: signal.Signals, *, stop_asked: bool = False) -> ExitReport:
    """A trainer that died by a signal without a word."""
    return ExitReport(
        exit_code=None,
        signal=number,
        ended=None,
        stop_asked=stop_asked,
        killed_by_lq=False,
        same_boot=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_trainer_ended_by_somebodys_signal_was_killed_and_did_not_crash(number: signal.Signals) -> None:
    ending = classify(ended_by(number))
    assert (ending.outcome, ending.reason) == (Outcome.CRASHED, Reason.KILLED)
    assert ending.detail == f"ended by {number.name}, sent by something other than lq"


def test_a_stop_that_lq_sent_too_early_is_not_blamed_on_somebody_else() -> None:
    before_it_listened = classify(ended_by(signal.SIGTERM, stop_asked=True))
    assert (before_it_listened.outcome, before_it_listened.reason) == (Outcome.STOPPED, Reason.STOPPED_BY_USER)


def test_a_trainer_that_falls_over_has_crashed() -> None:
    assert classify(ended_by(signal.SIGSEGV)).reason is Reason.CRASHED
