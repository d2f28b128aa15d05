"""Verbs that take --group: which jobs of a group each touches, and what it says of a group that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.views.comparison import status_of_group
from orchestrator.cli.views.snapshot import group_snapshot
from orchestrator.core.app import App
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, Seen, one_of_each
from tests.unit.orchestrator.rendering import assert_view, text_of

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
def test_unknown_group_suggests_the_nearest(home: Home, here: InProcess, verb: str) -> None:
    home.queued()
    assert here(verb, "--group", "nigt", expect=3).err.startswith("lq: no group 'nigt'; a matrix ")
    with home.store.database.writing() as db:
        db.exec_driver_sql("UPDATE jobs SET group_name = 'night'")
    assert here(verb, "--group", "nigt", expect=3).err.endswith("'nigt'; did you mean 'night'?\n")
    assert here(verb, "--group", "zzz", expect=3).err.endswith("'zzz'; the newest group is 'night'\n")
    assert states(home) == {1: Status.QUEUED}


def test_wait_for_unknown_group_exits_102(home: Home, here: InProcess) -> None:
    assert "no group 'night'" in here("wait", "--group", "night", expect=102).err


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "status"])
def test_verbs_need_an_id_or_a_group(home: Home, here: InProcess, verb: str) -> None:
    assert "--group NAME" in here(verb, expect=2).err


def test_cancel_leaves_ended_and_other_jobs(home: Home, here: InProcess) -> None:
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


def test_ended_group_cannot_be_cancelled(home: Home, here: InProcess) -> None:
    home.cancelled()
    with home.store.database.writing() as db:
        db.exec_driver_sql("UPDATE jobs SET group_name = 'night'")
    for verb in ("cancel", "pause", "resume"):
        assert "group 'night' has already ended" in here(verb, "--group", "night", expect=5).err
    assert here("wait", "--group", "night", expect=103).out.startswith("job 1 ")
    assert "job 1 queued" in here("retry", "--group", "night").out
    assert states(home) == {1: Status.QUEUED}
    here("retry", "--group", "night", expect=5)


def test_resume_takes_held_and_paused_jobs(home: Home, here: InProcess) -> None:
    ids = grouped(home)
    here("pause", ids["queued"])
    before = states(home)
    here("resume", "--group", "night")
    changed = {job_id for job_id, status in states(home).items() if status is not before[job_id]}
    assert changed == {ids["queued"], ids["waiting"], ids["paused"]}


def test_pause_holds_before_it_stops(home: Home, here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = grouped(home)
    monkeypatch.setattr("orchestrator.cli.commands.control.PAUSE_WAIT_S", 0.0)
    said = here("pause", "--group", "night").out
    assert states(home)[ids["queued"]] is Status.HELD
    assert home.store.jobs.get(ids["running"]).stop_request == "pause"
    assert states(home)[ids["outside"]] is Status.QUEUED
    assert said.index(f"job {ids['queued']} held") < said.index(f"job {ids['running']}: stopping after a checkpoint")


def test_retry_takes_failed_and_cancelled(home: Home, here: InProcess) -> None:
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


def test_group_status_matches_golden(home: Home, app: App) -> None:
    sweep(home)
    group = group_snapshot(app, "night")
    assert group.best == 2
    assert dict(group.settings) == {
        "learning_rate": ("0.001", "0.0001", "1e-05", "0.0001", "0.001"),
        "lora_parameters.rank": ("16", "8", "8", "16", "8"),
    }
    assert_view(status_of_group(group), "group_80", 80)


def test_group_status_json_marks_the_best(home: Home, here: InProcess) -> None:
    sweep(home)
    jobs = json.loads(here("status", "--group", "night", "--json").out)["jobs"]
    assert [job["id"] for job in jobs if job["best"]] == [2]
    assert [job["best_val_loss"] for job in jobs] == [None, 1.25, 1.5, 2.0, None]
    assert jobs[1]["settings"] == {"learning_rate": "0.0001", "lora_parameters.rank": "8"}
    assert {job["group"] for job in jobs} == {"night"}


def test_no_best_if_tokens_differ(home: Home, app: App) -> None:
    for number, length in enumerate((512, 1024)):
        seen = Seen(iteration=1000, train_loss=1.0, val_loss=1.0 + number, it_s=2.0)
        home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=seen, group="night", max_seq_length=length)
    group = group_snapshot(app, "night")
    assert not group.is_comparable
    assert group.best is None
    assert "best\n" not in text_of(status_of_group(group))


def test_group_picture_has_the_group_name(home: Home, here: InProcess) -> None:
    sweep(home)
    said = here("compare", "--group", "night").out
    assert "best: none yet" in said
    assert f"picture: {home.path}/compare/night.png" in said
    assert Path(f"{home.path}/compare/night.png").exists()
