"""Runs one attempt of a claimed job. Start here to read the worker.

    job claimed -> start or adopt a trainer -> watch it until it exits -> classify the exit -> decide -> act

Each step is recorded in the store before the next one starts, so that after a crash the next worker continues: it
adopts or closes an attempt without an end, and it decides about an ended attempt without a decision.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.model import run_plan as run_plans
from jobs.model.events import Event, Kind
from jobs.model.job import Attempt, Incident, Job
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import ENDED, Status
from jobs.policies import exits
from jobs.policies.attempt_health import AttemptHealth
from jobs.policies.decision import Decision
from jobs.policies.raised import is_disk_full
from jobs.scheduling.constraints import constraints_of
from orchestrator.core.context import WorkerContext
from orchestrator.core.file_watch import FileWatch
from orchestrator.formatting.text import duration
from orchestrator.model_files.hashes import changed_files
from orchestrator.notify.publisher import JobNotifications
from orchestrator.submission.provenance import train_rows
from orchestrator.worker import decide, disk_watch, finalize, log_rotation, loss_guard, queue_pause, recovery
from orchestrator.worker.deadlines import DeadlineForecast
from orchestrator.worker.decide import AttemptResult
from orchestrator.worker.disk_watch import DiskWatch
from orchestrator.worker.finalize import Note
from orchestrator.worker.ingest import ingest
from orchestrator.worker.intervention import Intervention
from orchestrator.worker.loss_guard import LossGuard
from workers.checkpoints import pruning, storage
from workers.events import log as event_log
from workers.files.atomic import write_json
from workers.process import supervisor
from workers.process.lock import sole
from workers.process.supervisor import Child
from workers.system import memory
from workers.system.keep_awake import KeepAwake

POLL_S = 0.5  # seconds between two checks of a trainer without a hint of the file watch; the limit for noticing an exit
BETWEEN_INGESTS_S = 0.2
HEARTBEAT_S = 5.0
LEAST_SLEEP_S = 30.0  # a shorter sleep of the machine is not recorded as an incident

log = logging.getLogger("lq.attempt")


class AttemptRunner:
    """Takes one job from its claim to its next state."""

    def __init__(self, context: WorkerContext, job: Job) -> None:
        self.context, self.job = context, job
        self.store = context.app.store
        self.job_dir = job.dir
        text = self.store.jobs.spec_json(job.id)
        self.spec, constraints = JobSpec.model_validate_json(text), constraints_of(json.loads(text))
        self.notifications = JobNotifications(context.app, job, self.spec)
        self.forecast = DeadlineForecast(context, job, self.spec, constraints)
        disk = DiskWatch(context.app, self.job_dir, self.spec, self._prune)
        self.intervention = Intervention(context, job, self.spec, constraints, disk)
        self.slept_before = context.slept()
        self.oom_kills_before = memory.kernel_oom_kills()
        incidents = self.store.incidents.of(job.id)
        self.recorded = {(incident.code, incident.evidence.get("iteration")) for incident in incidents}
        self.not_started: Ending | None = None  # why there is no trainer
        self._load_run_plan()

    def _load_run_plan(self) -> None:
        """Load the run plan, and a loss guard for the losses that lead to the present weights."""
        self.run_plan = self.store.run_plans.get(self.job.id, self.spec)
        self.losses = LossGuard(self.store, self.job, self.spec, self.run_plan, train_rows=train_rows(self.job))

    def run(self) -> None:
        attempts = self.store.attempts.of(self.job.id)
        child: Child | None
        if not attempts or attempts[-1].settled:
            attempt, child = self._start()
            self.health = AttemptHealth(attempt.number, self.spec)
        else:  # an earlier worker left it without an end or without a decision
            attempt = attempts[-1]
            child = self._adopt(attempt)
            self.health = self._health_so_far(attempt)
            if self.health.trained:  # the earlier worker may have stopped before it published this
                self.notifications.publish_training(attempt.number, now=self.context.clock())
        if child is not None:
            if not self._watch(attempt, child):
                log.info("job %d: left running as pid %d", self.job.id, child.identity.pid)
                return
            self._close(attempt, child)
        self._settle()
        if self.store.jobs.get(self.job.id).status in ENDED:
            log_rotation.pack_log(self.job_dir)

    # --- start or adopt ---

    def _start(self) -> tuple[Attempt, Child]:
        self.not_started = disk_watch.folder_gone_ending(self.job_dir)
        child = None
        try:
            self.not_started = self.not_started or self._changed_model_ending()
            if self.not_started is None:
                self._prepare()
        except OSError as error:
            self.not_started = _failed_start(error)
        attempt = self.store.attempts.begin(self.job.id, owner=self.context.owner, now=self.context.clock())
        try:
            if self.not_started is None:
                cache = str(self.context.app.home.cache)
                child = supervisor.spawn(self.job_dir, attempt.number, arguments=["--cache", cache])
        except OSError as error:
            self.not_started = _failed_start(error)
        if child is None:
            return attempt, supervisor.exited(self.job_dir, attempt.number, None)
        self.store.attempts.set_child(attempt.id, child.identity)
        log.info("job %d: attempt %d started as pid %d", self.job.id, attempt.number, child.identity.pid)
        return attempt, child

    def _changed_model_ending(self) -> Ending | None:
        """Return the ending of an attempt whose model is not the submitted one any more; None if it is."""
        model = Path(self.spec.model)
        detail = f"the model folder {model} does not exist; put it back and run: lq retry {self.job.id}"
        if model.is_dir() or not model.is_absolute():  # a name on the hub is not absolute
            changed = changed_files(self.job_dir, self.spec.model, self.context.app.home.cache)
            if not changed:
                return None
            detail = f"the model {model} is not the one that was submitted: {'; '.join(changed[:3])}; put the "
            detail += f"submitted files back and retry, or begin again with: lq retry {self.job.id} --fresh"
        return Ending(outcome=Outcome.REFUSED, reason=Reason.MODEL_MISSING, detail=detail)

    def _prepare(self) -> None:
        self._stop_strays()
        log_rotation.open_log(self.job_dir)
        self._roll_back_first()
        if len(self.run_plan.stages) > 1:  # delete milestones after the checkpoint that a rollback returned to
            newest, _ = storage.newest_valid(self.job_dir.checkpoints, self.run_plan)
            pruning.forget_beyond(self.job_dir, newest.iteration if newest is not None else 0)
        write_json(self.job_dir.run_plan, run_plans.to_json(self.run_plan))

    def _stop_strays(self) -> None:
        """Stop a trainer that started too late for its worker to record it, and wait until it exits."""
        while (holder := supervisor.lock_holder(self.job_dir)) is not None:
            stray = Child(holder[0], self.job_dir, holder[1])
            stray.request_stop()
            log.warning("job %d: stopping an unrecorded trainer, pid %d", self.job.id, stray.identity.pid)
            while stray.lives():
                stray.kill_after(self.intervention.stop_grace_s())
                self.context.shutting_down.wait(POLL_S)

    def _roll_back_first(self) -> None:
        """Roll back before the start if the present weights are known to be bad, as after a retry of a diverged job."""
        self.losses.look()
        attempts = self.store.attempts.of(self.job.id)
        if not attempts or self.losses.conclusion is None:
            return
        health = AttemptHealth(attempts[-1].number, self.spec)
        result = AttemptResult(job=self.job, spec=self.spec, attempt=attempts[-1], health=health, losses=self.losses)
        decision = decide.decide(self.context, result, loss_guard.ending_of(self.losses.conclusion))
        note = decide.note(attempts[-1], decision)
        if decision.stage is not None and decision.back_to is not None and note is not None:
            incident = self._incident(attempts[-1], note)
            self.store.run_plans.roll_back(self.job.id, decision.stage, decision.back_to, incident, now=incident.time)
            self._load_run_plan()

    def _adopt(self, attempt: Attempt) -> Child | None:
        """Return the trainer of an attempt without an end, running or exited; None if the attempt has an end."""
        if attempt.ended_at is not None:
            return None
        child = supervisor.adopt(self.job_dir, attempt.number, attempt.child)
        if child is None:
            return supervisor.exited(self.job_dir, attempt.number, attempt.child)
        self.store.attempts.set_child(attempt.id, child.identity)
        log.info("job %d: adopted attempt %d, pid %d", self.job.id, attempt.number, child.identity.pid)
        return child

    def _health_so_far(self, attempt: Attempt) -> AttemptHealth:
        """Fold the events that an earlier worker has ingested."""
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
        """Watch a trainer until it exits; return False if the worker shuts down and leaves it running."""
        if not child.lives():
            self._follow(attempt)
            return True
        last_heartbeat = float("-inf")
        with KeepAwake(child.identity.pid) as awake, FileWatch(self.job_dir.events) as hint:
            while child.lives():
                self._follow(attempt)
                if time.monotonic() - last_heartbeat >= HEARTBEAT_S:
                    self.store.leases.heartbeat(self.job.id, self.context.owner, self.context.clock())
                    last_heartbeat = time.monotonic()
                if self.context.shutting_down.is_set() and self.context.leave_running:
                    awake.outlives = True
                    return False
                self._record_sleep(attempt)
                self.intervention.check(child, self.health, self.losses)
                hint.wait(POLL_S)
                self.context.shutting_down.wait(0 if self.context.shutting_down.is_set() else BETWEEN_INGESTS_S)
        if awake.note is not None:
            log.info("job %d: %s", self.job.id, awake.note)
        self._follow(attempt)
        return True

    def _follow(self, attempt: Attempt) -> None:
        now = self.context.clock()
        events = ingest(self.store, self.job.id, self.job_dir.events, self.spec.steps_per_report, now=now)
        trained_before = self.health.trained
        self.health.take(events)
        self.forecast.take(events)
        self._record_findings(attempt, events)
        if any(event.kind is Kind.CHECKPOINT for event in events):
            self._prune(self.spec)
        if self.health.trained and not trained_before:
            self.notifications.publish_training(attempt.number, now=now)

    def _record_findings(self, attempt: Attempt, events: Sequence[Event] | None) -> None:
        """Record each finding of the loss guard that does not lead to a rollback, once."""
        acts = self.spec.lq.spike.enabled
        for finding in self.losses.look(events):
            key = (finding.alarm.value, finding.iteration)
            if key in self.recorded or (acts and finding.alarm in loss_guard.ROLLBACK_ALARMS):
                continue
            self.recorded.add(key)
            self.store.incidents.add(self._incident(attempt, loss_guard.note(finding, acts=acts)))
            log.info("job %d: %s: %s", self.job.id, finding.alarm, finding.text)

    def _prune(self, spec: JobSpec, *, ended: bool = False) -> None:
        """Delete older checkpoints after a newer one became valid; what cannot be deleted now is deleted later.

        If `spec`, which says what to keep, is not the job's own, the disk is low, and rollbacks keep nothing either.
        """
        try:
            doubt = self.losses.in_doubt and not ended
            ended = ended or spec is not self.spec
            with sole(self.job_dir.checkpoints, wait_s=0) as locked:  # `lq prune` may hold the lock
                if locked:
                    pruning.prune(self.job_dir, spec, self.run_plan, suspicion=doubt, ended=ended)
        except OSError as error:
            log.warning("job %d: older checkpoints are not deleted for now: %s", self.job.id, error)

    def _record_sleep(self, attempt: Attempt) -> None:
        """Record that the machine slept; a sleep does not count as a stall."""
        slept = self.context.slept() - self.slept_before
        if slept >= LEAST_SLEEP_S:
            self.slept_before += slept
            note = Note("slept", f"the machine slept {duration(slept)}", {"slept_s": round(slept, 1)})
            self.store.incidents.add(self._incident(attempt, note))
            log.info("job %d: %s", self.job.id, note.text)

    # --- classify, decide, act ---

    def _close(self, attempt: Attempt, child: Child) -> None:
        report = dataclasses.replace(
            child.exit_report(),
            phase=self.health.phase,
            pressure_high=self.health.pressure_high,
            memory_share=self.health.memory_share,
            kernel_oom_kills=(memory.kernel_oom_kills() or 0) - (self.oom_kills_before or 0),
            stall=self.intervention.stall,
            guarded=self.intervention.memory,
            disk_low=self.intervention.disk.disk_low,
        )
        ending = self.not_started or disk_watch.folder_gone_ending(self.job_dir)
        if ending is None:
            ending = exits.classify(report)
            ending = decide.require_last_checkpoint(ending, report.ended, self.job_dir, self.run_plan)
            ending = loss_guard.override_ending(ending, self.losses.conclusion)
        log.info(
            "job %d: attempt %d %s (%s): %s", self.job.id, attempt.number, ending.outcome, ending.reason, ending.detail
        )
        self.store.attempts.end(
            attempt.id,
            ending=ending,
            exit_code=report.exit_code,
            signal=report.signal,
            now=self.context.clock(),
            stderr_tail=report.stderr_tail if ending.outcome in (Outcome.CRASHED, Outcome.REFUSED) else None,
        )

    def _settle(self) -> None:
        """Decide, act, record; the record comes last, so that after a crash the next worker repeats all three."""
        attempt = self.store.attempts.of(self.job.id)[-1]
        self._record_findings(attempt, None)
        result = AttemptResult(
            job=self.job,
            spec=self.spec,
            attempt=attempt,
            health=self.health,
            losses=self.losses,
            obstacle=self.intervention.obstacle,
        )
        decision = decide.decide(self.context, result)
        decide.remember_fit(self.context, result)
        note = decide.note(attempt, decision)
        if note is not None and decision.reason is Reason.DISK_FULL:
            note = note._replace(evidence={**note.evidence, **self.intervention.disk.evidence})
        decision, notes = self._finish(decision)
        incidents = [self._incident(attempt, each) for each in (note, *notes) if each is not None]
        messages = [*self.notifications.decided(decision, attempt)]
        if note is not None and decide.is_handled(decision):
            messages += self.notifications.spike_handled(incidents[0])
        job = self.store.leases.settle(
            self.job.id,
            decision,
            owner=self.context.owner,
            now=self.context.clock(),
            incidents=incidents,
            messages=messages,
        )
        log.info("job %d: %s: %s", job.id, job.status, decision.detail)
        recovery.wake_for_missed(self.context.app, self.context.clock())
        if decision.not_before is not None:
            self.context.app.wakeup.wake(after_s=max(0.0, decision.not_before - self.context.clock()))
        queue_pause.pause_for_machine(self.context, result, self.notifications)  # last: it can take two minutes

    def _finish(self, decision: Decision) -> tuple[Decision, list[Note]]:
        """Publish the adapter and write the report if the job has ended."""
        notes: list[Note] = []
        if decision.status is Status.SUCCEEDED or decision.publish_until:
            decision, notes = finalize.publish(self.job, self.spec, self.run_plan, decision, now=self.context.clock())
        if decision.publish_until:  # milestones may be all that is left from before a spike
            pruning.forget_beyond(self.job_dir, decision.publish_until)
        if decision.status is Status.SUCCEEDED:
            self._prune(self.spec, ended=True)
        if decision.status in ENDED:
            notes = [*notes, *finalize.write_report(self.context.app.home, self.job, decision)]
        return decision, notes

    def _incident(self, attempt: Attempt, note: Note) -> Incident:
        return Incident(
            job_id=self.job.id,
            attempt=attempt.number,
            time=self.context.clock(),
            code=str(note.code),
            text=note.text,
            evidence=note.evidence,
        )


def _failed_start(error: OSError) -> Ending:
    """Return the ending of an attempt whose trainer could not be started, for example for lack of open files."""
    reason = Reason.DISK_FULL if is_disk_full(error) else Reason.CRASHED
    detail = f"the trainer could not be started: {type(error).__name__}: {error}"
    return Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)
