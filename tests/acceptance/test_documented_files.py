"""The files of a job that was trained, and what is printed of it, are as docs/reference/json.md says."""

from __future__ import annotations

from jsonschema import Draft202012Validator

from configs.schema import job_schema
from tests.acceptance.undisturbed import Undisturbed
from tests.documented import require_folder
from tests.harness import Lq


def test_every_file_of_a_finished_job_is_documented(undisturbed: Undisturbed) -> None:
    require_folder(undisturbed.training.folder.path)


def test_what_is_printed_of_a_finished_job_is_documented(undisturbed: Undisturbed) -> None:
    lq, job_id = undisturbed.lq, undisturbed.training.id
    undisturbed.message()
    for words in (["status"], ["verify", job_id], ["prune", job_id, "--dry-run"]):
        lq.json(*words)  # which holds it against its schema
    shown = lq.look("show", job_id)
    assert shown["messages"]
    assert not [error.message for error in Draft202012Validator(job_schema()).iter_errors(shown["spec"])]
    assert len(lq("logs", job_id, "--json").out.splitlines()) > 10


def test_a_worker_that_comes_and_goes_tells_machines_too(lq: Lq) -> None:
    started = lq.json("worker", "--detach")["worker"]
    assert started == {"alive": True, "pid": lq.worker(), "started": True}
    assert lq.json("worker", "--detach")["worker"] == started | {"started": False}
    assert lq.json("worker", "stop")["stopped"] == {"pid": started["pid"], "left_running": False}
    answer = lq("worker", "--json", expect=2)
    assert answer.err == "lq: --json goes with --detach, or behind stop and status; see: lq worker --help\n"
