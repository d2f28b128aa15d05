"""report.md: its sections against golden files, and properties of its Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

import pytest

from jobs.model.outcomes import Outcome, Reason
from jobs.model.states import Status
from orchestrator.report.collect import collect
from orchestrator.report.facts import Facts
from orchestrator.report.render.report import render
from tests.golden import assert_golden
from tests.unit.orchestrator.report_runs import START, TWO_RESTARTS, PlayedAttempt, Run, killed
from tests.unit.orchestrator.series_runs import played_with_facts, rolled_back

GOLDEN = Path(__file__).parent / "golden"
END = START + 405.0

SECTIONS: Mapping[str, tuple[str, ...]] = {  # by run: the sections that it shows best
    "restarts": ("Head", "Key metrics", "Attempts", "Trajectory", "Next steps"),
    "facts": (
        "Results", "Answers before and after", "Data", "Adapter", "Checkpoints", "Hardware", "Settings",
        "Versions and machine",
    ),
    "rollbacks": ("Phases", "Incidents", "Requested and run"),
}  # fmt: skip


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The reports of four runs, without the path of the test."""
    home = tmp_path_factory.mktemp("home")
    runs = {name: home / name for name in ("restarts", "facts", "rollbacks", "fresh")}
    for folder in runs.values():
        folder.mkdir()
    lora = {"rank": 16, "scale": 2.0, "dropout": 0.05}
    restarts = Run(runs["restarts"], model="/models/it's $5", grad_accumulation_steps=8, lora_parameters=lora)
    restarts.play(*TWO_RESTARTS)
    restarts.publish()
    restarts.settle(Status.SUCCEEDED, Reason.COMPLETED, "trained to its last iteration", now=END)
    made = {
        "restarts": restarts,
        "facts": played_with_facts(runs["facts"]),
        "rollbacks": rolled_back(runs["rollbacks"]),
        "fresh": Run(runs["fresh"]),
    }
    return {name: _text(run, home="/a b" if name == "restarts" else None) for name, run in made.items()}


def _facts(run: Run, home: str | None = None, now: float = START + 1e6) -> Facts:
    return collect(run.store, run.id, now=now, home=home)


def _text(run: Run, home: str | None = None) -> str:
    with run.store:
        return render(_facts(run, home), zone=UTC).replace(str(run.home), "/HOME")


def _section(report: str, title: str) -> str:
    if title == "Head":
        return report.partition("\n## ")[0].rstrip() + "\n"
    return f"## {title}\n" + report.partition(f"\n## {title}\n")[2].partition("\n## ")[0].rstrip() + "\n"


@pytest.mark.parametrize(("run", "title"), [(run, title) for run, titles in SECTIONS.items() for title in titles])
def test_section_matches_golden_file(reports: dict[str, str], run: str, title: str) -> None:
    assert_golden(_section(reports[run], title), GOLDEN / f"{title.lower().replace(' ', '_')}.md")


def test_report_of_unstarted_job(reports: dict[str, str]) -> None:
    assert_golden(reports["fresh"], GOLDEN / "unstarted.md")


def test_failed_job_offers_a_retry(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.store:
        run.play(killed(first=0, last=337, begins=0, quality="fresh"))
        (run.folder / "checkpoints/step-0000300").mkdir(parents=True)
        run.settle(Status.FAILED, Reason.KILLED, "crashed 6 times without 200 new iterations", now=END)
        text = render(_facts(run, home="/some where"), zone=UTC)
    assert_golden(_section(text, "Head"), GOLDEN / "head_failed.md")
    assert ["LQ_HOME=/some where", "lq", "retry", "1"] in _commands(text)


def test_planned_stops_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    stopped = {"outcome": Outcome.STOPPED, "reason": Reason.WINDOW_CLOSED, "detail": "its window closed"}
    with run.store:
        run.play(
            PlayedAttempt(first=0, last=100, begins=0, quality="fresh", **stopped),  # type: ignore[arg-type]
            PlayedAttempt(first=100, last=600, begins=900),
        )
        facts = _facts(run)
    assert render(facts).count("1 restart (after a planned stop)") == 1


def test_resumed_weights_are_not_the_base(tmp_path: Path) -> None:
    text = _text(played_with_facts(tmp_path, resume_adapter_file="/w/adapters.safetensors"))
    assert "Before is the weights of `/w/adapters.safetensors`." in text
    assert "the base model:" not in text


def test_full_fine_tune_has_no_rank(tmp_path: Path) -> None:
    text = _text(Run(tmp_path, fine_tune_type="full"))
    assert re.search(r"\| Fine-tune type +\| full +\|", text)
    assert "rank" not in text.lower()


def _commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r": `(.*)`$", _section(text, "Next steps"), re.MULTILINE)]


def test_commands_can_be_pasted(reports: dict[str, str]) -> None:
    commands = _commands(reports["restarts"])
    assert all(words[:2] == ["LQ_HOME=/a b", "lq"] for words in commands)
    assert [words[2] for words in commands] == ["report", "chat", "test", "fuse"]


def test_names_cannot_break_tables(tmp_path: Path) -> None:
    run = Run(tmp_path, lq={"name": "a|b <b> *x* &amp;"})
    run.settle(Status.FAILED, Reason.KILLED, "x", now=END)
    text = _text(run)
    assert text.startswith("# a\\|b \\<b\\> \\*x\\* \\&amp; (job 1)")
    assert "Evidence: a \\| b \\`c\\`\n" in text


def test_tables_are_aligned(reports: dict[str, str]) -> None:
    for text in reports.values():
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            lines = block.splitlines()
            assert len({len(line) for line in lines}) == 1
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_report_uses_no_judging_words(reports: dict[str, str]) -> None:
    words = set(re.findall(r"[a-z]+", "".join(reports.values()).lower()))
    assert not words & {"excellent", "good", "great", "normal", "healthy", "stable", "poor", "bad", "successful"}


@pytest.mark.parametrize("run", ["restarts", "facts", "rollbacks", "fresh"])
def test_no_sentence_occurs_twice(reports: dict[str, str], run: str) -> None:
    prose = "\n".join(line for line in reports[run].splitlines() if not line.startswith("|"))
    sentences = [sentence.strip(" >-*") for sentence in re.split(r"(?<=[.])\s|\n", prose)]
    long = [sentence for sentence in sentences if len(sentence.split()) > 5]
    assert long
    assert len(long) == len(set(long))
