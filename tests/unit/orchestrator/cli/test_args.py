"""Which jobs a verb selects by ids, ranges, names, --group, --all and --failed, and what it refuses."""

from __future__ import annotations

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home


def statuses(home: Home) -> dict[int, Status]:
    """Return the status of every job by id."""
    return {job.id: job.status for job in home.store.jobs.overview(all_jobs=True)}


def test_range_includes_ends_and_skips_gaps(home: Home, here: InProcess) -> None:
    for name in ("a", "b", "c", "d"):
        home.queued(name)
    here("pause", "2-3")
    assert [job_id for job_id, status in statuses(home).items() if status is Status.HELD] == [2, 3]
    here("pause", "3-900000000000000000000000", "1")
    assert statuses(home) == dict.fromkeys((1, 2, 3, 4), Status.HELD)


@pytest.mark.parametrize(
    ("word", "code", "part"),
    [
        ("7-3", 2, "write 3-7"),
        ("0-3", 2, "write 1-3"),
        ("0", 2, "ids begin at 1"),
        (" ", 2, "empty job name"),
        ("70-80", 3, "from 70 to 80"),
        ("70", 3, "lq status --all"),
        ("nihgt", 3, "did you mean 'night'?"),
        ("twin", 2, "jobs 2 and 3"),
        ("band", 3, "--group band"),
        ("quite another", 3, "lq status --all"),
    ],
)
@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_unclear_reference_changes_nothing(
    home: Home, here: InProcess, verb: str, word: str, code: int, part: str
) -> None:
    home.queued("night", group="band")
    home.queued("twin")
    home.queued("twin")
    answer = here(verb, 1, word, expect=code)
    assert part in answer.err
    assert (answer.out, answer.err.count("\n")) == ("", 1)
    assert set(statuses(home).values()) == {Status.QUEUED}


def test_name_selects_the_live_job(home: Home, here: InProcess) -> None:
    home.cancelled("night")
    home.queued("night")
    home.queued("2")
    home.queued("7")
    assert here("pause", "night", "-q").out == "2\n"
    assert here("resume", "2", "-q").out == "2\n", "a number is an id first"
    assert here("pause", "7", "-q").out == "4\n", "no job has this id, but one has this name"
    assert here("logs", "night").out == ""


def test_ended_jobs_of_a_range_are_skipped(home: Home, here: InProcess) -> None:
    home.cancelled()
    home.queued()
    home.queued()
    assert here("pause", "1-2", "-q").out == "2\n"
    assert here("cancel", "--all", "-q").out == "2\n3\n"
    assert "of 1-3" in here("cancel", "1-3", expect=5).err
    here("resume", "--all", expect=5)
    here("cancel", 1, expect=5)


def test_failed_selects_failed_jobs(home: Home, here: InProcess) -> None:
    home.ended(Status.FAILED, Reason.CRASHED, group="night")
    home.ended(Status.FAILED, Reason.CRASHED)
    home.cancelled()
    assert here("retry", "--group", "night", "--failed", "-q").out == "1\n"
    assert here("retry", "--failed", "--quiet").out == "2\n"
    here("retry", "--failed", expect=5)
    assert here("retry", "--all", "-q").out == "3\n"
    here("verify", "--failed", expect=5)


@pytest.mark.parametrize(
    "words", [("--all", "1"), ("--all", "--group", "g"), ("--failed", "1"), ("--all", "--failed"), ()]
)
def test_conflicting_options_are_refused(home: Home, here: InProcess, words: tuple[str, ...]) -> None:
    home.ended(Status.FAILED, Reason.CRASHED)
    assert "see: lq retry --help" in here("retry", *words, expect=2).err


def test_a_group_moves_together(home: Home, here: InProcess) -> None:
    for name, group in (("a", None), ("b", "g"), ("c", "g")):
        home.queued(name, group=group)
    here("move", "--group", "g", "--before", "a")
    assert [entry.job.id for entry in home.store.queue.waiting()] == [2, 3, 1]
    here("move", "1-2", "--after", 2, expect=5)
    assert [entry.job.id for entry in home.store.queue.waiting()] == [2, 3, 1], "all jobs move, or none"


def test_cancel_names_the_skipped_jobs(home: Home, here: InProcess) -> None:
    first = home.queued("first")
    for on, any_end in ((first.id, False), (2, False), (first.id, True)):
        waits = home.queued(f"after-{on}")
        with home.store.database.writing() as db:
            values = {"job_id": waits.id, "on_job_id": on, "any_end": any_end}
            db.exec_driver_sql("INSERT INTO dependencies VALUES (:job_id, :on_job_id, :any_end)", values)
    assert "jobs 2 and 3 " in here("cancel", "first").out


def test_wait_all_selects_live_jobs(home: Home, here: InProcess) -> None:
    home.cancelled()
    here("wait", "--all", expect=102)
    home.queued()
    assert here("wait", "--all", "--timeout", 0, expect=101).out == ""
    assert here("wait", "1-2", "--any", expect=103).out == "job 1 job: cancelled\n"
