"""Every verb with --json has a schema, and its output matches the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from jobs.model.job import Incident, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.verbs import lq, run
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.report.collect import collect_all
from orchestrator.report.make import to_json
from orchestrator.results.catalogue import CATALOGUE, NAMES, schema
from orchestrator.results.json_schema import comments_of
from tests.documented import require, require_lines, require_printed, validator
from tests.unit.orchestrator.cli_homes import Home, Seen, one_of_each

SEEN = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)
NOWHERE = Seen(iteration=500, train_loss=float("nan"), val_loss=float("inf"), it_s=2.0)
CLEANED, SUCCEEDED, QUEUED = "8", "2", "7"


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Return a home with a job in every status, a group, losses that are not finite, incidents and messages."""
    place = tmp_path_factory.mktemp("rich")
    home = Home(place / "home")
    home.write_settings(
        "autostart: false\nnotify: {services: [{url: 'json://127.0.0.1:9/', name: phone}], quiet: '23:00-07:00'}\n"
    )
    one_of_each(home)
    home.store.jobs.cancel(int(QUEUED), 1.0)
    home.ended(Status.FAILED, Reason.CRASHED, name="cleaned", seen=SEEN)
    home.ended(Status.FAILED, Reason.NOT_FINITE, name="nowhere", seen=NOWHERE)
    for rate in (1e-5, 1e-4):
        home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="of-sweep", seen=SEEN, group="sweep", learning_rate=rate)
    home.queued("next", lq={"window": "00:00-00:01"})
    home.store.queue.pause("jobs 3 and 4 crashed", 1.0)
    incident = Incident(
        job_id=3, attempt=1, time=1.0, code="warning", text="it rose", evidence={"loss": float("nan"), "at": (1, 2)}
    )
    message = NewMessage(job_id=3, event="failed", key="k", title="lq: failed", body="why", tags=("phone",))
    home.store.incidents.add(incident, [message])
    build_model(place / "model")
    build_data(place / "data")
    (place / "night.yaml").write_text(
        "model: model\ndata: data\nnum_layers: -1\nlq: {matrix: {learning_rate: [1e-5, 1e-4]}}\n"
    )
    yield home
    home.store.close()


@pytest.fixture
def current(rich: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Make that home LQ_HOME and its folder the current one."""
    monkeypatch.setenv("LQ_HOME", str(rich.path))
    monkeypatch.chdir(rich.path.parent)
    return rich


READING = [
    ["status"],
    ["status", "--all"],
    ["status", "--group", "sweep"],
    *[["show", str(number)] for number in range(1, 13)],
    ["plan"],
    ["plan", "night.yaml"],
    ["submit", "night.yaml", "--dry-run"],
    ["compare", "--group", "sweep"],
    ["verify", "--all"],
    ["prune", "--all", "--dry-run"],
    ["clean", CLEANED, "--yes"],
    ["clean", SUCCEEDED, "--dry-run"],
    ["worker", "status"],
    *[["service", verb, "--kind", kind] for verb in ("status", "print") for kind in ("launchd", "systemd")],
    ["notify", "list"],
    ["config", "presets"],
    ["config", "init", "--output", "preset.yaml"],
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_output_matches_schema(words: list[str], current: Home, capsys: pytest.CaptureFixture[str]) -> None:
    code = run([*words, "--json"])
    assert code in (0, 4, 6)
    out = capsys.readouterr().out
    strictly(out)
    require_printed(words, out)


@pytest.mark.parametrize("job_id", range(1, 13))
def test_report_matches_schema(job_id: int, rich: Home) -> None:
    facts, _ = collect_all(rich.store, job_id, now=2e9)  # as `lq report` does, which draws pictures too
    require("report", to_json(facts))


@pytest.mark.parametrize("words", [["status"], ["status", "--all"], ["plan"], ["notify", "list"]])
def test_empty_home_matches_schema(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LQ_HOME", str(tmp_path / "none"))
    run([*words, "--json"])
    require_printed(words, capsys.readouterr().out)


def test_submit_matches_schema(current: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "night.yaml", "--json"]) == 0
    content = strictly(capsys.readouterr().out)
    require("submit", content)
    for job in content["jobs"]:
        for name in ("run_plan", "provenance"):
            require(name, json.loads((Path(job["job_dir"]) / f"{name}.json").read_text()))


def test_first_events_match_schema() -> None:
    assert require_lines(Path(__file__).parents[3] / "compat" / "events_v2.jsonl") > 10


def strictly(text: str) -> dict[str, Any]:
    """Parse JSON without NaN and Infinity, which are not part of JSON."""
    content: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    return content


# --- the schemas themselves ---


def machine_verbs() -> Iterator[str]:
    """Yield every verb that has --json, with dashes between its words."""
    yield from _below("", lq, click.Context(lq))


def _below(before: str, command: click.Command, context: click.Context) -> Iterator[str]:
    if any("--json" in param.opts for param in command.params):
        yield before
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _below(f"{before}-{name}".lstrip("-"), below, click.Context(below, parent=context))


def test_every_json_verb_has_a_schema() -> None:
    files = {"events", "run_plan", "state", "manifest", "provenance"}
    assert {*machine_verbs(), "check-row"} == CATALOGUE.keys() - files  # of lq check --show-row


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid(name: str) -> None:
    validator(name).check_schema(schema(name))


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_field_has_a_description(name: str) -> None:
    whole = schema(name)
    for place, form in objects(whole, name):
        assert form["additionalProperties"] is False, place
        for name_of_field, field in form["properties"].items():
            assert field.get("description") or "$ref" in json.dumps(field), f"{place}.{name_of_field}"


def objects(part: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object with fields in a schema."""
    if isinstance(part, dict):
        if "properties" in part and part.get("type") == "object":
            yield place, part
        for key, value in part.items():
            yield from objects(value, f"{place}.{key}")
    elif isinstance(part, list):
        for value in part:
            yield from objects(value, place)


def test_unknown_field_is_noticed(current: Home, capsys: pytest.CaptureFixture[str]) -> None:
    run(["status", "--json"])
    content = strictly(capsys.readouterr().out)
    content["jobs"][0]["colour"] = "red"
    with pytest.raises(AssertionError, match="colour"):
        require("status", content)


def test_comment_continues_on_next_line() -> None:
    assert comments_of(Sample) == {"first": "the first field, which continues", "last": "the last field"}


class Sample:
    """Fields of a dataclass."""

    first: int  # the first field,
    # which continues

    # a heading
    second: int
    last: int = 0  # the last field


# --- lq config schema ---


def test_schema_of_a_verb_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema", "--of", "status"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("status")
    assert run(["config", "schema", "--of", "worker status"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "lq worker status --json"


def test_unknown_schema_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema", "--of", "statsu"]) == 2
    assert "did you mean 'status'?" in capsys.readouterr().err
    assert run(["config", "schema", "--of", "weather"]) == 2
    assert "lq config schema --list" in capsys.readouterr().err


def test_schemas_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert all(len(line) <= 80 for line in lines)


CHANGES: list[tuple[list[str], str]] = [
    (["pause", "1"], "held"),
    (["resume", "1", "--queue"], "queued"),
    (["move", "1", "--first"], "queued"),
    (["edit", "1"], "queued"),
    (["cancel", "1"], "cancelled"),
    (["retry", "1"], "queued"),
    (["wait", "1", "--timeout", "0"], "queued"),
]


def test_changed_jobs_match_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "home")
    home.write_settings("autostart: false\n")
    home.queued("night")
    home.store.close()
    monkeypatch.setenv("LQ_HOME", str(home.path))
    monkeypatch.setenv("EDITOR", "true")
    for words, status in CHANGES:
        run([*words, "--json"])
        printed = capsys.readouterr().out
        require_printed(words, printed)
        (job,) = json.loads(printed)["jobs"]
        assert job | {"code": None} == {"id": 1, "name": "night", "status": status, "code": None}


def test_quiet_and_json_are_refused(current: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pause", QUEUED, "--json", "--quiet"]) == 2
    assert "--quiet and --json" in capsys.readouterr().err
