"""One round: a job is submitted, things go wrong, it ends; then everything that must hold is checked."""

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
from tests.chaos.adversary import Adversary, Did, Marks, submit
from tests.chaos.schedule import Act, Plan
from tests.chaos.testbed import INTERVAL, Testbed, Undisturbed, hashes
from tests.harness import until
from workers.events import log as event_log

PATIENCE_S = 240.0
"""A job that has not ended by then is lost. The longest waits of lq's own are a minute each."""

LOOK_S = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovery:
    """From a -9 to the next trained iteration."""

    whole_s: float  # from the kill to the event that tells a loss
    spawn_s: float  # of it: from the kill to the next attempt's start; lq's own share
    load_s: float  # of it: from that start to training: imports, model, data, checkpoint, self-test
    at_once: bool  # the worker lived and no backoff was due


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """What came of a round."""

    plan: Plan
    did: dict[schedule.Kind, Did]
    wrong: dict[str, str]  # what was checked -> what was found, for what did not hold
    repeated: list[int]  # iterations trained again, one for each attempt that did not finish
    crashes: int  # of trainers, dealt by the adversary
    recoveries: list[Recovery]  # of those deaths that left something to train
    attempts: int
    seconds: float
    queue_paused: str | None


def play(testbed: Testbed, plan: Plan, undisturbed: Undisturbed) -> Round:
    """Live through a round."""
    began = time.monotonic()
    chance = random.Random(plan.seed + "/acts")  # noqa: S311
    testbed.ensure_worker()
    name = f"round-{plan.number}"
    job, did, notes = submit(testbed, name, {act.kind for act in plan.acts}, chance)
    adversary = Adversary(testbed, job, chance, impatient=plan.impatient)
    adversary.marks.notes += notes
    if plan.impatient and any(act.kind is schedule.Kind.LOST_BELL for act in plan.acts):
        testbed.wake_the_queue(job.id)
    for when, act in _in_order(plan, undisturbed):
        _wait_for(testbed, job, until=began + when)
        did[act.kind] = adversary.act(act.kind)
        time.sleep(chance.uniform(0.0, 1.0) if adversary.marks.worker_killed else 0.0)  # nobody notices at once
    paused = _until_ended(testbed, job)
    return _checked(testbed, plan, job, adversary.marks, undisturbed, did, time.monotonic() - began, paused)


def _in_order(plan: Plan, undisturbed: Undisturbed) -> list[tuple[float, Act]]:
    """Return (seconds since the submit, act) for what is done during the job's life."""
    lives = {True: undisturbed.trainer_s, False: undisturbed.life_s}
    timed = [(act.at * lives[act.kind in schedule.ON_TRAINER], act) for act in plan.acts]
    return sorted((one for one in timed if one[1].kind not in schedule.AT_SUBMIT), key=lambda one: one[0])


def _wait_for(testbed: Testbed, job: Job, *, until: float) -> None:
    while time.monotonic() < until and not testbed.has_ended(job.id):
        time.sleep(min(LOOK_S / 2, max(0.0, until - time.monotonic())))


def _until_ended(testbed: Testbed, job: Job) -> str | None:
    """Wait; start a worker whenever none lives. Return why the queue was paused, where it was."""
    deadline = time.monotonic() + PATIENCE_S
    paused = None
    while not testbed.has_ended(job.id) and time.monotonic() < deadline:
        testbed.ensure_worker()
        with contextlib.suppress(LqError):
            state = testbed.store.queue.state()
            if state.paused_at is not None:
                paused = state.because
                testbed.lq("resume", "--queue")
        time.sleep(LOOK_S)
    return paused


def broken_off(plan: Plan, error: Exception) -> Round:
    """Return a round that could not be played to its end; nothing is known of its job, so it counts as lost."""
    wrong = {"lost": f"broken off: {type(error).__name__}: {error}"}
    return Round(
        plan=plan,
        did={},
        wrong=wrong,
        repeated=[],
        crashes=0,
        recoveries=[],
        attempts=0,
        seconds=0.0,
        queue_paused=None,
    )


# --- what must hold ---


def _checked(
    testbed: Testbed,
    plan: Plan,
    job: Job,
    marks: Marks,
    undisturbed: Undisturbed,
    did: dict[schedule.Kind, Did],
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
        "twice alive": "; ".join(testbed.lookout.twice[:3]),
        "orphan": _orphan(testbed, job),
        "repeated": _too_many(repeated, marks),
        "store": _damage(store),
        "other": "; ".join(marks.notes),
    }
    testbed.lookout.twice.clear()
    wrong = {name: text for name, text in wrong.items() if text}
    if not wrong:  # the disk is small
        shutil.rmtree(job.dir.checkpoints)
    recoveries = _recoveries(store, attempts, events, marks) if not wrong else []
    return Round(
        plan=plan,
        did=did,
        wrong=wrong,
        repeated=repeated,
        crashes=len(marks.crashes),
        recoveries=recoveries,
        attempts=len(attempts),
        seconds=seconds,
        queue_paused=paused,
    )


def _lost(job: Job) -> str:
    return "" if job.status is Status.SUCCEEDED else f"job {job.id} is {job.status}: {job.reason}: {job.detail}"


def _doubled(testbed: Testbed, job: Job, attempts: list[Attempt]) -> str:
    """A job ends once: one attempt is done, all are settled, one message says so, one folder holds it."""
    waited = {
        one.attempt for one in testbed.store.incidents.of(job.id) if one.code == Reason.DISK_FULL
    }  # to be published
    done = [one.number for one in attempts if one.outcome == Outcome.DONE and one.number not in waited]
    open_ones = [attempt.number for attempt in attempts if attempt.ended_at is None or not attempt.settled]
    told = [message.key for message in testbed.store.outbox.messages(job.id) if message.event == "finished"]
    folders = [path.name for path in testbed.home.jobs.iterdir() if path.name.lstrip(".").startswith(f"{job.id}-")]
    found = []
    if len(done) != 1:
        found.append(f"attempts done: {done}")
    if open_ones:
        found.append(f"attempts not settled: {open_ones}")
    if len(told) != 1:
        found.append(f"messages of its end: {told}")
    if folders != [Path(job.job_dir).name]:
        found.append(f"folders: {folders}")
    return "; ".join(found)


def _differs(folder: JobDir, undisturbed: Undisturbed) -> str:
    found = hashes(folder)
    return "" if found == undisturbed.sha256 else f"{found} instead of {undisturbed.sha256}"


def _orphan(testbed: Testbed, job: Job) -> str:
    """An ended job has no trainer; one that is at its last breath is given a moment."""
    with contextlib.suppress(AssertionError):
        until(lambda: testbed.trainer(job) is None, "the trainer to be gone", seconds=5)
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
    while (found := event_log.read(folder.events, offset)).offset > offset:
        events += found.events
        offset = found.offset
    return events


def _repeated(attempts: list[Attempt], events: list[Event]) -> list[int]:
    """Return how many iterations each attempt but the last left to be trained again, as the events tell it."""
    reached: dict[int, int] = {}
    began: dict[int, int] = {}
    for event in events:
        if event.kind is Kind.STARTED:
            began[event.attempt] = int(event.data["iteration"])
        if event.kind in (Kind.STARTED, Kind.PROGRESS, Kind.CHECKPOINT):
            reached[event.attempt] = int(event.data["iteration"])
    trained = [attempt.number for attempt in attempts if attempt.number in began]
    return [max(0, reached[one] - began[after]) for one, after in itertools.pairwise(trained)]


def _too_many(repeated: list[int], marks: Marks) -> str:
    """At most one interval is trained again; for every damaged checkpoint, one more."""
    allowed, worst = INTERVAL * (1 + marks.damaged), max(repeated, default=0)
    return f"{worst} iterations trained again, {allowed} are allowed" if worst > allowed else ""


def _recoveries(store: Store, attempts: list[Attempt], events: list[Event], marks: Marks) -> list[Recovery]:
    """Time each death that the adversary dealt: the attempt that comes next, and its first told loss."""
    told = [incident for incident in store.incidents.of(attempts[0].job_id) if "delay_s" in incident.evidence]
    waits = {incident.attempt: incident.evidence["delay_s"] for incident in told}
    found = []
    for died in marks.crashes:
        after = next((attempt for attempt in attempts if attempt.started_at > died), None)
        if after is None:
            continue
        mine = [event for event in events if event.attempt == after.number]
        trained = [event.time for event in mine if event.kind is Kind.PROGRESS and event.data["losses"]]
        loaded = [event.time for event in mine if event.kind is Kind.PHASE and event.data["phase"] == "train"]
        if trained and loaded:
            found.append(
                Recovery(
                    whole_s=trained[0] - died,
                    spawn_s=after.started_at - died,
                    load_s=loaded[0] - after.started_at,
                    at_once=not marks.worker_killed and waits.get(after.number - 1) == 0.0,
                )
            )
    return found
