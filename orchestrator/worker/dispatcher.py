"""Who answers the wake-up queue: finds the best job, looks after it, delivers what the outbox holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from jobs.model.errors import LqError
from jobs.model.job import Job, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from jobs.policies.after_attempt import DISK_CHECK_S
from jobs.scheduling.obstacles import Obstacle
from orchestrator.core.context import WorkerContext
from orchestrator.estimation.memory import PeakEstimates
from orchestrator.notify import group_notifications
from orchestrator.notify.job_notifications import JobNotifications
from orchestrator.notify.outbox_worker import OutboxWorker
from orchestrator.scheduling import device_lock, eligibility
from orchestrator.scheduling.sleep_inhibitor import SleepInhibitor
from orchestrator.worker.attempt import AttemptRunner
from orchestrator.worker.deadlines import DeadlineWatch
from orchestrator.worker.disk_watch import floor_of
from orchestrator.worker.log_rotation import START_LOG_BYTES
from orchestrator.worker.recovery import take_over_orphan, wake_for_missed
from workers.files.atomic import cap_log
from workers.system import disk

log = logging.getLogger("lq.shift")


class Dispatcher:
    """Answers the wake-up queue from Huey's threads; as many jobs at a time as there are slots."""

    def __init__(self, context: WorkerContext, *, slots: int) -> None:
        """Begin with nothing to do.

        Args:
            context: what every story shares.
            slots: jobs at a time.
        """
        self._context = context
        self._slots = slots
        self._lock = threading.Lock()
        self._busy: set[int] = set()  # jobs looked after now
        self._taken = 0  # slots taken
        self._woken = False  # a bell was heard while every slot was taken
        self._choosing = threading.Lock()  # no two slots look at the same line
        self._estimates = PeakEstimates(context.app)
        self._wakes_at: float | None = None  # when the bell will be rung for a window that opens
        self._device_used = False  # by a verb, when it was last looked at
        self._looks_at = 0.0  # when it will be looked at again, in unix seconds
        self._sleep_inhibitor = SleepInhibitor(context)
        self._deadline_watch = DeadlineWatch(context)
        self._outbox_worker = OutboxWorker(context)
        self._comparing = threading.Lock()

    def answer(self) -> None:
        """Look after jobs until there is none that may run."""
        if not self._take_slot():
            return
        try:
            while (job := self._next()) is not None:
                if self._taken < self._slots:
                    self._context.app.wakeup.wake()  # another slot may find a job that fits beside this one
                self._look_after(job)
        finally:
            self._free_slot()
        if self._woken and not self._context.shutting_down.is_set():
            self._woken = False
            self.answer()

    def deliver(self, message_id: int) -> None:
        """Deliver a message of the outbox if it is due."""
        self._outbox_worker.deliver(message_id)

    def shut_down(self) -> None:
        """Leave nothing behind; the stories have ended."""
        self._sleep_inhibitor.end()

    def tick(self) -> None:
        """A minute has passed: write the digest if its hour has come, see what came apart."""
        cap_log(self._context.app.home.start_log, START_LOG_BYTES)
        self._outbox_worker.tick()
        self._deadline_watch.look()
        wake_for_missed(self._context.app, self._context.clock())
        self._tell_of_groups()

    def _tell_of_groups(self) -> None:
        """Tell of groups that have ended; comparing their jobs may take longer than a minute."""
        if self._comparing.acquire(blocking=False):
            try:
                group_notifications.publish_ended(self._context.app, self._context.clock())
            finally:
                self._comparing.release()

    # --- slots ---

    def _take_slot(self) -> bool:
        with self._lock:
            if self._taken >= self._slots:
                self._woken = True
                return False
            self._taken += 1
            return True

    def _free_slot(self) -> None:
        with self._lock:
            self._taken -= 1

    # --- jobs ---

    def _next(self) -> Job | None:
        """Return the next job to look after: one whose worker is gone comes before one that waits."""
        if self._context.shutting_down.is_set():
            return None
        app, owner, now = self._context.app, self._context.owner, self._context.clock()
        with self._choosing:
            orphan = take_over_orphan(app, owner, busy=self._busy, now=now)
            if orphan is not None:
                return orphan
            self._keep_waiting_for_space()
            for skipped in app.store.queue.enqueue_due(now, self._tell_skipped):
                log.info("job %d: skipped: %s", skipped.id, skipped.detail)
            return self._claim(now)

    def _claim(self, now: float) -> Job | None:
        """Claim the first job that may start; where none may, be woken when the next one will."""
        app, context = self._context.app, self._context
        in_use = device_lock.obstacle(app.home)
        if self._passes_by_device(in_use, now):
            return None
        turns = eligibility.turns(
            app, slots=self._slots, read=context.read, now=now, zone=context.zone, estimates=self._estimates
        )
        for turn in turns:
            if turn.may_start and (job := self._claimed(turn.job.id, now)) is not None:
                self._sleep_inhibitor.end()  # from here on its story keeps the machine awake
                return job
        if not self._busy:
            self._sleep_inhibitor.update(turns)
        self._wake_at(eligibility.opens_next(turns), now)
        return None

    def _passes_by_device(self, in_use: Obstacle | None, now: float) -> bool:
        """Look again soon where a verb uses the device; once it is free, let a verb that waits for it have it first."""
        was_used, self._device_used = self._device_used, in_use is not None
        if (in_use is not None or was_used) and now >= self._looks_at:
            self._looks_at = now + device_lock.LOOK_S
            self._context.app.wakeup.wake(after_s=device_lock.LOOK_S)
        return was_used and in_use is None

    def _claimed(self, job_id: int, now: float) -> Job | None:
        """Claim a job, unless a verb took the device a moment ago."""
        with device_lock.kept_free(self._context.app.home) as free:
            return self._context.app.store.leases.claim(self._context.owner, now, only=job_id) if free else None

    def _wake_at(self, moment: float | None, now: float) -> None:
        """Have the bell rung at a moment; once, however often this is asked."""
        if moment is not None and moment != self._wakes_at:
            self._wakes_at = moment
            self._context.app.wakeup.wake(after_s=max(0.0, moment - now))

    def _tell_skipped(self, job: Job) -> Sequence[NewMessage]:
        spec = self._context.app.store.spec(job.id)
        return JobNotifications(self._context.app, job, spec).skipped(job.detail or "")

    def _keep_waiting_for_space(self) -> None:
        """Let jobs that wait for disk space wait on while there is none."""
        store, now = self._context.app.store, self._context.clock()
        floor = None
        for job in store.jobs.overview(ended=0):
            due = job.status is Status.WAITING and (job.not_before or 0.0) <= now
            if not due or job.reason != Reason.DISK_FULL:
                continue
            floor = floor_of(self._context.app) if floor is None else floor
            space = disk.space_for(job.dir, floor=floor)
            if space is not None and not space.enough_to_begin:
                store.jobs.postpone(job.id, now + DISK_CHECK_S)
                self._context.app.wakeup.wake(after_s=DISK_CHECK_S)

    def _look_after(self, job: Job) -> None:
        with self._lock:
            if job.id in self._busy:
                return
            self._busy.add(job.id)
        try:
            AttemptRunner(self._context, job).tell()
        except LqError as error:
            log.error("job %d: %s", job.id, error)
            raise
        finally:
            with self._lock:
                self._busy.discard(job.id)
