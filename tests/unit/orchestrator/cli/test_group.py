"""Verbs that take --group: which jobs of a group each touches, and what it says of a group that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, Seen, one_of_each

VERBS = ("status", "cancel", "compare", "pause", "resume", "retry")


def grouped(home: Home) -> dict[str, int]:
    """Give a group with a job in most states, one outside it, and return their ids by state."""
    ids = one_of_each(home)
    with home.store.database.writing() as db:
        db.exec_driver_sql("UPDATE jobs SET group_name = 'night'")
    outside = home.queued("outside").id
    return {status.value: job_id for status, job_id in ids.items()} | {"outside": outside}


def states(home: Home) -> dict[int, Status]:
    return {job.id: job.status for job in home.store.jobs.overview(all_jobs=True)}


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_group_is_named_with_the_nearest(home: Home, here: InProcess, verb: str) -> None:
    home.queued()
    assert here(verb, "--group", "nigt", expect=3).err == (
        "lq: no group 'nigt'; a matrix in a job file creates a group\n"
    )
    with home.store.database.writing() as db:
        db.exec_driver_sql("UPDATE jobs SET group_name = 'night'")
    assert here(verb, "--group", "nigt", expect=3).err == "lq: no group 'nigt'; did you mean 'night'?\n"
    assert here(verb, "--group", "zzz", expect=3).err == "lq: no group 'zzz'; the newest group is 'night'\n"
    assert states(home) == {1: Status.QUEUED}


def test_wait_for_an_unknown_group_exits_as_for_an_unknown_job(home: Home, here: InProcess) -> None:
    assert "no group 'night'" in here("wait", "--group", "night", expect=102).err


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "status"])
def test_a_verb_wants_an_id_or_a_group(home: Home, here: InProcess, verb: str) -> None:
    assert "--group NAME" in here(verb, expect=2).err


def test_cancel_leaves_what_has_ended_and_what_is_outside(home: Home, here: InProcess) -> None:
    ids = grouped(home)
    before = states(home)
    said = here("cancel", "--group", "night").out
    after = states(home)
    for name in ("queued", "waiting", "paused"):
        assert after[ids[name]] is Status.CANCELLED
        assert f"job {ids[name]} cancelled" in said
    assert f"job {ids['running']}: stopping after a checkpoint" in said
    assert home.store.jobs.get(ids["running"]).stop_request == "cancel"
    assert {name: after[ids[name]] for name in ("succeeded", "failed", "cancelled", "outside")} == {
        name: before[ids[name]] for name in ("succeeded", "failed", "cancelled", "outside")
    }


def test_a_group_that_has_ended_has_nothing_to_cancel_or_pause(home: Home, here: InProcess) -> None:
    home.cancelled()
    with home.store.database.writing() as db:
        db.exec_driver_sql("UPDATE jobs SET group_name = 'night'")
    for verb in ("cancel", "pause", "resume"):
        assert "every job of group 'night' has already ended" in here(verb, "--group", "night", expect=5).err
    assert here("wait", "--group", "night", expect=103).out == ""
    assert "job 1 queued; it had not started" in here("retry", "--group", "night").out
    here("retry", "--group", "night", expect=5)


def test_resume_takes_held_and_paused_jobs(home: Home, here: InProcess) -> None:
    ids = grouped(home)
    here("pause", ids["queued"])
    before = states(home)
    here("resume", "--group", "night")
    changed = {job_id for job_id, status in states(home).items() if status is not before[job_id]}
    assert changed == {ids["queued"], ids["waiting"], ids["paused"]}


def test_pause_holds_those_that_wait_before_it_stops_the_one_that_runs(
    home: Home, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = grouped(home)
    monkeypatch.setattr("orchestrator.cli.commands.pause.PAUSE_WAIT_S", 0.0)
    said = here("pause", "--group", "night").out
    assert states(home)[ids["queued"]] is Status.HELD
    assert home.store.jobs.get(ids["running"]).stop_request == "pause"
    assert states(home)[ids["outside"]] is Status.QUEUED
    assert said.index(f"job {ids['queued']} held") < said.index(f"job {ids['running']}: stopping after a checkpoint")


def test_retry_takes_those_that_failed_or_were_cancelled(home: Home, here: InProcess) -> None:
    ids = grouped(home)
    here("retry", "--group", "night")
    assert {states(home)[ids[name]] for name in ("failed", "cancelled")} == {Status.QUEUED}
    assert states(home)[ids["succeeded"]] is Status.SUCCEEDED


def sweep(home: Home) -> None:
    """Give a group of three that succeeded, one that failed, one still to come; the second did best."""
    for number, loss in enumerate((1.5, 1.25, 2.0)):
        seen = Seen(iteration=1000, train_loss=1.0, val_loss=loss, it_s=2.0)
        home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=seen, **_settings(number))
    home.ended(
        Status.FAILED,
        Reason.DIVERGED,
        seen=Seen(iteration=10, train_loss=float("nan"), val_loss=float("nan"), it_s=2.0),
        **_settings(3),
    )
    home.queued(**_settings(4))


def _settings(number: int) -> dict[str, Any]:
    rates = (1e-5, 1e-4, 1e-4, 1e-3, 1e-3)
    rank = (8, 8, 16, 8, 16)[number]
    return {
        "group": "night",
        "name": f"n{number}",
        "learning_rate": rates[number],
        "lora_parameters": {"rank": rank},
    }


def test_status_of_a_group_shows_what_varies_and_marks_the_best(
    home: Home, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(home)
    monkeypatch.setenv("COLUMNS", "80")
    said = here("status", "--group", "night").out.splitlines()
    said = said[said.index("group night: 1 queued, 3 succeeded, 1 failed") - 1 :]
    assert said[2].split() == ["id", "lr", "r", "state", "progress", "loss", "val", "best", "val"]
    assert [line.split()[0] for line in said[3:8]] == ["5", "2", "1", "3", "4"]
    assert said[4].split() == ["2", "0.0001", "8", "succeeded", "100%", "1.000", "1.250", "1.250", "best"]
    assert all(len(line) <= 80 for line in said)
    assert said[-1] == "by how much, and the adapter: lq compare --group night"


def test_status_of_a_group_as_json_has_its_settings_and_its_best(home: Home, here: InProcess) -> None:
    sweep(home)
    jobs = json.loads(here("status", "--group", "night", "--json").out)["jobs"]
    assert [job["id"] for job in jobs if job["best"]] == [2]
    assert [job["best_val_loss"] for job in jobs] == [None, 1.25, 1.5, 2.0, None]
    assert jobs[1]["settings"] == {"learning_rate": "0.0001", "lora_parameters.rank": "8"}
    assert {job["group"] for job in jobs} == {"night"}


def test_no_best_is_marked_where_losses_are_not_of_the_same_tokens(home: Home, here: InProcess) -> None:
    for number, length in enumerate((512, 1024)):
        seen = Seen(iteration=1000, train_loss=1.0, val_loss=1.0 + number, it_s=2.0)
        home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=seen, group="night", max_seq_length=length)
    said = here("status", "--group", "night").out
    assert "no best: the jobs are not validated on the same tokens" in said
    assert " best\n" not in said


def test_the_picture_of_a_group_is_named_after_it(home: Home, here: InProcess) -> None:
    sweep(home)
    said = here("compare", "--group", "night").out
    assert "best: none yet; no job has ended with a validation and an adapter" in said
    assert f"picture: {home.path}/compare/night.png" in said
    assert Path(f"{home.path}/compare/night.png").exists()
