"""Ingestion of events into a real store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Event, Kind
from jobs.model.job import ProcessIdentity
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.states import Status
from jobs.policies.decision import Decision
from jobs.policies.retry import Crash
from orchestrator.store.store import Store

OWNER = ProcessIdentity(pid=10, create_time=1700000000.25, boot_id="boot-1")
CRASHED = Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="ended by SIGKILL")


class Recorder:
    """A job of 1000 iterations whose trainer writes the events that a test needs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.offset = 0
        self.seq = 0
        store.jobs.submit(name="n", priority=0, iters=1000, spec_json="{}", prepare=lambda _: Path("/n"), now=1.0)
        store.leases.claim(OWNER, 2.0)
        self.attempt = store.attempts.begin(1, owner=OWNER, now=3.0)

    def event(self, kind: Kind, **data: Any) -> Event:
        """Return the next event of the trainer."""
        self.seq += 1
        at = 100.0 * self.attempt.number + self.seq
        return Event(seq=self.seq, time=at, awake=at, attempt=self.attempt.number, kind=kind, data=data)

    def ingest(self, *events: Event) -> None:
        """Ingest events, ten bytes each."""
        after = self.offset + 10 * len(events)
        assert self.store.events.ingest(
            1, events, offset_before=self.offset, offset_after=after, steps_per_report=10, now=9.0
        )
        self.offset = after

    def record(self, kind: Kind, **data: Any) -> None:
        """Ingest one event."""
        self.ingest(self.event(kind, **data))

    def report(self, iteration: int, *losses: float | str, **data: Any) -> None:
        """Ingest a progress event."""
        self.record(Kind.PROGRESS, iteration=iteration, losses=list(losses), **data)

    def crash(self) -> None:
        """End the attempt with a kill and begin the next one."""
        self.store.attempts.end(self.attempt.id, ending=CRASHED, exit_code=None, signal=9, now=4.0)
        self.attempt = self.store.attempts.begin(1, owner=OWNER, now=5.0)
        self.seq = 0

    def series(self) -> list[tuple[int, float]]:
        """Return iteration and loss of each report that led to the present weights."""
        return [(point.iteration, point.train_loss) for point in self.store.metrics.points(1)]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Give a job whose first attempt has begun."""
    with Store.open(tmp_path / "lq.db") as store:
        yield Recorder(store)


def test_started_records_process_and_origin(recorder: Recorder) -> None:
    recorder.record(
        Kind.STARTED,
        pid=77,
        create_time=1700000123.456789,
        boot_id="b",
        iteration=40,
        resumed_from="step-0000040",
        resume_quality="exact",
    )
    [attempt] = recorder.store.attempts.of(1)
    assert attempt.child == ProcessIdentity(pid=77, create_time=1700000123.456789, boot_id="b")
    assert (attempt.first_iteration, attempt.last_iteration) == (40, None)
    assert (attempt.resumed_from, attempt.quality) == ("step-0000040", "exact")
    assert recorder.store.jobs.get(1).child == attempt.child


def test_started_keeps_recorded_process(recorder: Recorder) -> None:
    recorder.store.attempts.set_child(recorder.attempt.id, OWNER)
    recorder.record(Kind.STARTED, pid=77, create_time=1.0, boot_id="b", iteration=0)
    assert recorder.store.attempts.of(1)[0].child == OWNER


def test_point_is_mean_of_its_iterations(recorder: Recorder) -> None:
    memory = {"active": 1, "cache": 2, "peak": 3, "footprint": 4}
    recorder.report(10, *[1.0] * 5, *[2.0] * 5, learning_rate=1e-5, tokens=640, it_s=4.0, tok_s=256.0, memory=memory)
    [point] = recorder.store.metrics.points(1)
    assert (point.attempt, point.iteration, point.train_loss, point.time) == (1, 10, 1.5, 101.0)
    assert (point.learning_rate, point.tokens, point.it_s, point.tok_s) == (1e-5, 640, 4.0, 256.0)
    assert (point.active_bytes, point.cache_bytes, point.peak_bytes, point.footprint_bytes) == (1, 2, 3, 4)
    job = recorder.store.jobs.get(1)
    assert (job.iteration, job.train_loss, job.it_s) == (10, 1.5, 4.0)
    assert recorder.store.attempts.of(1)[0].last_iteration == 10


def test_long_line_is_split_into_reports(recorder: Recorder) -> None:
    recorder.report(25, *map(float, range(1, 26)), tokens=99, learning_rate=0.5)
    assert recorder.series() == [(10, 5.5), (20, 15.5), (25, 23.0)]
    assert [(point.tokens, point.learning_rate) for point in recorder.store.metrics.points(1)] == [
        (None, None),
        (None, None),
        (99, 0.5),
    ]


def test_line_from_middle_of_report(recorder: Recorder) -> None:
    recorder.report(32, *map(float, range(28, 33)))
    assert recorder.series() == [(30, 29.0), (32, 31.5)]


def test_heartbeat_adds_no_point(recorder: Recorder) -> None:
    recorder.report(10, *[1.0] * 10, it_s=2.0)
    recorder.report(13, it_s=None)
    assert recorder.series() == [(10, 1.0)]
    job = recorder.store.jobs.get(1)
    assert (job.iteration, job.train_loss, job.it_s) == (13, 1.0, 2.0)


def test_point_omits_non_finite_losses(recorder: Recorder) -> None:
    recorder.report(10, *[1.0] * 9, "nan")
    recorder.report(20, *[1.0, 3.0] * 4, "inf", "-inf")
    assert recorder.series() == [(10, 1.0), (20, 2.0)]


def test_all_non_finite_losses_are_kept(recorder: Recorder) -> None:
    recorder.report(10, *["nan"] * 10)
    recorder.report(20, *["inf"] * 10)
    recorder.report(30, *["-inf"] * 10)
    losses = [loss for _, loss in recorder.series()]
    assert math.isnan(losses[0])
    assert losses[1:] == [math.inf, -math.inf]
    assert recorder.store.jobs.get(1).train_loss == -math.inf


def test_validation_and_test_are_separate(recorder: Recorder) -> None:
    rows = [1.0, "nan", 2.0]
    size: dict[str, Any] = {"iteration": 100, "examples": 3, "seconds": 2.0}
    recorder.record(Kind.VALIDATION, loss=1.5, standard_error=0.1, row_losses=rows, **size)
    recorder.record(Kind.TEST, loss="nan", standard_error=None, **size)
    [validation] = recorder.store.metrics.validations(1)
    assert (validation.kind, validation.iteration, validation.loss, validation.standard_error) == (
        "validation",
        100,
        1.5,
        0.1,
    )
    assert validation.row_losses is not None
    assert validation.row_losses[::2] == (1.0, 2.0)
    assert math.isnan(validation.row_losses[1])
    [test] = recorder.store.metrics.validations(1, kind="test")
    assert math.isnan(test.loss)
    assert (test.row_losses, test.standard_error) == (None, None)
    assert recorder.store.jobs.get(1).val_loss == 1.5


def test_checkpoint_event_is_stored(recorder: Recorder) -> None:
    recorder.record(Kind.CHECKPOINT, iteration=50, path="checkpoints/step-0000050", bytes=1234, seconds=0.5)
    [record] = recorder.store.metrics.checkpoints(1)
    assert (record.iteration, record.path, record.size_bytes, record.seconds) == (
        50,
        "checkpoints/step-0000050",
        1234,
        0.5,
    )


def test_unequal_self_test_is_incident(recorder: Recorder) -> None:
    recorder.record(Kind.SELF_TEST, equal=True, measured=1.25, recorded=1.25)
    assert recorder.store.incidents.of(1) == []
    assert recorder.store.attempts.self_tests(1) == {1: {"equal": True, "measured": 1.25, "recorded": 1.25}}
    recorder.crash()
    recorder.record(Kind.SELF_TEST, equal=False, measured=1.5, recorded=1.25)
    [incident] = recorder.store.incidents.of(1)
    assert (incident.code, incident.attempt, incident.evidence["measured"]) == ("self_test", 2, 1.5)


def test_warning_becomes_incident(recorder: Recorder) -> None:
    recorder.record(Kind.WARNING, code="rows_cut", text="3 rows were cut", data={"rows": 3})
    [incident] = recorder.store.incidents.of(1)
    assert (incident.code, incident.text, incident.evidence) == ("rows_cut", "3 rows were cut", {"rows": 3})


def test_resume_supersedes_repeated_part(recorder: Recorder) -> None:
    recorder.record(Kind.STARTED, iteration=0)
    for iteration in (10, 20, 30, 40):
        recorder.report(iteration, *[1.0] * 10)
    for iteration in (20, 40):
        recorder.record(Kind.VALIDATION, iteration=iteration, loss=1.0, examples=1, seconds=1.0)
        recorder.record(Kind.CHECKPOINT, iteration=iteration, path=f"c/{iteration}", bytes=1, seconds=1.0)
    recorder.crash()
    recorder.record(Kind.STARTED, iteration=20, resumed_from="step-0000020", resume_quality="exact")
    assert recorder.store.jobs.get(1).iteration == 20
    recorder.report(30, *[2.0] * 10)
    assert recorder.series() == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert [validation.iteration for validation in recorder.store.metrics.validations(1)] == [20]
    assert [checkpoint.iteration for checkpoint in recorder.store.metrics.checkpoints(1)] == [20]
    assert [point.iteration for point in recorder.store.metrics.points(1, superseded=True)] == [10, 20, 30, 40, 30]


def test_resume_in_same_batch_supersedes(recorder: Recorder) -> None:
    first = [recorder.event(Kind.STARTED, iteration=0), recorder.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10)]
    recorder.crash()
    recorder.ingest(
        *first,
        recorder.event(Kind.STARTED, iteration=0),
        recorder.event(Kind.PROGRESS, iteration=10, losses=[2.0] * 10),
    )
    assert recorder.series() == [(10, 2.0)]


def test_partial_report_is_superseded(recorder: Recorder) -> None:
    recorder.record(Kind.STARTED, iteration=0)
    recorder.report(10, *[1.0] * 10)
    recorder.report(15, *[1.0] * 5)
    recorder.crash()
    recorder.record(Kind.STARTED, iteration=15, resumed_from="step-0000015", resume_quality="exact")
    assert recorder.series() == [(10, 1.0), (15, 1.0)]
    recorder.report(20, *[1.0] * 5, *[2.0] * 5)  # the checkpoint holds the losses of 11 to 15
    assert recorder.series() == [(10, 1.0), (20, 1.5)]


def test_ingest_twice_changes_nothing(recorder: Recorder) -> None:
    events = [
        recorder.event(Kind.STARTED, iteration=0),
        recorder.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10),
        recorder.event(Kind.WARNING, code="w", text="w"),
    ]
    recorder.ingest(*events)
    before = recorder.store.jobs.get(1)
    recorder.ingest(*events)
    assert recorder.store.jobs.get(1) == before
    assert len(recorder.store.metrics.points(1, superseded=True)) == len(recorder.store.incidents.of(1)) == 1


def test_ingest_at_wrong_offset_is_refused(recorder: Recorder) -> None:
    recorder.report(10, *[1.0] * 10)
    event = recorder.event(Kind.PROGRESS, iteration=20, losses=[1.0] * 10)
    for wrong in (0, 9, 11):
        assert not recorder.store.events.ingest(
            1, [event], offset_before=wrong, offset_after=50, steps_per_report=10, now=9.0
        )
    assert recorder.store.events.offset(1) == 10
    assert recorder.series() == [(10, 1.0)]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Kind.PROGRESS, {"losses": [1.0]}),
        (Kind.PROGRESS, {"iteration": 10, "losses": [None]}),
        (Kind.VALIDATION, {"iteration": 10, "loss": None, "examples": 1, "seconds": 1.0}),
        (Kind.CHECKPOINT, {"iteration": 10}),
        (Kind.STARTED, {"iteration": "nan"}),
        (Kind.WARNING, {"code": "c", "text": "t", "data": [1]}),
    ],
)
def test_malformed_event_becomes_incident(recorder: Recorder, kind: Kind, data: dict[str, Any]) -> None:
    recorder.ingest(recorder.event(kind, **data), recorder.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10))
    assert [incident.code for incident in recorder.store.incidents.of(1)] == ["events_unreadable"]
    assert recorder.series() == [(10, 1.0)]


def test_unknown_attempt_becomes_incident(recorder: Recorder) -> None:
    recorder.ingest(Event(seq=1, time=1.0, awake=1.0, attempt=9, kind=Kind.PHASE, data={"phase": "train"}))
    [incident] = recorder.store.incidents.of(1)
    assert (incident.code, incident.attempt) == ("events_unreadable", None)


def test_crash_gain_counts_new_iterations(recorder: Recorder) -> None:
    for reached in (300, 250, None, 420):
        if reached is not None:
            recorder.report(reached)
        recorder.crash()
    assert [crash.gained for crash in recorder.store.attempts.crashes(1)] == [300, 0, 0, 120]


def test_retry_resets_crash_count(recorder: Recorder) -> None:
    recorder.report(300)
    recorder.crash()
    recorder.store.attempts.end(recorder.attempt.id, ending=CRASHED, exit_code=None, signal=9, now=4.0)
    failed = Decision(status=Status.FAILED, reason=Reason.KILLED, detail="gave up")
    recorder.store.leases.settle(1, failed, owner=OWNER, now=5.0)
    recorder.store.jobs.retry(1, 6.0)
    assert recorder.store.attempts.crashes(1) == []
    recorder.store.leases.claim(OWNER, 7.0)
    recorder.attempt, recorder.seq = recorder.store.attempts.begin(1, owner=OWNER, now=8.0), 0
    assert recorder.attempt.number == 3
    recorder.record(Kind.ENDED, outcome="crashed", reason="crashed", iteration=310)
    recorder.crash()
    assert recorder.store.attempts.crashes(1) == [Crash(gained=10, reason="killed")]


def test_later_fact_replaces_earlier_one(recorder: Recorder) -> None:
    recorder.record(Kind.FACT, name="dataset", value={"rows": 1})
    recorder.record(Kind.FACT, name="answer.before.0", value={"answer": "x", "loss": "nan"})
    recorder.crash()
    recorder.record(Kind.FACT, name="dataset", value={"rows": 2})
    assert recorder.store.metrics.facts(1) == {
        "answer.before.0": {"answer": "x", "loss": "nan"},
        "dataset": {"rows": 2},
    }
    recorder.record(Kind.FACT, name="dataset")
    assert recorder.store.incidents.of(1)[-1].code == "events_unreadable"


def test_rewards_are_means_over_reports(recorder: Recorder) -> None:
    """A line may span two reports; each has the mean of its own iterations, without those that have no reward."""
    recorder.report(
        20,
        *[1.0] * 20,
        chosen_rewards=[1.0] * 10 + [3.0] * 9 + ["nan"],
        rejected_rewards=["nan"] * 10 + [-1.0] * 10,
        accuracies=[0.5] * 10 + [1.0] * 10,
    )
    points = recorder.store.metrics.points(1)
    assert [(point.chosen_reward, point.rejected_reward, point.accuracy) for point in points] == [
        (1.0, None, 0.5),
        (3.0, -1.0, 1.0),
    ]


def test_reports_without_rewards_have_none(recorder: Recorder) -> None:
    recorder.report(10, *[1.0] * 10)
    [point] = recorder.store.metrics.points(1)
    assert (point.chosen_reward, point.rejected_reward, point.accuracy) == (None, None, None)


def test_validation_keeps_rewards(recorder: Recorder) -> None:
    rewards = {"chosen": 1.5, "rejected": "nan", "margin": "nan", "margin_error": None, "accuracy": 0.75}
    recorder.record(Kind.VALIDATION, iteration=0, loss=0.6, examples=4, seconds=1.0, rewards=rewards)
    [validation] = recorder.store.metrics.validations(1)
    found = validation.rewards
    assert found is not None
    assert (found.chosen, found.accuracy, found.accuracy_error) == (1.5, 0.75, None)
    assert math.isnan(found.rejected)
