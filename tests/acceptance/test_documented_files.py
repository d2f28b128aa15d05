"""The files of a job that was trained, and what is printed of it, are as docs/reference/json.md says."""

from __future__ import annotations

from jsonschema import Draft202012Validator

from configs.schema import job_schema
from tests.acceptance.undisturbed import Undisturbed
from tests.documented import require_folder
from tests.harness import Lq


def test_finished_job_files_are_documented(undisturbed: Undisturbed) -> None:
    require_folder(undisturbed.training.folder.path)


def test_finished_job_output_is_documented(undisturbed: Undisturbed) -> None:
    lq, job_id = undisturbed.lq, undisturbed.training.id
    undisturbed.message()
    for words in (["status"], ["verify", job_id], ["prune", job_id, "--dry-run"]):
        lq.json(*words)  # which holds it against its schema
    shown = lq.look("show", job_id)
    assert shown["messages"]
    assert not [error.message for error in Draft202012Validator(job_schema()).iter_errors(shown["spec"])]
    assert len(lq("logs", job_id, "--json").out.splitlines()) > 10


def test_worker_json_reports_start_and_stop(lq: Lq) -> None:
    started = lq.json("worker", "--detach")["worker"]
    assert started == {"alive": True, "pid": lq.worker(), "started": True}
    assert lq.json("worker", "--detach")["worker"] == started | {"started": False}
    assert lq.json("worker", "stop")["stopped"] == {"pid": started["pid"], "left_running": False}
    answer = lq("worker", "--json", expect=2)
    assert answer.err.startswith("lq: --json needs --detach")
    assert answer.err.endswith("see: lq worker --help\n")
    assert answer.err.count("\n") == 1
