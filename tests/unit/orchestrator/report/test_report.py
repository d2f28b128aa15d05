"""What a user finds in a report: the facts, their words, the files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from jobs.model import run_plan as run_plans
from jobs.model.errors import NoSuchJob
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.states import Status
from orchestrator.report.__main__ import main
from orchestrator.report.collect import collect
from orchestrator.report.facts import Facts
from orchestrator.report.make import make, to_json
from orchestrator.report.render.history import planned_of
from orchestrator.report.render.report import render
from tests.unit.orchestrator.report_runs import ERROR, START, TWO_RESTARTS, WORKER, Life, Run, killed, train_loss

END = START + 405.0


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Run]:
    """A run of 600 iterations with two restarts, published."""
    lora = {"rank": 16, "scale": 2.0, "dropout": 0.05}
    run = Run(tmp_path, model="/models/it's $5", grad_accumulation_steps=8, lora_parameters=lora)
    with run.store:
        run.play(*TWO_RESTARTS)
        run.publish()
        yield run


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Run]:
    """A job that was claimed, and nothing more."""
    run = Run(tmp_path)
    with run.store:
        yield run


def _facts(run: Run, **changes: Any) -> Facts:
    return collect(run.store, run.id, now=END, **changes)


def _text(facts: Facts) -> str:
    return render(facts, zone=UTC)


def _row(text: str, first: str) -> str:
    """Return the table row that begins with this cell, its padding removed."""
    line = next(line for line in text.splitlines() if re.match(rf"\| +{re.escape(first)} +\|", line))
    return re.sub(r" +", " ", line)


def _commands(text: str) -> list[list[str]]:
    return [shlex.split(block) for block in re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL)]


def test_the_run_plan_is_told_as_requested_and_run(finished: Run) -> None:
    requested = RunPlan.requested(finished.spec)
    stage = dataclasses.replace(
        requested.stages[0],
        first_example=1200,
        batch_size=2,
        grad_accumulation_steps=16,
        grad_checkpoint=True,
        because="out_of_memory: batch 4 -> 2",
    )
    (finished.folder / "run_plan.json").write_text(
        json.dumps(run_plans.to_json(RunPlan(stages=(*requested.stages, stage))))
    )
    told = _row(_text(_facts(finished)), "300")
    changes = "batch 4 → 2, accumulation 8 → 16, gradient checkpointing off → on"
    assert told == f"| 300 | {changes} | out_of_memory: batch 4 → 2 |"


def test_a_run_that_kept_to_its_settings_says_so(finished: Run) -> None:
    assert "The run kept to the settings that were requested." in _text(_facts(finished))


def test_a_restart_tells_what_it_cost_in_iterations_and_seconds(finished: Run) -> None:
    first, second, third = _facts(finished).attempts
    assert (first.repeated_iterations, second.repeated_iterations, third.repeated_iterations) == (0, 37, 50)
    assert first.idle_seconds is None
    assert second.idle_seconds == pytest.approx(200 - (5 + 337 / 2))
    # 5 s of loading, then the repeated iterations at 2 a second
    assert second.catch_up_seconds == pytest.approx(5 + 37 / 2)
    assert third.catch_up_seconds == pytest.approx(5 + 50 / 2)


def test_a_restart_after_a_planned_stop_is_told_apart_from_one_after_a_crash(fresh: Run) -> None:
    paused: dict[str, Any] = {"outcome": Outcome.STOPPED, "reason": Reason.WINDOW_CLOSED, "detail": "its window closed"}
    fresh.play(Life(first=0, last=100, begins=0, quality="fresh", **paused), Life(first=100, last=600, begins=900))
    text = _text(_facts(fresh))
    assert "5 min 10 s in training, 1 restart (after a planned stop), 0 iterations trained twice." in text
    assert "\n1 restart (after a planned stop); 0 iterations trained twice.\n" in text
    assert re.search(r"^\| Restarts +\| 1 \(after a planned stop\) +\|$", text, re.MULTILINE)
    assert [planned_of(count, planned) for count, planned in ((3, 0), (3, 2), (3, 3))] == [
        "",
        " (2 after a planned stop)",
        " (all after a planned stop)",
    ]


def test_an_attempt_that_died_while_loading_does_not_hide_what_was_repeated(fresh: Run) -> None:
    fresh.play(killed(first=0, last=337, begins=0, quality="fresh"))
    attempt = fresh.store.attempts.begin(fresh.id, owner=WORKER, now=START + 300)
    ending = Ending(outcome=Outcome.CRASHED, reason=Reason.CRASHED, detail="exit code 1")
    fresh.store.attempts.end(attempt.id, ending=ending, exit_code=1, signal=None, now=START + 301)
    fresh.play(Life(first=300, last=600, begins=310))
    facts = _facts(fresh)
    assert [attempt.repeated_iterations for attempt in facts.attempts] == [0, None, 37]
    assert facts.repeated_iterations == 37


def test_losses_come_with_their_iterations(finished: Run) -> None:
    facts = _facts(finished)
    train, validation = facts.train_loss, facts.validation
    assert [found and found.iteration for found in (train.first, train.last, train.lowest)] == [10, 600, 600]
    assert train.last is not None
    assert train.last.loss == pytest.approx(train_loss(600))
    measured = (validation.base, validation.best, validation.final)
    assert [found and found.iteration for found in measured] == [0, 500, 600]
    assert [found and found.standard_error for found in measured] == [ERROR] * 3
    assert validation.count == 7  # those that a resume repeated count once
    assert [(test.iteration, test.loss) for test in facts.tests] == [(600, 0.7)]


def test_progress_counts_rows_epochs_and_medians(finished: Run) -> None:
    progress = _facts(finished).progress
    assert (progress.iterations_done, progress.rows_seen, progress.epochs) == (600, 2400, 48.0)
    assert (progress.it_s, progress.tok_s, progress.tokens, progress.peak_bytes) == (2.0, 100.0, 30_000, 4_174_000_000)


def test_the_trajectory_is_about_twelve_rows_from_the_beginning_to_the_end(finished: Run) -> None:
    rows = _facts(finished).trajectory
    iterations = [row.iteration for row in rows]
    assert 8 <= len(rows) <= 14
    assert iterations == sorted(set(iterations))
    assert (iterations[0], iterations[-1]) == (0, 600)
    assert rows[0].train_loss is None
    assert 500 in iterations  # the best
    assert sum(row.val_loss is not None for row in rows) == 7


def test_a_published_adapter_is_named_by_hash_and_iteration(finished: Run) -> None:
    adapter = _facts(finished).adapter
    assert adapter.best is not None
    assert adapter.final is not None
    assert (adapter.best.iteration, adapter.final.iteration) == (500, 600)
    assert adapter.best.sha256 == hashlib.sha256(b"best").hexdigest()
    (finished.folder / "adapters/lq.json").unlink()
    unknown = _facts(finished).adapter.best
    assert unknown is not None
    assert unknown.iteration is None


def test_checkpoints_say_whether_they_are_still_there(finished: Run) -> None:
    checkpoints = _facts(finished).checkpoints
    assert [record.iteration for record in checkpoints] == [100, 200, 300, 400, 500, 600]
    assert [record.iteration for record in checkpoints if record.on_disk] == [500, 600]


def test_a_bare_folder_leaves_everything_unknown_and_says_so(fresh: Run) -> None:
    for name in ("config.yaml", "run_plan.json", "provenance.json"):
        (fresh.folder / name).unlink()
    facts = _facts(fresh)
    assert facts.settings is None
    assert (facts.progress.rows_seen, facts.progress.epochs, facts.data) == (None, None, ())
    assert len(facts.unread) == 3
    assert _row(_text(facts), "Model") == "| Model | not measured |"


def test_provenance_may_lack_keys(fresh: Run) -> None:
    (fresh.folder / "provenance.json").write_text('{"data": {"files": {"train.jsonl": {"rows": null}, "x": 3}}}')
    facts = _facts(fresh)
    assert [(file.name, file.rows, file.sha256) for file in facts.data] == [("train.jsonl", None, None)]
    assert (facts.versions, facts.host) == ({}, {})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_garbage_in_the_folder_does_not_stop_the_report(fresh: Run, content: bytes) -> None:
    for name in ("config.yaml", "run_plan.json", "provenance.json"):
        (fresh.folder / name).write_bytes(content)
    facts = _facts(fresh)
    assert {"run_plan.json", "provenance.json"} <= {line.split(":")[0] for line in facts.unread}
    assert all("\n" not in line for line in facts.unread)
    assert _text(facts)


def test_losses_that_are_not_finite_are_counted_and_kept(fresh: Run) -> None:
    fresh.play(Life(first=0, last=100, begins=0, losses={50: "nan", 60: "inf"}))
    facts = _facts(fresh)
    assert (facts.train_loss.reports, facts.train_loss.not_finite) == (10, 2)
    assert facts.train_loss.lowest is not None
    assert facts.train_loss.lowest.iteration == 100
    assert "| 2 of 10 |" in _row(_text(facts), "Reports whose loss is not finite")
    assert {row.get("train_loss") for row in json.loads(json.dumps(to_json(facts), allow_nan=False))["trajectory"]} & {
        "nan",
        "inf",
    }


def test_the_first_lines_say_how_it_went(finished: Run) -> None:
    lines = _text(_facts(finished, as_status="succeeded", as_reason="completed")).splitlines()
    assert lines[0] == "# demo-lora (job 1): succeeded (completed)"
    assert lines[2].startswith("**Verdict: OK.** The best validation is at iteration 500 of 600; no checkpoint")
    assert "**Next run:** These numbers suggest no change." in lines
    assert lines[8:11] == [
        "- 600 of 600 iterations, 5 min 58 s in training, 2 restarts, 87 iterations trained twice.",
        "- Validation loss 3.6000 ± 0.0500 before training, 0.7070 ± 0.0500 at best (iteration 500), "
        "0.7549 ± 0.0500 at the end (iteration 600); 53 rows.",
        f"- The adapter of iteration 500 is in `{finished.folder}/adapters`.",
    ]


def test_what_happened_is_told_in_plain_words_with_its_proof(finished: Run) -> None:
    text = _text(_facts(finished))
    assert (
        "1. Attempt 1 crashed at iteration 337: ended by SIGKILL, sent by something other than lq. "
        "Attempt 2 began 26 s later from iteration 300 (`step-0000300`), "
        "resume quality `exact` (every bit as if never interrupted). "
        "Cost: 37 iterations trained twice; 24 s after its start it was at iteration 337. "
        "Self-test: validation loss 1.2345678901234567 measured after the resume, "
        "1.2345678901234567 recorded: equal."
    ) in text
    assert "measured after the resume, 1.1000000001 recorded: not equal." in text
    assert "resume quality `state`" in text


def test_a_run_without_restarts_says_so(fresh: Run) -> None:
    fresh.play(Life(first=0, last=600, begins=0, quality="fresh"))
    text = _text(_facts(fresh))
    assert "One attempt, no restart. It reached its end at iteration 600: trained to its last iteration." in text


def test_what_was_not_measured_reads_not_measured(fresh: Run) -> None:
    text = _text(_facts(fresh))
    for metric in ("Peak memory", "Validation loss, best", "Train loss, last report", "Tokens trained"):
        assert _row(text, metric) in (f"| {metric} | not measured |", f"| {metric} | – |")
    assert "No attempt was started." in text
    assert "- Validation loss not measured. Last train loss not measured." in text
    assert "None" not in text.replace("None was", "").replace("None recorded", "")


def test_a_failed_job_says_why_and_what_is_usable(fresh: Run) -> None:
    fresh.play(killed(first=0, last=337, begins=0, quality="fresh"))
    (fresh.folder / "checkpoints/step-0000300").mkdir(parents=True)
    fresh.settle(Status.FAILED, Reason.KILLED, "died 6 times without 200 new iterations", now=END)
    text = _text(_facts(fresh, home="/some where"))
    assert text.startswith("# demo-lora (job 1): failed (killed)\n")
    assert "died 6 times without 200 new iterations." in text
    assert "The last checkpoint on disk is that of iteration 300; `LQ_HOME='/some where' lq retry 1` goes on" in text
    typed = [" ".join(words[1:]) for words in _commands(text)]
    assert typed == ["lq retry 1", "lq report 1 --open", "lq show 1"]


def test_a_cancelled_job_with_nothing_saved_says_so(fresh: Run) -> None:
    fresh.settle(Status.CANCELLED, Reason.STOPPED_BY_USER, "cancelled by the user", now=END)
    text = _text(_facts(fresh))
    assert "- 0 of 600 iterations, not started, no restart. cancelled by the user." in text
    assert "- No adapter was published, and no checkpoint is on disk." in text


def test_the_commands_survive_being_pasted_into_a_shell(finished: Run) -> None:
    generate, last, fuse, report, show = _commands(_text(_facts(finished, home="/a b")))
    adapters = str(finished.folder / "adapters")
    assert generate[:6] == ["mlx_lm.generate", "--model", "/models/it's $5", "--adapter-path", adapters, "--prompt"]
    assert len(generate) == 7
    assert last[:3] == ["mkdir", "-p", str(finished.folder / "last")]
    assert last[-3:] == [str(finished.folder / "last"), "--prompt", "Write your question here"]
    assert report == ["LQ_HOME=/a b", "lq", "report", "1", "--open"]
    assert fuse[0] == "mlx_lm.fuse"
    assert fuse[-2:] == ["--save-path", str(finished.folder / "fused")]
    assert show == ["LQ_HOME=/a b", "lq", "show", "1"]


def test_a_full_fine_tune_has_no_rank_and_the_same_commands(tmp_path: Path) -> None:
    run = Run(tmp_path, fine_tune_type="full", trust_remote_code=True)
    with run.store:
        run.publish()
        text = _text(_facts(run))
    assert _row(text, "Trained") == "| Trained | full |"
    assert _commands(text)[0][-1] == "--trust-remote-code"


def test_foreign_text_cannot_break_a_table(tmp_path: Path) -> None:
    run = Run(tmp_path, lq={"name": "a|b <b> *x*"})
    with run.store:
        run.settle(Status.FAILED, Reason.KILLED, "x", now=END)
        text = _text(_facts(run))
    assert text.startswith("# a\\|b \\<b\\> \\*x\\* (job 1)")
    assert "| a \\| b \\`c\\` " in text


def test_every_table_is_aligned_and_has_equal_rows(finished: Run) -> None:
    finished.settle(Status.SUCCEEDED, Reason.COMPLETED, "done", now=END)
    text = _text(_facts(finished))
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    assert len(tables) >= 9
    for lines in tables:
        assert len({len(line) for line in lines}) == 1
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_settings_show_the_effective_batch(finished: Run) -> None:
    text = _text(_facts(finished))
    assert _row(text, "Effective batch") == "| Effective batch | 32 rows per update |"
    assert _row(text, "Trained") == "| Trained | lora, rank 16, scale 2.0, dropout 0.05 |"
    assert _row(text, "test") == "| test | 600 | 0.7000 (0.6412 to 0.7588) | 2.01 | 20 |"


def test_the_report_lies_in_the_jobs_folder_for_its_owner_only(finished: Run) -> None:
    path = make(finished.store, finished.id, as_status="succeeded", as_reason="completed", now=END)
    assert path == finished.folder / "report/report.md"
    written = {"report.md", "report.html", "report.json", "loss_curve.png", "training_analysis.png"}
    assert {file.name for file in path.parent.iterdir()} == written
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "![Loss by iteration](loss_curve.png)" in path.read_text()
    content = json.loads((path.parent / "report.json").read_text())
    assert (content["schema"], content["job"]["status"]) == (1, "succeeded")
    assert content["attempts"][1]["repeated_iterations"] == 37


def test_a_picture_that_fails_does_not_cost_the_report(finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    (finished.folder / "report/loss_curve.png/in the way").mkdir(parents=True)
    text = make(finished.store, finished.id, now=END).read_text()
    assert "Loss curve: not drawn." in text
    assert "## Key metrics" in text
    assert "loss_curve.png could not be drawn" in caplog.text


def test_the_command_writes_the_report_and_prints_its_path(finished: Run) -> None:
    command = [sys.executable, "-P", "-m", "orchestrator.report", str(finished.home), "1", "--as-status", "failed"]
    done = subprocess.run([*command, "--as-reason", "diverged"], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    path = Path(done.stdout.strip())
    assert path.read_text().startswith("# demo-lora (job 1): failed (diverged)\n")
    assert f"LQ_HOME={finished.home} lq retry 1" in path.read_text()


def test_an_unknown_job_is_one_line_and_exit_code_3(fresh: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fresh.home), "99"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    with pytest.raises(NoSuchJob):
        make(fresh.store, 99, now=END)


def test_wording_a_report_never_loads_matplotlib() -> None:
    program = "import sys, orchestrator.report.make, orchestrator.report.render.html; "
    program += "sys.exit(any(name.split('.')[0] == 'matplotlib' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], env=dict(os.environ), check=False).returncode == 0
