"""The main story: a claimed job's attempt is started or adopted, watched, judged, and answered.

    job claimed -> start or adopt -> watch until it is gone -> classify -> decide -> act

Each step leaves its mark in the store before the next begins, so that whoever comes after a killed worker goes on
where it stopped: an attempt without an end is adopted or closed, an ended attempt without a decision is decided.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

from jobs.model import run_plan as run_plans
from jobs.model.events import Event, Kind
from jobs.model.job import Attempt, Incident, Job
from jobs.model.outcomes import Ending, Outcome
from jobs.model.spec import JobSpec
from jobs.model.states import ENDED, Status
from jobs.policies import exits
from jobs.policies.attempt_health import AttemptHealth
from jobs.policies.decision import Decision
from jobs.scheduling import obstacles
from jobs.scheduling.constraints import constraints_of
from jobs.scheduling.obstacles import Obstacle
from orchestrator.core.context import WorkerContext
from orchestrator.core.file_watch import FileWatch
from orchestrator.formatting.text import duration
from orchestrator.notify.job_notifications import JobNotifications
from orchestrator.submission.provenance import train_rows
from orchestrator.worker import decide, disk_watch, finalize, log_rotation, loss_guard
from orchestrator.worker.deadlines import Forecast
from orchestrator.worker.disk_watch import VANISHED_GRACE_S, DiskWatch
from orchestrator.worker.ingest import ingest
from orchestrator.worker.loss_guard import LossGuard
from workers.checkpoints import pruning, storage
from workers.events import log as event_log
from workers.files.atomic import write_json
from workers.process import supervisor
from workers.process.lock import sole
from workers.process.supervisor import Child
from workers.system import sensors
from workers.system.awake import Awake

LOOK_S = 0.5
"""Between two looks at a child without a hint; a death is noticed within it."""

BETWEEN_INGESTS_S = 0.2
HEARTBEAT_S = 5.0
STOP_GRACE_S = 60.0
STALL_GRACE_S = 30.0
LONGEST_GRACE_S = 900.0
WORTH_TELLING_S = 30.0
"""A sleep shorter than this is not worth a line in the report."""

log = logging.getLogger("lq.attempt")


class AttemptRunner:
    """One job, from claim to its next state."""

    def __init__(self, context: WorkerContext, job: Job) -> None:
        """Begin with a job this worker holds the lease of."""
        self.context, self.job = context, job
        self.store = context.app.store
        self.job_dir = job.dir
        asked = self.store.jobs.spec_json(job.id)
        self.spec, self.constraints = JobSpec.model_validate_json(asked), constraints_of(json.loads(asked))
        self.notifications = JobNotifications(context.app, job, self.spec)
        self.slept_before = context.slept()
        self.oom_kills_before = sensors.kernel_oom_kills()
        self.guarded: str | None = None  # why the memory guard had the child stop
        self.stalled: str | None = None  # why the stall watch had it stop
        self.obstacle: Obstacle | None = None  # why it may not train now
        self.forecast = Forecast(context, job, self.spec, self.constraints)
        self.around = DiskWatch(context.app, self.job_dir, self.spec, self._prune)
        self._set_out()
        self.suspected: int | None = None  # first flag of the suspicion it was asked to validate for
        self.told = {(one.code, one.evidence.get("iteration")) for one in self.store.incidents.of(job.id)}

    def _set_out(self) -> None:
        """Take the run plan as it stands, and begin to fold the losses that lead to the present weights."""
        self.run_plan = self.store.run_plans.get(self.job.id, self.spec)
        rows = train_rows(self.job)
        self.losses = LossGuard(self.store, self.job, self.spec, self.run_plan, train_rows=rows)

    def tell(self) -> None:
        """Bring the job to its next state, however long that takes."""
        attempt = self._left_behind()
        child: Child | None
        if attempt is None:
            attempt, child = self._start()
            self.health = AttemptHealth(attempt.number, self.spec)
        else:
            child = self._adopt(attempt)
            self.health = self._health_so_far(attempt)
            if self.health.trained:
                self.notifications.trains(attempt.number)  # its worker may have died before it could tell
        if child is not None:
            if not self._watch(attempt, child):
                log.info("job %d: left running as pid %d", self.job.id, child.identity.pid)
                return
            self._close(attempt, child)
        self._settle()
        if self.store.jobs.get(self.job.id).status in ENDED:
            log_rotation.pack_log(self.job_dir)

    # --- start or adopt ---

    def _left_behind(self) -> Attempt | None:
        """Return the attempt an earlier worker left without an end or without a decision."""
        attempts = self.store.attempts.of(self.job.id)
        return attempts[-1] if attempts and not attempts[-1].settled else None

    def _start(self) -> tuple[Attempt, Child]:
        if disk_watch.ending(self.job_dir) is not None:  # deleted before it ran: nothing can be started there
            attempt = self.store.attempts.begin(self.job.id, owner=self.context.owner, now=self.context.clock())
            return attempt, supervisor.departed(self.job_dir, attempt.number, None)
        self._stop_strays()
        log_rotation.open_log(self.job_dir)
        self._go_back_first()
        self._forget_given_up()
        write_json(self.job_dir.run_plan, run_plans.to_json(self.run_plan))
        attempt = self.store.attempts.begin(self.job.id, owner=self.context.owner, now=self.context.clock())
        child = supervisor.spawn(self.job_dir, attempt.number, arguments=["--cache", str(self.context.app.home.cache)])
        self.store.attempts.set_child(attempt.id, child.identity)
        log.info("job %d: attempt %d started as pid %d", self.job.id, attempt.number, child.identity.pid)
        return attempt, child

    def _forget_given_up(self) -> None:
        """Delete milestones beyond where the run goes on, where it went back: they hold weights that were given up."""
        if len(self.run_plan.stages) == 1:
            return
        newest, _ = storage.newest_valid(self.job_dir.checkpoints, self.run_plan)
        pruning.forget_beyond(self.job_dir, newest.iteration if newest is not None else 0)

    def _go_back_first(self) -> None:
        """Do not go on from weights that are known to have gone wrong: a diverged job that is retried has them."""
        self.losses.look()
        attempts = self.store.attempts.of(self.job.id)
        if not attempts or self.losses.conclusion is None:
            return
        decision = decide.before_start(self.context, self.job, self.spec, attempts[-1], self.losses)
        if decision.stage is not None and decision.back_to is not None:
            told = decide.of_the_guard(self.job, attempts[-1], decision, self.context.clock())
            self.store.run_plans.roll_back(
                self.job.id, decision.stage, decision.back_to, told, now=self.context.clock()
            )
            self._set_out()

    def _stop_strays(self) -> None:
        """Wait until no trainer works on this job: one may have started too late for its worker to know it."""
        while (found := supervisor.lock_holder(self.job_dir)) is not None:
            stray = Child(found[0], self.job_dir, found[1])
            stray.ask_to_stop()
            log.warning("job %d: a stray trainer, pid %d, is asked to stop", self.job.id, stray.identity.pid)
            while stray.lives():
                stray.kill_after(self._grace_s())
                self.context.shutting_down.wait(LOOK_S)

    def _adopt(self, attempt: Attempt) -> Child | None:
        """Return the child of an attempt without an end, living or gone; None where the attempt has ended already."""
        if attempt.ended_at is not None:
            return None
        child = supervisor.adopt(self.job_dir, attempt.number, attempt.child)
        if child is None:
            return supervisor.departed(self.job_dir, attempt.number, attempt.child)
        self.store.attempts.set_child(attempt.id, child.identity)
        log.info("job %d: adopted attempt %d, pid %d", self.job.id, attempt.number, child.identity.pid)
        return child

    def _health_so_far(self, attempt: Attempt) -> AttemptHealth:
        """Fold the events that an earlier worker has ingested already."""
        health = AttemptHealth(attempt.number, self.spec)
        end = self.store.events.offset(self.job.id)
        offset = 0
        while offset < end:
            events, _, after = event_log.read(self.job_dir.events, offset)
            if after == offset:
                break
            health.take(events)
            offset = after
        return health

    # --- watch ---

    def _watch(self, attempt: Attempt, child: Child) -> bool:
        """Follow a child until it is gone; False where it is left running because the worker goes home."""
        if not child.lives():
            self._follow(attempt)
            return True
        last_heartbeat = float("-inf")
        with Awake(child.identity.pid) as awake, FileWatch(self.job_dir.events) as bell:
            while child.lives():
                self._follow(attempt)
                if time.monotonic() - last_heartbeat >= HEARTBEAT_S:
                    self.store.leases.heartbeat(self.job.id, self.context.owner, self.context.clock())
                    last_heartbeat = time.monotonic()
                if self.context.shutting_down.is_set() and self.context.leave_running:
                    awake.outlives = True
                    return False
                self._note_sleep(attempt)
                self._intervene(child)
                bell.wait(LOOK_S)
                self.context.shutting_down.wait(0 if self.context.shutting_down.is_set() else BETWEEN_INGESTS_S)
        if awake.note is not None:
            log.info("job %d: %s", self.job.id, awake.note)
        self._follow(attempt)
        return True

    def _follow(self, attempt: Attempt) -> None:
        events = ingest(
            self.store, self.job.id, self.job_dir.events, self.spec.steps_per_report, now=self.context.clock()
        )
        trained_before = self.health.trained
        self.health.take(events)
        self.forecast.take(events)
        self._look_at_losses(attempt, events)
        if any(event.kind is Kind.CHECKPOINT for event in events):
            self._prune(self.spec)
        if self.health.trained and not trained_before:
            self.notifications.trains(attempt.number)

    def _look_at_losses(self, attempt: Attempt, events: Sequence[Event] | None) -> None:
        """Fold in what was reported; tell what is told and not answered, once however often it is folded."""
        acts = self.spec.lq.spike.enabled
        for finding in self.losses.look(events):
            told = (finding.alarm.value, finding.iteration)
            if told in self.told or (acts and finding.alarm in loss_guard.ANSWERED):
                continue
            self.told.add(told)
            self.store.incidents.add(
                loss_guard.incident(self.job, attempt.number, finding, acts=acts, now=self.context.clock())
            )
            log.info("job %d: %s: %s", self.job.id, finding.alarm, finding.text)

    def _prune(self, spec: JobSpec, *, ended: bool = False) -> None:
        """Let older checkpoints go as soon as a newer one verifies; what cannot be deleted now will be later.

        Args:
            spec: what is to be kept; where it is not the job's own, the disk is low, and no way back is kept either.
            ended: the run is at its end.
        """
        try:
            doubt = self.losses.in_doubt and not ended
            ended = ended or spec is not self.spec
            with sole(self.job_dir.checkpoints, wait_s=0) as mine:  # else `lq prune` is at it
                if mine:
                    pruning.prune(self.job_dir, spec, self.run_plan, suspicion=doubt, ended=ended)
        except OSError as error:
            log.warning("job %d: old checkpoints stay for now: %s", self.job.id, error)

    def _note_sleep(self, attempt: Attempt) -> None:
        """Write down that the machine has slept; a sleep is never taken for a stall."""
        slept = self.context.slept() - self.slept_before
        if slept >= WORTH_TELLING_S:
            self.slept_before += slept
            text = f"the machine slept {duration(slept)}"
            self.store.incidents.add(self._incident(attempt, "slept", text, {"slept_s": round(slept, 1)}))
            log.info("job %d: %s", self.job.id, text)

    def _intervene(self, child: Child) -> None:
        """Stop the child where somebody asks for it, memory runs short, or nothing moves."""
        job = self.store.jobs.get(self.job.id)
        if job.stop_request is None and self.context.shutting_down.is_set():
            job = self.store.jobs.request_stop(self.job.id, "worker_stop", self.context.clock())
        if child.stop_asked_at is None and job.stop_request is None:
            self._guard(child)
            self._guard_losses(child)
            self._apply_constraints(child)
        if job.stop_request is not None:
            child.ask_to_stop()
        if self.around.vanished:
            child.kill_after(VANISHED_GRACE_S)
        child.kill_after(STALL_GRACE_S if self.stalled is not None else self._grace_s())

    def _guard(self, child: Child) -> None:
        stall = self.health.stall(self.context.awake())
        if stall is not None:
            self.stalled = stall.text
        else:
            self.guarded = self.health.short_of_memory()
        why = self.stalled or self.guarded or self.around.look()
        if why is not None:
            log.warning("job %d: %s; it is asked to stop", self.job.id, why)
            child.ask_to_stop()

    def _guard_losses(self, child: Child) -> None:
        """Stop the child where its losses ask for it; have it validate where they raise a suspicion."""
        if self.losses.conclusion is not None:
            why = loss_guard.concluded(self.losses.conclusion).detail
            log.warning("job %d: %s; it is asked to stop", self.job.id, why)
            child.ask_to_stop()
        elif self.losses.suspicion not in (None, self.suspected) and self.health.trained:
            self.suspected = self.losses.suspicion
            child.ask_to_validate()

    def _apply_constraints(self, child: Child) -> None:
        """Stop the child where its window has closed, power or heat ask for it, or its user is back."""
        reading = self.context.read(self.constraints)
        now, zone = self.context.clock(), self.context.zone
        self.obstacle = obstacles.of_constraints(self.constraints, reading, now=now, zone=zone, runs=True)
        if self.obstacle is not None:
            log.info("job %d: %s; it is asked to stop for now", self.job.id, self.obstacle.text)
            child.ask_to_stop()

    def _grace_s(self) -> float:
        """Return how long a stop may take: the trainer finishes the update it is in, and writes a checkpoint."""
        speed = self.store.jobs.get(self.job.id).it_s
        update = self.spec.grad_accumulation_steps / speed if speed else 0.0
        return min(STOP_GRACE_S + 4 * update, LONGEST_GRACE_S)

    # --- judge and answer ---

    def _close(self, attempt: Attempt, child: Child) -> None:
        """Classify the end and record it."""
        found = child.exit_report(
            phase=self.health.phase,
            pressure_high=self.health.pressure_high,
            memory_share=self.health.memory_share,
            kernel_oom_kills=self._oom_kills(),
            stall=self.stalled,
            guarded=self.guarded,
            disk_low=self.around.disk_low,
        )
        ending = disk_watch.ending(self.job_dir)
        if ending is None:
            ending = decide.proven(exits.classify(found), found.ended, self.job_dir, self.run_plan)
            ending = loss_guard.ending(ending, self.losses.conclusion)
        log.info("job %d: attempt %d %s (%s): %s", self.job.id, attempt.number, *_words(ending))
        self.store.attempts.end(
            attempt.id,
            ending=ending,
            exit_code=found.exit_code,
            signal=found.signal,
            now=self.context.clock(),
            stderr_tail=found.stderr_tail if ending.outcome in (Outcome.CRASHED, Outcome.REFUSED) else None,
        )

    def _oom_kills(self) -> int:
        now = sensors.kernel_oom_kills()
        return now - self.oom_kills_before if now is not None and self.oom_kills_before is not None else 0

    def _settle(self) -> None:
        """Decide, act, and record both; the record comes last, so that a killed worker's successor does it again."""
        attempt = self.store.attempts.of(self.job.id)[-1]
        self._look_at_losses(attempt, None)
        decision = decide.decide(
            self.context, self.job, self.spec, attempt, self.health, self.losses, obstacle=self.obstacle
        )
        decide.remember_fit(self.context, self.job, self.spec, attempt, self.health)
        told = decide.incident(self.job, attempt, decision, self.context.clock())
        incidents = [told] if told is not None else []
        decision, notes = self._finish(decision)
        incidents += [self._incident(attempt, code, text) for code, text in notes]
        job = self.store.leases.settle(
            self.job.id,
            decision,
            owner=self.context.owner,
            now=self.context.clock(),
            incidents=incidents,
            messages=[
                *self.notifications.of_decision(decision, attempt),
                *(self.notifications.guarded(told) if told is not None and decide.is_handled(decision) else ()),
            ],
        )
        log.info("job %d: %s: %s", job.id, job.status, decision.detail)
        if not decide.has_its_own_answer(decision):
            self._pause_queue_for(attempt)
        self._ring(decision)

    def _finish(self, decision: Decision) -> tuple[Decision, list[finalize.Note]]:
        """Publish and report what has ended."""
        notes: list[finalize.Note] = []
        if decision.status is Status.SUCCEEDED or decision.publish_until:
            decision, notes = finalize.publish(self.job, self.spec, self.run_plan, decision, now=self.context.clock())
        if decision.publish_until:  # where nothing before the spike is left, milestones are all there is
            pruning.forget_beyond(self.job_dir, decision.publish_until)
        if decision.status is Status.SUCCEEDED:
            self._prune(self.spec, ended=True)
        if decision.status in ENDED:
            notes = [*notes, *finalize.write_report(self.context.app.home, self.job, decision)]
        return decision, notes

    def _pause_queue_for(self, attempt: Attempt) -> None:
        because = decide.same_cause(self.context, self.job, attempt, self.health)
        told = self.notifications.queue_paused(because, self.context.clock()) if because is not None else []
        if because is not None and self.store.queue.pause(because, self.context.clock(), told):
            log.warning("the queue is paused: %s", because)

    def _incident(self, attempt: Attempt, code: str, text: str, evidence: dict[str, object] | None = None) -> Incident:
        return Incident(
            job_id=self.job.id,
            attempt=attempt.number,
            time=self.context.clock(),
            code=code,
            text=text,
            evidence=evidence or {},
        )

    def _ring(self, decision: Decision) -> None:
        wakeup = self.context.app.wakeup
        for message in self.store.outbox.due(self.context.clock()):
            wakeup.wake_for_delivery(message.id)
        if decision.not_before is not None:
            wakeup.wake(after_s=max(0.0, decision.not_before - self.context.clock()))


def _words(ending: Ending) -> tuple[str, str, str]:
    return ending.outcome.value, ending.reason.value, ending.detail
