"""The main story: a claimed job's attempt is started or adopted, watched, judged, and answered.

    job claimed -> start or adopt -> watch until it is gone -> classify -> decide -> act

Each step leaves its mark in the store before the next begins, so that whoever comes after a killed worker goes on
where it stopped: an attempt without an end is adopted or closed, an ended attempt without a decision is decided.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs import exits, policy
from jobs.errors import CheckpointInvalid
from jobs.events import Event, Kind
from jobs.job import Attempt, Incident, Job, NewMessage, ProcessIdentity
from jobs.outcomes import Ending, Outcome, Quality, Reason
from jobs.policy import Decision
from jobs.spec import JobSpec
from jobs.states import ENDED, Status
from orchestrator import messages
from orchestrator.app import App
from orchestrator.ingest import ingest
from orchestrator.watch import FileBell
from workers import adapters, supervisor
from workers.job_dir import JobDir
from workers.supervisor import Child

LOOK_S = 0.5
"""Between two looks at a child without a hint; a death is noticed within it."""

BETWEEN_INGESTS_S = 0.2
HEARTBEAT_S = 5.0
STOP_GRACE_S = 60.0
LONGEST_GRACE_S = 900.0
REPORT_TIMEOUT_S = 300.0

log = logging.getLogger("lq.attempt")


@dataclasses.dataclass
class Night:
    """What every story shares: who we are, what we work with, and whether it is time to go home."""

    app: App
    owner: ProcessIdentity
    going_home: threading.Event = dataclasses.field(default_factory=threading.Event)
    leave_running: bool = False  # going home without stopping the children
    clock: Callable[[], float] = time.time


class Story:
    """One job, from claim to its next state."""

    def __init__(self, night: Night, job: Job) -> None:
        """Begin with a job this worker holds the lease of."""
        self.night, self.job = night, job
        self.store = night.app.store
        self.job_dir = JobDir(Path(job.job_dir))
        self.spec = JobSpec.model_validate_json(self.store.spec_json(job.id))

    def tell(self) -> None:
        """Bring the job to its next state, however long that takes."""
        attempt = self._left_behind()
        child: Child | None
        if attempt is None:
            attempt, child = self._start()
        else:
            child = self._adopt(attempt)
        if child is not None:
            if not self._watch(attempt, child):
                log.info("job %d: left running as pid %d", self.job.id, child.identity.pid)
                return
            self._close(attempt, child)
        self._settle()

    # --- start or adopt ---

    def _left_behind(self) -> Attempt | None:
        """Return the attempt an earlier worker left without an end or without a decision."""
        attempts = self.store.attempts(self.job.id)
        return attempts[-1] if attempts and not attempts[-1].settled else None

    def _start(self) -> tuple[Attempt, Child]:
        self._send_strays_home()
        attempt = self.store.begin_attempt(self.job.id, owner=self.night.owner, now=self.night.clock())
        child = supervisor.spawn(self.job_dir, attempt.number)
        self.store.set_child(attempt.id, child.identity)
        log.info("job %d: attempt %d started as pid %d", self.job.id, attempt.number, child.identity.pid)
        return attempt, child

    def _send_strays_home(self) -> None:
        """Wait until no trainer works on this job: one may have started too late for its worker to know it."""
        while (found := supervisor.lock_holder(self.job_dir)) is not None:
            stray = Child(found[0], self.job_dir, found[1])
            stray.ask_to_stop()
            log.warning("job %d: a stray trainer, pid %d, is asked to stop", self.job.id, stray.identity.pid)
            while stray.lives():
                stray.kill_after(self._grace_s())
                self.night.going_home.wait(LOOK_S)

    def _adopt(self, attempt: Attempt) -> Child | None:
        """Return the child of an attempt without an end, living or gone; None where the attempt has ended already."""
        if attempt.ended_at is not None:
            return None
        child = supervisor.adopt(self.job_dir, attempt.number, attempt.child)
        if child is None:
            return supervisor.departed(self.job_dir, attempt.number, attempt.child)
        self.store.set_child(attempt.id, child.identity)
        log.info("job %d: adopted attempt %d, pid %d", self.job.id, attempt.number, child.identity.pid)
        return child

    # --- watch ---

    def _watch(self, attempt: Attempt, child: Child) -> bool:
        """Follow a child until it is gone; False where it is left running because the worker goes home."""
        last_heartbeat = float("-inf")
        with FileBell(self.job_dir.events) as bell:
            while child.lives():
                self._follow(attempt)
                if time.monotonic() - last_heartbeat >= HEARTBEAT_S:
                    self.store.heartbeat(self.job.id, self.night.owner, self.night.clock())
                    last_heartbeat = time.monotonic()
                if self.night.going_home.is_set() and self.night.leave_running:
                    return False
                self._pass_on_wishes(child)
                bell.wait(LOOK_S)
                self.night.going_home.wait(0 if self.night.going_home.is_set() else BETWEEN_INGESTS_S)
        self._follow(attempt)
        return True

    def _follow(self, attempt: Attempt) -> None:
        events = ingest(
            self.store, self.job.id, self.job_dir.events, self.spec.steps_per_report, now=self.night.clock()
        )
        if attempt.number > 1 and any(_trained(event, attempt.number) for event in events):
            self._tell_recovery(attempt.number)

    def _tell_recovery(self, number: int) -> None:
        """Tell that a job which died trains again; the message's key lets it be told once."""
        before, now = self.store.attempts(self.job.id)[number - 2 : number]
        if before.outcome != Outcome.DIED or now.quality in (None, Quality.FRESH):
            return
        services = self._services_for("recovered")
        if services:
            message = self.store.add_message(messages.recovered(self.job, before, now, self.spec), self.night.clock())
            if message is not None:
                self.night.app.doorbell.ring_for_delivery(message.id)

    def _pass_on_wishes(self, child: Child) -> None:
        """Stop the child where the user or the worker's own going home asks for it."""
        now = self.night.clock()
        job = self.store.job(self.job.id)
        if job.wish is None and self.night.going_home.is_set():
            job = self.store.ask(self.job.id, "worker_stop", now)
        if job.wish is not None:
            child.ask_to_stop()
            child.kill_after(self._grace_s())

    def _grace_s(self) -> float:
        """Return how long a stop may take: the trainer finishes the update it is in, and writes a checkpoint."""
        speed = self.store.job(self.job.id).it_s
        update = self.spec.grad_accumulation_steps / speed if speed else 0.0
        return min(STOP_GRACE_S + 4 * update, LONGEST_GRACE_S)

    # --- judge and answer ---

    def _close(self, attempt: Attempt, child: Child) -> None:
        """Classify the end and record it."""
        seen = self.store.attempts(self.job.id)[-1]
        found = child.exit_report(started=seen.first_iteration is not None)
        ending = exits.classify(found)
        log.info("job %d: attempt %d %s (%s): %s", self.job.id, attempt.number, *_said(ending))
        self.store.end_attempt(
            attempt.id, ending=ending, exit_code=found.exit_code, signal=found.signal, now=self.night.clock()
        )

    def _settle(self) -> None:
        """Decide, act, and record both; the record comes last, so that a killed worker's successor does it again."""
        attempt = self.store.attempts(self.job.id)[-1]
        decision = self._decide(attempt)
        incidents = [self._restart(attempt, decision)] if decision.status is Status.WAITING else []
        if decision.status is Status.SUCCEEDED:
            decision, told = self._publish(attempt, decision)
            incidents += told
        if decision.status in ENDED:
            incidents += self._report(attempt, decision)
        job = self.store.settle(
            self.job.id,
            decision,
            owner=self.night.owner,
            now=self.night.clock(),
            incidents=incidents,
            messages=self._messages(attempt, decision),
        )
        log.info("job %d: %s: %s", job.id, job.status, decision.detail)
        self._ring(decision)

    def _decide(self, attempt: Attempt) -> Decision:
        ending = Ending(
            outcome=Outcome(attempt.outcome or Outcome.DIED),
            reason=Reason(attempt.reason or Reason.LOST),
            detail=attempt.detail or "",
        )
        return policy.decide(
            ending,
            wish=policy.wish_from(self.store.job(self.job.id).wish),
            progress=self.store.deaths(self.job.id),
            max_restarts=self.spec.lq.retry.max_restarts,
            now=self.night.clock(),
            jitter=random.random(),  # noqa: S311 spreads restarts, guards nothing
        )

    def _publish(self, attempt: Attempt, decision: Decision) -> tuple[Decision, list[Incident]]:
        """Lay out the adapter; a run whose checkpoints do not verify has not succeeded."""
        from jobs import course as courses

        leg = courses.from_json(self.job_dir.course.read_text()).legs[-1]
        try:
            published = adapters.publish(self.job_dir, self.spec, leg, job_id=self.job.id)
        except CheckpointInvalid as error:
            failed = Decision(status=Status.FAILED, reason=Reason.CRASHED, detail=str(error))
            return failed, [self._incident(attempt, "not_published", str(error))]
        except OSError as error:
            text = f"the adapter could not be published ({error.strerror}: {error.filename}); retry to try again"
            return decision, [self._incident(attempt, "not_published", text)]
        if published.set_aside is None:
            return decision, []
        text = f"{published.copied_to} held the adapter of another run; it was moved to {published.set_aside}"
        return decision, [self._incident(attempt, "adapter_set_aside", text)]

    def _report(self, attempt: Attempt, decision: Decision) -> list[Incident]:
        """Have the report written by a process of its own, so that its memory is not the worker's."""
        command = [sys.executable, "-P", "-m", "orchestrator.report", str(self.night.app.home.path), str(self.job.id)]
        command += ["--as-status", decision.status.value]
        command += ["--as-reason", decision.reason.value] if decision.reason else []
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=REPORT_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = type(error).__name__
        else:
            if done.returncode == 0:
                return []
            problem = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        log.error("job %d: no report: %s", self.job.id, problem)
        text = f"the report could not be written: {problem}; try: lq report {self.job.id}"
        return [self._incident(attempt, "no_report", text)]

    def _restart(self, attempt: Attempt, decision: Decision) -> Incident:
        at = attempt.last_iteration if attempt.last_iteration is not None else attempt.first_iteration
        where = f"at iteration {at}" if at is not None else "before its first iteration"
        return self._incident(attempt, "restart", f"died {where}: {decision.detail}", dict(decision.evidence))

    def _incident(self, attempt: Attempt, code: str, text: str, evidence: dict[str, object] | None = None) -> Incident:
        return Incident(
            job_id=self.job.id,
            attempt=attempt.number,
            time=self.night.clock(),
            code=code,
            text=text,
            evidence=evidence or {},
        )

    # --- tell ---

    def _messages(self, attempt: Attempt, decision: Decision) -> Sequence[NewMessage]:
        event = {Status.SUCCEEDED: "finished", Status.FAILED: "failed"}.get(decision.status)
        if event is None or not self._services_for(event):
            return []
        job = self.store.job(self.job.id)
        facts = messages.Facts(
            job=job,
            attempts=self.store.attempts(job.id),
            points=self.store.points(job.id),
            validations=self.store.validations(job.id),
            tests=self.store.validations(job.id, kind="test"),
        )
        return [messages.ended(facts, decision, self.spec, attempt.number)]

    def _services_for(self, event: str) -> Sequence[str]:
        """Return the services that hear of an event; none where settings.yaml cannot be read: the log says so."""
        from jobs.errors import ConfigInvalid
        from orchestrator.notify import wants

        try:
            services = self.night.app.settings().notify.services
        except ConfigInvalid as error:
            log.error("nobody can be notified: %s", error)
            return []
        return wants(services, event, job_on=self.spec.lq.notify.on, job_tags=self.spec.lq.notify.tags)

    def _ring(self, decision: Decision) -> None:
        doorbell = self.night.app.doorbell
        for message in self.store.due_messages(self.night.clock()):
            doorbell.ring_for_delivery(message.id)
        if decision.not_before is not None:
            doorbell.ring(after_s=max(0.0, decision.not_before - self.night.clock()))


def _trained(event: Event, attempt: int) -> bool:
    return event.attempt == attempt and event.kind is Kind.PROGRESS and bool(event.data.get("losses"))


def _said(ending: Ending) -> tuple[str, str, str]:
    return ending.outcome.value, ending.reason.value, ending.detail
