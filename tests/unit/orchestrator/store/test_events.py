"""What events become in a real store: attempts, reports, validations, checkpoints, incidents."""

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
    """A job of 1000 iterations whose child says what a test wants it to say."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.offset = 0
        self.seq = 0
        store.jobs.submit(name="n", priority=0, iters=1000, spec_json="{}", prepare=lambda _: Path("/n"), now=1.0)
        store.leases.claim(OWNER, 2.0)
        self.attempt = store.attempts.begin(1, owner=OWNER, now=3.0)

    def event(self, kind: Kind, **data: Any) -> Event:
        """The child's next event."""
        self.seq += 1
        at = 100.0 * self.attempt.number + self.seq
        return Event(seq=self.seq, time=at, awake=at, attempt=self.attempt.number, kind=kind, data=data)

    def take(self, *events: Event) -> None:
        """Ingest events, ten bytes each."""
        after = self.offset + 10 * len(events)
        assert self.store.events.ingest(
            1, events, offset_before=self.offset, offset_after=after, steps_per_report=10, now=9.0
        )
        self.offset = after

    def say(self, kind: Kind, **data: Any) -> None:
        """Ingest one event."""
        self.take(self.event(kind, **data))

    def report(self, iteration: int, *losses: float | str, **data: Any) -> None:
        """Ingest a progress event."""
        self.say(Kind.PROGRESS, iteration=iteration, losses=list(losses), **data)

    def die(self) -> None:
        """End the attempt by a kill and begin the next one."""
        self.store.attempts.end(self.attempt.id, ending=CRASHED, exit_code=None, signal=9, now=4.0)
        self.attempt = self.store.attempts.begin(1, owner=OWNER, now=5.0)
        self.seq = 0

    def series(self) -> list[tuple[int, float]]:
        """Iteration and loss of each report that leads to the present weights."""
        return [(point.iteration, point.train_loss) for point in self.store.metrics.points(1)]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Recorder]:
    """A job with its first attempt begun."""
    with Store.open(tmp_path / "lq.db") as store:
        yield Recorder(store)


def test_the_start_says_which_process_it_is_and_where_it_began(context: Recorder) -> None:
    context.say(
        Kind.STARTED,
        pid=77,
        create_time=1700000123.456789,
        boot_id="b",
        iteration=40,
        resumed_from="step-0000040",
        resume_quality="exact",
    )
    [attempt] = context.store.attempts.of(1)
    assert attempt.child == ProcessIdentity(pid=77, create_time=1700000123.456789, boot_id="b")
    assert (attempt.first_iteration, attempt.last_iteration) == (40, None)
    assert (attempt.resumed_from, attempt.quality) == ("step-0000040", "exact")
    assert context.store.jobs.get(1).child == attempt.child


def test_the_identity_recorded_by_the_one_who_started_the_child_stays(context: Recorder) -> None:
    context.store.attempts.set_child(context.attempt.id, OWNER)
    context.say(Kind.STARTED, pid=77, create_time=1.0, boot_id="b", iteration=0)
    assert context.store.attempts.of(1)[0].child == OWNER


def test_a_report_is_the_mean_of_its_iterations(context: Recorder) -> None:
    memory = {"active": 1, "cache": 2, "peak": 3, "footprint": 4}
    context.report(10, *[1.0] * 5, *[2.0] * 5, learning_rate=1e-5, tokens=640, it_s=4.0, tok_s=256.0, memory=memory)
    [point] = context.store.metrics.points(1)
    assert (point.attempt, point.iteration, point.train_loss, point.time) == (1, 10, 1.5, 101.0)
    assert (point.learning_rate, point.tokens, point.it_s, point.tok_s) == (1e-5, 640, 4.0, 256.0)
    assert (point.active_bytes, point.cache_bytes, point.peak_bytes, point.footprint_bytes) == (1, 2, 3, 4)
    job = context.store.jobs.get(1)
    assert (job.iteration, job.train_loss, job.it_s) == (10, 1.5, 4.0)
    assert context.store.attempts.of(1)[0].last_iteration == 10


def test_a_line_with_many_losses_is_cut_at_report_boundaries(context: Recorder) -> None:
    context.report(25, *map(float, range(1, 26)), tokens=99, learning_rate=0.5)
    assert context.series() == [(10, 5.5), (20, 15.5), (25, 23.0)]
    assert [(point.tokens, point.learning_rate) for point in context.store.metrics.points(1)] == [
        (None, None),
        (None, None),
        (99, 0.5),
    ]


def test_a_line_that_begins_between_boundaries_ends_its_first_report_at_the_next_one(context: Recorder) -> None:
    context.report(32, *map(float, range(28, 33)))
    assert context.series() == [(30, 29.0), (32, 31.5)]


def test_a_heartbeat_is_no_report(context: Recorder) -> None:
    context.report(10, *[1.0] * 10, it_s=2.0)
    context.report(13, it_s=None)
    assert context.series() == [(10, 1.0)]
    assert (
        context.store.jobs.get(1).iteration,
        context.store.jobs.get(1).train_loss,
        context.store.jobs.get(1).it_s,
    ) == (
        13,
        1.0,
        2.0,
    )


def test_an_iteration_whose_loss_is_not_finite_is_left_out_of_its_report(context: Recorder) -> None:
    context.report(10, *[1.0] * 9, "nan")
    context.report(20, *[1.0, 3.0] * 4, "inf", "-inf")
    assert context.series() == [(10, 1.0), (20, 2.0)]


def test_reports_without_a_finite_loss_come_back_as_they_were(context: Recorder) -> None:
    context.report(10, *["nan"] * 10)
    context.report(20, *["inf"] * 10)
    context.report(30, *["-inf"] * 10)
    losses = [loss for _, loss in context.series()]
    assert math.isnan(losses[0])
    assert losses[1:] == [math.inf, -math.inf]
    assert context.store.jobs.get(1).train_loss == -math.inf


def test_validation_and_test_are_told_apart(context: Recorder) -> None:
    rows = [1.0, "nan", 2.0]
    context.say(Kind.VALIDATION, iteration=100, loss=1.5, standard_error=0.1, examples=3, seconds=2.0, row_losses=rows)
    context.say(Kind.TEST, iteration=100, loss="nan", standard_error=None, examples=3, seconds=2.0)
    [validation] = context.store.metrics.validations(1)
    assert (validation.kind, validation.iteration, validation.loss, validation.standard_error) == (
        "validation",
        100,
        1.5,
        0.1,
    )
    assert validation.row_losses is not None
    assert validation.row_losses[::2] == (1.0, 2.0)
    assert math.isnan(validation.row_losses[1])
    [test] = context.store.metrics.validations(1, kind="test")
    assert math.isnan(test.loss)
    assert (test.row_losses, test.standard_error) == (None, None)
    assert context.store.jobs.get(1).val_loss == 1.5


def test_a_checkpoint_is_listed(context: Recorder) -> None:
    context.say(Kind.CHECKPOINT, iteration=50, path="checkpoints/step-0000050", bytes=1234, seconds=0.5)
    [record] = context.store.metrics.checkpoints(1)
    assert (record.iteration, record.path, record.size_bytes, record.seconds) == (
        50,
        "checkpoints/step-0000050",
        1234,
        0.5,
    )


def test_a_self_test_that_differs_is_an_incident_and_one_that_agrees_is_not(context: Recorder) -> None:
    context.say(Kind.SELF_TEST, equal=True, measured=1.25, recorded=1.25)
    assert context.store.incidents.of(1) == []
    assert context.store.attempts.self_tests(1) == {1: {"equal": True, "measured": 1.25, "recorded": 1.25}}
    context.die()
    context.say(Kind.SELF_TEST, equal=False, measured=1.5, recorded=1.25)
    [incident] = context.store.incidents.of(1)
    assert (incident.code, incident.attempt, incident.evidence["measured"]) == ("self_test", 2, 1.5)
    assert "1.5, recorded: 1.25" in incident.text


def test_a_warning_of_the_child_is_an_incident(context: Recorder) -> None:
    context.say(Kind.WARNING, code="rows_cut", text="3 rows were cut", data={"rows": 3})
    [incident] = context.store.incidents.of(1)
    assert (incident.code, incident.text, incident.evidence) == ("rows_cut", "3 rows were cut", {"rows": 3})


def test_after_a_resume_the_repeated_stretch_counts_once(context: Recorder) -> None:
    context.say(Kind.STARTED, iteration=0)
    for iteration in (10, 20, 30, 40):
        context.report(iteration, *[1.0] * 10)
    for iteration in (20, 40):
        context.say(Kind.VALIDATION, iteration=iteration, loss=1.0, examples=1, seconds=1.0)
        context.say(Kind.CHECKPOINT, iteration=iteration, path=f"c/{iteration}", bytes=1, seconds=1.0)
    context.die()
    context.say(Kind.STARTED, iteration=20, resumed_from="step-0000020", resume_quality="exact")
    assert context.store.jobs.get(1).iteration == 20
    context.report(30, *[2.0] * 10)
    assert context.series() == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert [found.iteration for found in context.store.metrics.validations(1)] == [20]
    assert [found.iteration for found in context.store.metrics.checkpoints(1)] == [20]
    assert [point.iteration for point in context.store.metrics.points(1, superseded=True)] == [10, 20, 30, 40, 30]


def test_a_resume_taken_in_together_with_what_it_repeats_counts_once_too(context: Recorder) -> None:
    first = [context.event(Kind.STARTED, iteration=0), context.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10)]
    context.die()
    context.take(
        *first, context.event(Kind.STARTED, iteration=0), context.event(Kind.PROGRESS, iteration=10, losses=[2.0] * 10)
    )
    assert context.series() == [(10, 2.0)]


def test_a_report_cut_short_by_a_stop_is_replaced_by_the_whole_one(context: Recorder) -> None:
    context.say(Kind.STARTED, iteration=0)
    context.report(10, *[1.0] * 10)
    context.report(15, *[1.0] * 5)
    context.die()
    context.say(Kind.STARTED, iteration=15, resumed_from="step-0000015", resume_quality="exact")
    assert context.series() == [(10, 1.0), (15, 1.0)]
    context.report(20, *[1.0] * 5, *[2.0] * 5)  # the checkpoint brought the losses of 11 to 15 along
    assert context.series() == [(10, 1.0), (20, 1.5)]


def test_the_same_events_again_change_nothing(context: Recorder) -> None:
    events = [
        context.event(Kind.STARTED, iteration=0),
        context.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10),
        context.event(Kind.WARNING, code="w", text="w"),
    ]
    context.take(*events)
    before = context.store.jobs.get(1)
    context.take(*events)
    assert context.store.jobs.get(1) == before
    assert len(context.store.metrics.points(1, superseded=True)) == len(context.store.incidents.of(1)) == 1


def test_another_offset_than_the_stored_one_writes_nothing(context: Recorder) -> None:
    context.report(10, *[1.0] * 10)
    event = context.event(Kind.PROGRESS, iteration=20, losses=[1.0] * 10)
    for wrong in (0, 9, 11):
        assert not context.store.events.ingest(
            1, [event], offset_before=wrong, offset_after=50, steps_per_report=10, now=9.0
        )
    assert context.store.events.offset(1) == 10
    assert context.series() == [(10, 1.0)]


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
def test_an_event_of_a_wrong_shape_is_recorded_and_the_next_one_is_taken(
    context: Recorder, kind: Kind, data: dict[str, Any]
) -> None:
    context.take(context.event(kind, **data), context.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10))
    assert [incident.code for incident in context.store.incidents.of(1)] == ["events_unreadable"]
    assert context.series() == [(10, 1.0)]


def test_an_event_of_an_attempt_nobody_began_is_recorded(context: Recorder) -> None:
    context.take(Event(seq=1, time=1.0, awake=1.0, attempt=9, kind=Kind.PHASE, data={"phase": "train"}))
    [incident] = context.store.incidents.of(1)
    assert (incident.code, incident.attempt) == ("events_unreadable", None)
    assert "attempt 9" in incident.text


def test_crashes_count_only_the_iterations_no_attempt_had_reached_before(context: Recorder) -> None:
    for reached in (300, 250, None, 420):
        if reached is not None:
            context.report(reached)
        context.die()
    assert [crash.gained for crash in context.store.attempts.crashes(1)] == [300, 0, 0, 120]


def test_crashes_are_counted_anew_after_a_retry(context: Recorder) -> None:
    context.report(300)
    context.die()
    context.store.attempts.end(context.attempt.id, ending=CRASHED, exit_code=None, signal=9, now=4.0)
    failed = Decision(status=Status.FAILED, reason=Reason.KILLED, detail="gave up")
    context.store.leases.settle(1, failed, owner=OWNER, now=5.0)
    context.store.jobs.retry(1, 6.0)
    assert context.store.attempts.crashes(1) == []
    context.store.leases.claim(OWNER, 7.0)
    context.attempt, context.seq = context.store.attempts.begin(1, owner=OWNER, now=8.0), 0
    assert context.attempt.number == 3
    context.say(Kind.ENDED, outcome="crashed", reason="crashed", iteration=310)
    context.die()
    assert context.store.attempts.crashes(1) == [Crash(gained=10, reason="killed")]


def test_a_fact_told_again_takes_the_place_of_the_first(context: Recorder) -> None:
    context.say(Kind.FACT, name="dataset", value={"rows": 1})
    context.say(Kind.FACT, name="answer.before.0", value={"answer": "x", "loss": "nan"})
    context.die()
    context.say(Kind.FACT, name="dataset", value={"rows": 2})
    assert context.store.metrics.facts(1) == {"answer.before.0": {"answer": "x", "loss": "nan"}, "dataset": {"rows": 2}}
    context.say(Kind.FACT, name="dataset")
    assert context.store.incidents.of(1)[-1].code == "events_unreadable"
