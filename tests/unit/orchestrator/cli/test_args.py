"""Which jobs a verb is about: ids, ranges, names, groups, all, those that failed; and what is refused."""

from __future__ import annotations

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home


def statuses(home: Home) -> dict[int, Status]:
    """Return the status of every job by id."""
    return {job.id: job.status for job in home.store.jobs.overview(all_jobs=True)}


def test_a_range_has_both_ends_and_passes_over_what_is_not_there(home: Home, here: InProcess) -> None:
    for name in ("a", "b", "c", "d"):
        home.queued(name)
    here("hold", "2-3")
    assert [job_id for job_id, status in statuses(home).items() if status is Status.HELD] == [2, 3]
    here("hold", "3-900000000000000000000000", "1")
    assert statuses(home) == dict.fromkeys((1, 2, 3, 4), Status.HELD)


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("7-3", 2, "7-3 runs backwards; write 3-7"),
        ("0-3", 2, "ids begin at 1; write 1-3"),
        ("0", 2, "ids begin at 1"),
        (" ", 2, "empty job name"),
        ("70-80", 3, "no job has an id from 70 to 80"),
        ("70", 3, "no job 70; see: lq status --all"),
        ("nihgt", 3, "no job is called 'nihgt'; did you mean 'night'?"),
        ("twin", 2, "jobs 2 and 3 are called 'twin'; say which by its id"),
        ("band", 3, "no job is called 'band', a group is; its jobs are named with: --group band"),
        ("quite another", 3, "no job is called 'quite another'; see: lq status --all"),
    ],
)
@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_who_is_not_there_or_not_clear_is_told_and_nobody_is_touched(
    home: Home, here: InProcess, verb: str, word: str, code: int, said: str
) -> None:
    home.queued("night", group="band")
    home.queued("twin")
    home.queued("twin")
    answer = here(verb, 1, word, expect=code)
    assert said in answer.err
    assert (answer.out, answer.err.count("\n")) == ("", 1)
    assert set(statuses(home).values()) == {Status.QUEUED}


def test_a_name_is_the_live_job_of_that_name_and_a_number_an_id_first(home: Home, here: InProcess) -> None:
    home.cancelled("night")
    home.queued("night")
    home.queued("2")
    home.queued("7")
    assert here("hold", "night", "-q").out == "2\n"
    assert "job 2 is held already" in here("hold", "2").out
    assert here("hold", "7", "-q").out == "4\n", "no job has this id, but one this name"
    assert here("show", "7").out.startswith("job 4: 7: held")
    assert here("logs", "night").out == ""


def test_of_a_range_and_of_all_those_that_have_ended_stay(home: Home, here: InProcess) -> None:
    home.cancelled()
    home.queued()
    home.queued()
    assert here("pause", "1-2", "-q").out == "2\n"
    assert here("cancel", "--all", "-q").out == "2\n3\n"
    assert "every job of 1-3 has ended already" in here("cancel", "1-3", expect=5).err
    assert "every job has ended already" in here("release", "--all", expect=5).err
    assert "has ended already (cancelled)" in here("cancel", 1, expect=5).err


def test_those_that_failed_are_retried_and_checked_together(home: Home, here: InProcess) -> None:
    home.ended(Status.FAILED, Reason.CRASHED, group="night")
    home.ended(Status.FAILED, Reason.CRASHED)
    home.cancelled()
    assert here("retry", "--group", "night", "--failed", "-q").out == "1\n"
    assert here("retry", "--failed", "--quiet").out == "2\n"
    assert "no job has failed; there is nothing to retry" in here("retry", "--failed", expect=5).err
    assert here("retry", "--all", "-q").out == "3\n"
    assert "no job has failed" in here("verify", "--failed", expect=5).err


@pytest.mark.parametrize(
    "words", [("--all", "1"), ("--all", "--group", "g"), ("--failed", "1"), ("--all", "--failed"), ()]
)
def test_what_contradicts_itself_or_says_nothing_is_refused(
    home: Home, here: InProcess, words: tuple[str, ...]
) -> None:
    home.ended(Status.FAILED, Reason.CRASHED)
    assert "see: lq retry --help" in here("retry", *words, expect=2).err


def test_a_group_moves_as_one_and_not_before_one_of_its_own(home: Home, here: InProcess) -> None:
    for name, group in (("a", None), ("b", "g"), ("c", "g")):
        home.queued(name, group=group)
    here("move", "--group", "g", "--before", "a")
    assert [one.job.id for one in home.store.queue.waiting()] == [2, 3, 1]
    here("move", "1-2", "--after", 2, expect=5)
    assert [one.job.id for one in home.store.queue.waiting()] == [2, 3, 1], "none of them was moved"


def test_a_cancel_says_whom_it_takes_along(home: Home, here: InProcess) -> None:
    first = home.queued("first")
    for on, any_end in ((first.id, False), (2, False), (first.id, True)):
        waits = home.queued(f"after-{on}")
        with home.store.database.writing() as db:
            values = {"job_id": waits.id, "on_job_id": on, "any_end": any_end}
            db.exec_driver_sql("INSERT INTO dependencies VALUES (:job_id, :on_job_id, :any_end)", values)
    said = here("cancel", "first").out
    assert said == "job 1 cancelled\njobs 2 and 3 will be skipped: lq.after wants its success\n"


def test_all_means_every_live_job_to_wait_for(home: Home, here: InProcess) -> None:
    home.cancelled()
    assert "no job is live" in here("wait", "--all", expect=102).err
    home.queued()
    assert here("wait", "--all", "--timeout", 0, expect=101).out == ""
    assert here("wait", "1-2", "--any", expect=103).out == ""
