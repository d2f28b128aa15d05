"""lq reads the events.jsonl of every released version. Never edit events_v*.jsonl."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.model.events import Kind, number, to_line
from jobs.model.job import ProcessIdentity
from jobs.model.outcomes import Ending, ExitReport, Outcome, Reason
from jobs.policies.exits import classify
from orchestrator.store.store import Store
from orchestrator.worker.ingest import ingest
from workers.events.log import ended_event, read

GOLDEN = Path(__file__).parent / "events_v2.jsonl"
KILLED = Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="ended by SIGKILL")
OWNER = ProcessIdentity(pid=1, create_time=1.0, boot_id="boot-a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that has ingested the golden file, a job with two attempts."""
    path = tmp_path / "events.jsonl"
    shutil.copyfile(GOLDEN, path)
    with Store.open(tmp_path / "lq.db") as opened:
        opened.jobs.submit(name="n", priority=0, iters=8, spec_json="{}", prepare=lambda _: tmp_path, now=1.0)
        opened.leases.claim(OWNER, 2.0)
        first = opened.attempts.begin(1, owner=OWNER, now=3.0)
        opened.attempts.end(first.id, ending=KILLED, exit_code=None, signal=9, now=4.0)
        opened.attempts.begin(1, owner=OWNER, now=5.0)
        ingest(opened, 1, path, 1, 50.0)
        yield opened


def test_golden_file_has_every_kind() -> None:
    seen = read(GOLDEN, 0)
    assert Counter(event.kind for event in seen.events) == {
        Kind.STARTED: 2,
        Kind.PHASE: 1,
        Kind.PROGRESS: 4,
        Kind.VALIDATION: 2,
        Kind.TEST: 1,
        Kind.CHECKPOINT: 2,
        Kind.SELF_TEST: 1,
        Kind.WARNING: 1,
        Kind.ENDED: 1,
    }
    assert {event.kind for event in seen.events} == set(Kind) - {Kind.FACT}, "facts came later"
    assert [text.startswith('not an event: b\'{"v":2,"seq":9,') for text in seen.unreadable] == [True]
    assert seen.offset == GOLDEN.stat().st_size


def test_golden_lines_are_read_unchanged() -> None:
    lines = [line for line in GOLDEN.read_text().splitlines() if line.endswith("}")]
    for line, event in zip(lines, read(GOLDEN, 0).events, strict=True):
        fields = json.loads(line)
        envelope = {key: fields.pop(key) for key in ("v", "seq", "time", "awake", "attempt", "kind")}
        assert envelope == {
            "v": 2,
            "seq": event.seq,
            "time": event.time,
            "awake": event.awake,
            "attempt": event.attempt,
            "kind": event.kind.value,
        }
        assert event.data == fields


def test_writer_still_writes_version_1() -> None:
    """To change the format of a line, raise the version, keep this file and add a new one."""
    lines = [line + b"\n" for line in GOLDEN.read_bytes().splitlines() if line.endswith(b"}")]
    again = [to_line(event) for event in read(GOLDEN, 0).events]
    assert [json.loads(line) for line in again] == [json.loads(line) for line in lines]


def test_non_finite_losses_stay_distinct() -> None:
    [losses] = [event.data["losses"] for event in read(GOLDEN, 0).events if event.data.get("grad_norm") == "nan"]
    assert [str(number(loss)) for loss in losses] == ["5.0", "nan", "inf", "-inf"]


def test_endings_of_golden_attempts() -> None:
    def ending(attempt: int) -> tuple[Outcome, Reason]:
        found = classify(
            ExitReport(
                exit_code=None,
                signal=None,
                ended=ended_event(GOLDEN, attempt),
                stop_asked=False,
                killed_by_lq=False,
                same_boot=True,
            )
        )
        return found.outcome, found.reason

    assert ending(1) == (Outcome.CRASHED, Reason.LOST)
    assert ending(2) == (Outcome.DONE, Reason.COMPLETED)


def test_store_of_golden_file(store: Store) -> None:
    job = store.jobs.get(1)
    assert (job.iteration, job.train_loss, job.it_s) == (8, 4.0, 4.0)
    assert [
        (str(point.train_loss), point.iteration, point.attempt, point.tokens) for point in store.metrics.points(1)
    ] == [
        ("6.0", 1, 1, None),
        ("5.5", 2, 1, 180),
        ("5.0", 3, 1, None),
        ("nan", 4, 1, None),
        ("inf", 5, 1, None),
        ("-inf", 6, 1, 540),
        ("4.5", 7, 2, None),
        ("4.0", 8, 2, 720),
    ]
    assert [(str(found.loss), found.iteration, found.standard_error) for found in store.metrics.validations(1)] == [
        ("6.25", 0, 0.125),
        ("nan", 8, None),
    ]
    [test] = store.metrics.validations(1, kind="test")
    assert (test.loss, test.examples, test.row_losses) == (4.25, 2, (4.0, 4.5))
    assert [(found.iteration, found.path, found.size_bytes) for found in store.metrics.checkpoints(1)] == [
        (6, "checkpoints/step-0000006", 58482),
        (8, "checkpoints/step-0000008", 58485),
    ]
    assert sorted(incident.code for incident in store.incidents.of(1)) == ["events_unreadable", "truncated"]
    first, second = store.attempts.of(1)
    assert (first.first_iteration, first.last_iteration, first.quality, first.resumed_from) == (0, 6, "fresh", None)
    assert (second.first_iteration, second.last_iteration, second.quality) == (6, 8, "exact")
    assert second.resumed_from == "step-0000006"
    assert first.child == ProcessIdentity(pid=4242, create_time=1790000000.75, boot_id="boot-a")
    assert store.attempts.self_tests(1)[2]["equal"] is True
