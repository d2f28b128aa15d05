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
from jobs.policies.after_attempt import Decision
from jobs.policies.retry import Death
from orchestrator.store.store import Store

OWNER = ProcessIdentity(pid=10, create_time=1700000000.25, boot_id="boot-1")
DIED = Ending(outcome=Outcome.DIED, reason=Reason.KILLED, detail="ended by SIGKILL")


class Night:
    """A job of 1000 iterations whose child says what a test wants it to say."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.offset = 0
        self.seq = 0
        store.submit(name="n", priority=0, iters=1000, spec_json="{}", prepare=lambda _: Path("/n"), now=1.0)
        store.claim(OWNER, 2.0)
        self.attempt = store.begin_attempt(1, owner=OWNER, now=3.0)

    def event(self, kind: Kind, **data: Any) -> Event:
        """The child's next event."""
        self.seq += 1
        at = 100.0 * self.attempt.number + self.seq
        return Event(seq=self.seq, time=at, awake=at, attempt=self.attempt.number, kind=kind, data=data)

    def take(self, *events: Event) -> None:
        """Ingest events, ten bytes each."""
        after = self.offset + 10 * len(events)
        assert self.store.ingest(1, events, offset_before=self.offset, offset_after=after, steps_per_report=10, now=9.0)
        self.offset = after

    def say(self, kind: Kind, **data: Any) -> None:
        """Ingest one event."""
        self.take(self.event(kind, **data))

    def report(self, iteration: int, *losses: float | str, **data: Any) -> None:
        """Ingest a progress event."""
        self.say(Kind.PROGRESS, iteration=iteration, losses=list(losses), **data)

    def die(self) -> None:
        """End the attempt by a kill and begin the next one."""
        self.store.end_attempt(self.attempt.id, ending=DIED, exit_code=None, signal=9, now=4.0)
        self.attempt = self.store.begin_attempt(1, owner=OWNER, now=5.0)
        self.seq = 0

    def series(self) -> list[tuple[int, float]]:
        """Iteration and loss of each report that leads to the present weights."""
        return [(point.iteration, point.train_loss) for point in self.store.points(1)]


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    """A job with its first attempt begun."""
    with Store.open(tmp_path / "lq.db") as store:
        yield Night(store)


def test_the_start_says_which_process_it_is_and_where_it_began(night: Night) -> None:
    night.say(
        Kind.STARTED,
        pid=77,
        create_time=1700000123.456789,
        boot_id="b",
        iteration=40,
        resumed_from="step-0000040",
        resume_quality="exact",
    )
    [attempt] = night.store.attempts(1)
    assert attempt.child == ProcessIdentity(pid=77, create_time=1700000123.456789, boot_id="b")
    assert (attempt.first_iteration, attempt.last_iteration) == (40, None)
    assert (attempt.resumed_from, attempt.quality) == ("step-0000040", "exact")
    assert night.store.job(1).child == attempt.child


def test_the_identity_recorded_by_the_one_who_started_the_child_stays(night: Night) -> None:
    night.store.set_child(night.attempt.id, OWNER)
    night.say(Kind.STARTED, pid=77, create_time=1.0, boot_id="b", iteration=0)
    assert night.store.attempts(1)[0].child == OWNER


def test_a_report_is_the_mean_of_its_iterations(night: Night) -> None:
    memory = {"active": 1, "cache": 2, "peak": 3, "footprint": 4}
    night.report(10, *[1.0] * 5, *[2.0] * 5, learning_rate=1e-5, tokens=640, it_s=4.0, tok_s=256.0, memory=memory)
    [point] = night.store.points(1)
    assert (point.attempt, point.iteration, point.train_loss, point.time) == (1, 10, 1.5, 101.0)
    assert (point.learning_rate, point.tokens, point.it_s, point.tok_s) == (1e-5, 640, 4.0, 256.0)
    assert (point.active_bytes, point.cache_bytes, point.peak_bytes, point.footprint_bytes) == (1, 2, 3, 4)
    job = night.store.job(1)
    assert (job.iteration, job.train_loss, job.it_s, job.eta_seconds) == (10, 1.5, 4.0, 247.5)
    assert night.store.attempts(1)[0].last_iteration == 10


def test_a_line_with_many_losses_is_cut_at_report_boundaries(night: Night) -> None:
    night.report(25, *map(float, range(1, 26)), tokens=99, learning_rate=0.5)
    assert night.series() == [(10, 5.5), (20, 15.5), (25, 23.0)]
    assert [(point.tokens, point.learning_rate) for point in night.store.points(1)] == [
        (None, None),
        (None, None),
        (99, 0.5),
    ]


def test_a_line_that_begins_between_boundaries_ends_its_first_report_at_the_next_one(night: Night) -> None:
    night.report(32, *map(float, range(28, 33)))
    assert night.series() == [(30, 29.0), (32, 31.5)]


def test_a_heartbeat_is_no_report(night: Night) -> None:
    night.report(10, *[1.0] * 10, it_s=2.0)
    night.report(13, it_s=None)
    assert night.series() == [(10, 1.0)]
    assert (night.store.job(1).iteration, night.store.job(1).train_loss, night.store.job(1).it_s) == (13, 1.0, 2.0)


def test_an_iteration_whose_loss_is_not_finite_is_left_out_of_its_report(night: Night) -> None:
    night.report(10, *[1.0] * 9, "nan")
    night.report(20, *[1.0, 3.0] * 4, "inf", "-inf")
    assert night.series() == [(10, 1.0), (20, 2.0)]


def test_reports_without_a_finite_loss_come_back_as_they_were(night: Night) -> None:
    night.report(10, *["nan"] * 10)
    night.report(20, *["inf"] * 10)
    night.report(30, *["-inf"] * 10)
    losses = [loss for _, loss in night.series()]
    assert math.isnan(losses[0])
    assert losses[1:] == [math.inf, -math.inf]
    assert night.store.job(1).train_loss == -math.inf


def test_validation_and_test_are_told_apart(night: Night) -> None:
    rows = [1.0, "nan", 2.0]
    night.say(Kind.VALIDATION, iteration=100, loss=1.5, standard_error=0.1, examples=3, seconds=2.0, row_losses=rows)
    night.say(Kind.TEST, iteration=100, loss="nan", standard_error=None, examples=3, seconds=2.0)
    [validation] = night.store.validations(1)
    assert (validation.kind, validation.iteration, validation.loss, validation.standard_error) == (
        "validation",
        100,
        1.5,
        0.1,
    )
    assert validation.row_losses is not None
    assert validation.row_losses[::2] == (1.0, 2.0)
    assert math.isnan(validation.row_losses[1])
    [test] = night.store.validations(1, kind="test")
    assert math.isnan(test.loss)
    assert (test.row_losses, test.standard_error) == (None, None)
    assert night.store.job(1).val_loss == 1.5


def test_a_checkpoint_is_listed(night: Night) -> None:
    night.say(Kind.CHECKPOINT, iteration=50, path="checkpoints/step-0000050", bytes=1234, seconds=0.5)
    [record] = night.store.checkpoints(1)
    assert (record.iteration, record.path, record.size_bytes, record.seconds) == (
        50,
        "checkpoints/step-0000050",
        1234,
        0.5,
    )


def test_a_self_test_that_differs_is_an_incident_and_one_that_agrees_is_not(night: Night) -> None:
    night.say(Kind.SELF_TEST, equal=True, measured=1.25, recorded=1.25)
    assert night.store.incidents(1) == []
    assert night.store.self_tests(1) == {1: {"equal": True, "measured": 1.25, "recorded": 1.25}}
    night.die()
    night.say(Kind.SELF_TEST, equal=False, measured=1.5, recorded=1.25)
    [incident] = night.store.incidents(1)
    assert (incident.code, incident.attempt, incident.evidence["measured"]) == ("self_test", 2, 1.5)
    assert "1.5, recorded: 1.25" in incident.text


def test_a_warning_of_the_child_is_an_incident(night: Night) -> None:
    night.say(Kind.WARNING, code="rows_cut", text="3 rows were cut", data={"rows": 3})
    [incident] = night.store.incidents(1)
    assert (incident.code, incident.text, incident.evidence) == ("rows_cut", "3 rows were cut", {"rows": 3})


def test_after_a_resume_the_repeated_stretch_counts_once(night: Night) -> None:
    night.say(Kind.STARTED, iteration=0)
    for iteration in (10, 20, 30, 40):
        night.report(iteration, *[1.0] * 10)
    for iteration in (20, 40):
        night.say(Kind.VALIDATION, iteration=iteration, loss=1.0, examples=1, seconds=1.0)
        night.say(Kind.CHECKPOINT, iteration=iteration, path=f"c/{iteration}", bytes=1, seconds=1.0)
    night.die()
    night.say(Kind.STARTED, iteration=20, resumed_from="step-0000020", resume_quality="exact")
    assert night.store.job(1).iteration == 20
    night.report(30, *[2.0] * 10)
    assert night.series() == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert [found.iteration for found in night.store.validations(1)] == [20]
    assert [found.iteration for found in night.store.checkpoints(1)] == [20]
    assert [point.iteration for point in night.store.points(1, superseded=True)] == [10, 20, 30, 40, 30]


def test_a_resume_taken_in_together_with_what_it_repeats_counts_once_too(night: Night) -> None:
    first = [night.event(Kind.STARTED, iteration=0), night.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10)]
    night.die()
    night.take(
        *first, night.event(Kind.STARTED, iteration=0), night.event(Kind.PROGRESS, iteration=10, losses=[2.0] * 10)
    )
    assert night.series() == [(10, 2.0)]


def test_a_report_cut_short_by_a_stop_is_replaced_by_the_whole_one(night: Night) -> None:
    night.say(Kind.STARTED, iteration=0)
    night.report(10, *[1.0] * 10)
    night.report(15, *[1.0] * 5)
    night.die()
    night.say(Kind.STARTED, iteration=15, resumed_from="step-0000015", resume_quality="exact")
    assert night.series() == [(10, 1.0), (15, 1.0)]
    night.report(20, *[1.0] * 5, *[2.0] * 5)  # the checkpoint brought the losses of 11 to 15 along
    assert night.series() == [(10, 1.0), (20, 1.5)]


def test_the_same_events_again_change_nothing(night: Night) -> None:
    events = [
        night.event(Kind.STARTED, iteration=0),
        night.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10),
        night.event(Kind.WARNING, code="w", text="w"),
    ]
    night.take(*events)
    before = night.store.job(1)
    night.take(*events)
    assert night.store.job(1) == before
    assert len(night.store.points(1, superseded=True)) == len(night.store.incidents(1)) == 1


def test_another_offset_than_the_stored_one_writes_nothing(night: Night) -> None:
    night.report(10, *[1.0] * 10)
    event = night.event(Kind.PROGRESS, iteration=20, losses=[1.0] * 10)
    for wrong in (0, 9, 11):
        assert not night.store.ingest(1, [event], offset_before=wrong, offset_after=50, steps_per_report=10, now=9.0)
    assert night.store.events_offset(1) == 10
    assert night.series() == [(10, 1.0)]


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
    night: Night, kind: Kind, data: dict[str, Any]
) -> None:
    night.take(night.event(kind, **data), night.event(Kind.PROGRESS, iteration=10, losses=[1.0] * 10))
    assert [incident.code for incident in night.store.incidents(1)] == ["events_unreadable"]
    assert night.series() == [(10, 1.0)]


def test_an_event_of_an_attempt_nobody_began_is_recorded(night: Night) -> None:
    night.take(Event(seq=1, time=1.0, awake=1.0, attempt=9, kind=Kind.PHASE, data={"phase": "train"}))
    [incident] = night.store.incidents(1)
    assert (incident.code, incident.attempt) == ("events_unreadable", None)
    assert "attempt 9" in incident.text


def test_deaths_count_only_the_iterations_no_attempt_had_reached_before(night: Night) -> None:
    for reached in (300, 250, None, 420):
        if reached is not None:
            night.report(reached)
        night.die()
    assert [death.gained for death in night.store.deaths(1)] == [300, 0, 0, 120]


def test_deaths_are_counted_anew_after_a_retry(night: Night) -> None:
    night.report(300)
    night.die()
    night.store.end_attempt(night.attempt.id, ending=DIED, exit_code=None, signal=9, now=4.0)
    failed = Decision(status=Status.FAILED, reason=Reason.KILLED, detail="gave up")
    night.store.settle(1, failed, owner=OWNER, now=5.0)
    night.store.retry(1, 6.0)
    assert night.store.deaths(1) == []
    night.store.claim(OWNER, 7.0)
    night.attempt, night.seq = night.store.begin_attempt(1, owner=OWNER, now=8.0), 0
    assert night.attempt.number == 3
    night.say(Kind.ENDED, outcome="died", reason="crashed", iteration=310)
    night.die()
    assert night.store.deaths(1) == [Death(gained=10, reason="killed")]


def test_a_fact_told_again_takes_the_place_of_the_first(night: Night) -> None:
    night.say(Kind.FACT, name="dataset", value={"rows": 1})
    night.say(Kind.FACT, name="answer.before.0", value={"answer": "x", "loss": "nan"})
    night.die()
    night.say(Kind.FACT, name="dataset", value={"rows": 2})
    assert night.store.facts(1) == {"answer.before.0": {"answer": "x", "loss": "nan"}, "dataset": {"rows": 2}}
    night.say(Kind.FACT, name="dataset")
    assert night.store.incidents(1)[-1].code == "events_unreadable"
