"""One round: submit a job, inject faults, wait for its end, check the invariants."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import shutil
import time
from pathlib import Path

from jobs.model.errors import LqError
from jobs.model.events import Event, Kind
from jobs.model.job import Attempt, Job
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Outcome, Reason
from jobs.model.states import Status
from orchestrator.store.store import Store
from tests.chaos import schedule
from tests.chaos.faults import FaultInjector, Injected, Skipped, submit
from tests.chaos.schedule import Act, Plan
from tests.chaos.testbed import INTERVAL, Testbed, Undisturbed, hashes
from tests.harness import until
from workers.events import log as event_log

PATIENCE_S = 240.0
"""A job that has not ended after this time is lost. The longest waits of lq are one minute each."""

POLL_S = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """The time from a kill to the next trained iteration."""

    total_s: float  # from the kill to the next event with a loss
    spawn_s: float  # part of it: from the kill to the start of the next attempt
    load_s: float  # part of it: from that start to training: imports, model, data, checkpoint, self-test
    immediate: bool  # with a running worker and without backoff


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """The result of a round."""

    plan: Plan
    skipped: dict[schedule.Kind, Skipped]
    wrong: dict[str, str]  # failed checks and their findings
    repeated: list[int]  # iterations trained again after each unfinished attempt
    crashes: int  # trainers that the test killed
    recoveries: list[Recovery]  # after kills with iterations left
    attempts: int
    seconds: float
    queue_paused: str | None


def play(testbed: Testbed, plan: Plan, undisturbed: Undisturbed) -> Round:
    """Run a round."""
    began = time.monotonic()
    chance = random.Random(plan.seed + "/acts")  # noqa: S311
    testbed.ensure_worker()
    name = f"round-{plan.number}"
    job, skipped, notes = submit(testbed, name, {act.kind for act in plan.acts}, chance)
    injector = FaultInjector(testbed, job, chance, impatient=plan.impatient)
    injector.injected.notes += notes
    if plan.impatient and any(act.kind is schedule.Kind.LOST_WAKEUP for act in plan.acts):
        testbed.resume_now(job.id)
    for when, act in _in_order(plan, undisturbed):
        _wait_for(testbed, job, until=began + when)
        skipped[act.kind] = injector.inject(act.kind)
        time.sleep(chance.uniform(0.0, 1.0) if injector.injected.worker_killed else 0.0)  # the user notices later
    paused = _until_ended(testbed, job)
    return _checked(testbed, plan, job, injector.injected, undisturbed, skipped, time.monotonic() - began, paused)


def _in_order(plan: Plan, undisturbed: Undisturbed) -> list[tuple[float, Act]]:
    """Return (seconds since the submit, fault) for the faults after the submit."""
    spans = {True: undisturbed.trainer_s, False: undisturbed.life_s}
    timed = [(act.at * spans[act.kind in schedule.ON_TRAINER], act) for act in plan.acts]
    return sorted(((at, act) for at, act in timed if act.kind not in schedule.AT_SUBMIT), key=lambda entry: entry[0])


def _wait_for(testbed: Testbed, job: Job, *, until: float) -> None:
    while time.monotonic() < until and not testbed.has_ended(job.id):
        time.sleep(min(POLL_S / 2, max(0.0, until - time.monotonic())))


def _until_ended(testbed: Testbed, job: Job) -> str | None:
    """Wait for the end, and keep a worker running. Return why the queue was paused, if it was."""
    deadline = time.monotonic() + PATIENCE_S
    paused = None
    while not testbed.has_ended(job.id) and time.monotonic() < deadline:
        testbed.ensure_worker()
        with contextlib.suppress(LqError):
            state = testbed.store.queue.state()
            if state.paused_at is not None:
                paused = state.because
                testbed.lq("resume", "--queue")
        time.sleep(POLL_S)
    return paused


def aborted(plan: Plan, error: Exception) -> Round:
    """Return a round that failed with an exception; its job counts as lost."""
    wrong = {"lost": f"aborted: {type(error).__name__}: {error}"}
    return Round(
        plan=plan,
        skipped={},
        wrong=wrong,
        repeated=[],
        crashes=0,
        recoveries=[],
        attempts=0,
        seconds=0.0,
        queue_paused=None,
    )


# --- invariants ---


def _checked(
    testbed: Testbed,
    plan: Plan,
    job: Job,
    injected: Injected,
    undisturbed: Undisturbed,
    skipped: dict[schedule.Kind, Skipped],
    seconds: float,
    paused: str | None,
) -> Round:
    store = testbed.store
    job, attempts, events = store.jobs.get(job.id), store.attempts.of(job.id), _events(job.dir)
    repeated = _repeated(attempts, events)
    wrong = {
        "lost": _lost(job),
        "doubled": _doubled(testbed, job, attempts),
        "hash": _differs(job.dir, undisturbed),
        "two trainers": "; ".join(testbed.watch.duplicates[:3]),
        "orphan": _orphan(testbed, job),
        "repeated": _too_many(repeated, injected),
        "store": _damage(store),
        "other": "; ".join(injected.notes),
    }
    testbed.watch.duplicates.clear()
    wrong = {name: text for name, text in wrong.items() if text}
    if not wrong:  # the disk is small
        shutil.rmtree(job.dir.checkpoints)
    recoveries = _recoveries(store, attempts, events, injected) if not wrong else []
    return Round(
        plan=plan,
        skipped=skipped,
        wrong=wrong,
        repeated=repeated,
        crashes=len(injected.crashes),
        recoveries=recoveries,
        attempts=len(attempts),
        seconds=seconds,
        queue_paused=paused,
    )


def _lost(job: Job) -> str:
    return "" if job.status is Status.SUCCEEDED else f"job {job.id} is {job.status}: {job.reason}: {job.detail}"


def _doubled(testbed: Testbed, job: Job, attempts: list[Attempt]) -> str:
    """A job ends once: with one attempt that is done, all attempts settled, one message, one folder."""
    incidents = testbed.store.incidents.of(job.id)
    unpublished = {incident.attempt for incident in incidents if incident.code == Reason.DISK_FULL}
    done = [a.number for a in attempts if a.outcome == Outcome.DONE and a.number not in unpublished]
    open_ones = [attempt.number for attempt in attempts if attempt.ended_at is None or not attempt.settled]
    finished = [message.key for message in testbed.store.outbox.messages(job.id) if message.event == "finished"]
    folders = [path.name for path in testbed.home.jobs.iterdir() if path.name.lstrip(".").startswith(f"{job.id}-")]
    problems = []
    if len(done) != 1:
        problems.append(f"attempts done: {done}")
    if open_ones:
        problems.append(f"attempts not settled: {open_ones}")
    if len(finished) != 1:
        problems.append(f"messages about its end: {finished}")
    if folders != [Path(job.job_dir).name]:
        problems.append(f"folders: {folders}")
    return "; ".join(problems)


def _differs(folder: JobDir, undisturbed: Undisturbed) -> str:
    present = hashes(folder)
    return "" if present == undisturbed.sha256 else f"{present} instead of {undisturbed.sha256}"


def _orphan(testbed: Testbed, job: Job) -> str:
    """An ended job has no trainer after some seconds."""
    with contextlib.suppress(AssertionError):
        until(lambda: testbed.trainer(job) is None, "the trainer to exit", seconds=5)
        return ""
    return f"pid {testbed.trainer(job)} still works on job {job.id}"


def _damage(store: Store) -> str:
    try:
        store.check()
    except LqError as error:
        return str(error)
    return ""


def _events(folder: JobDir) -> list[Event]:
    events: list[Event] = []
    offset = 0
    while (chunk := event_log.read(folder.events, offset)).offset > offset:
        events += chunk.events
        offset = chunk.offset
    return events


def _repeated(attempts: list[Attempt], events: list[Event]) -> list[int]:
    """Return how many iterations were trained again after each attempt but the last, by the events."""
    reached: dict[int, int] = {}
    began: dict[int, int] = {}
    for event in events:
        if event.kind is Kind.STARTED:
            began[event.attempt] = int(event.data["iteration"])
        if event.kind in (Kind.STARTED, Kind.PROGRESS, Kind.CHECKPOINT):
            reached[event.attempt] = int(event.data["iteration"])
    trained = [attempt.number for attempt in attempts if attempt.number in began]
    return [max(0, reached[before] - began[after]) for before, after in itertools.pairwise(trained)]


def _too_many(repeated: list[int], injected: Injected) -> str:
    """At most one interval is trained again, and one more for each damaged checkpoint."""
    allowed, worst = INTERVAL * (1 + injected.damaged), max(repeated, default=0)
    return f"{worst} iterations trained again, {allowed} are allowed" if worst > allowed else ""


def _recoveries(store: Store, attempts: list[Attempt], events: list[Event], injected: Injected) -> list[Recovery]:
    """Measure the time from each kill to the first reported loss of the next attempt."""
    delayed = [incident for incident in store.incidents.of(attempts[0].job_id) if "delay_s" in incident.evidence]
    waits = {incident.attempt: incident.evidence["delay_s"] for incident in delayed}
    recoveries = []
    for killed_at in injected.crashes:
        after = next((attempt for attempt in attempts if attempt.started_at > killed_at), None)
        if after is None:
            continue
        own = [event for event in events if event.attempt == after.number]
        trained = [event.time for event in own if event.kind is Kind.PROGRESS and event.data["losses"]]
        loaded = [event.time for event in own if event.kind is Kind.PHASE and event.data["phase"] == "train"]
        if trained and loaded:
            recoveries.append(
                Recovery(
                    total_s=trained[0] - killed_at,
                    spawn_s=after.started_at - killed_at,
                    load_s=loaded[0] - after.started_at,
                    immediate=not injected.worker_killed and waits.get(after.number - 1) == 0.0,
                )
            )
    return recoveries
