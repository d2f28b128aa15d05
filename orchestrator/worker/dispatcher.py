"""Handles the signals of the wake-up queue: starts the next job, delivers messages, does what is due every minute."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from jobs.model.errors import LqError
from jobs.model.job import Job, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from jobs.policies.disk import RETRY_EVERY_S
from jobs.scheduling.obstacles import Obstacle
from orchestrator.core.context import WorkerContext
from orchestrator.estimation.memory import PeakEstimates
from orchestrator.notify.outbox_worker import OutboxWorker
from orchestrator.notify.publisher import JobNotifications, publish_ended_groups
from orchestrator.scheduling import device_lock, eligibility
from orchestrator.scheduling.sleep_inhibitor import SleepInhibitor
from orchestrator.worker import queue_pause
from orchestrator.worker.attempt import AttemptRunner
from orchestrator.worker.deadlines import DeadlineWatch
from orchestrator.worker.disk_watch import floor_of
from orchestrator.worker.log_rotation import START_LOG_BYTES
from orchestrator.worker.recovery import take_over_orphan, wake_for_missed
from workers.files.atomic import cap_log
from workers.system import disk

log = logging.getLogger("lq.dispatcher")


class Dispatcher:
    """Handles signals in Huey's threads; runs as many jobs at a time as there are slots."""

    def __init__(self, context: WorkerContext, *, slots: int) -> None:
        self._context = context
        self._slots = slots  # jobs that may run at the same time
        self._free_slots = threading.Semaphore(slots)
        self._running: set[int] = set()  # ids of jobs that an AttemptRunner runs now
        self._woken = False  # a signal arrived while all slots were in use
        self._choosing = threading.Lock()  # one slot at a time reads the queue
        self._estimates = PeakEstimates(context.app)
        self._wakes_at: float | None = None  # scheduled wake-up for a window that opens
        self._device_used = False  # by a verb, at the last check
        self._device_check_at = 0.0  # next check of the device, unix seconds
        self._sleep_inhibitor = SleepInhibitor(context)
        self._deadline_watch = DeadlineWatch(context)
        self._outbox_worker = OutboxWorker(context)
        self._slow_work = threading.Lock()

    def handle(self) -> None:
        """Run jobs until none may start."""
        self._woken = True  # before the slot is taken: a thread that frees its slot meanwhile handles this signal
        while self._woken and self._free_slots.acquire(blocking=False):
            self._woken = False
            try:
                while (job := self._next()) is not None:
                    if len(self._running) < self._slots:
                        self._context.app.wakeup.wake()  # a job may fit into another slot
                    self._run(job)
            finally:
                self._free_slots.release()

    def deliver(self, message_id: int) -> None:
        self._outbox_worker.deliver(message_id)

    def tick(self) -> None:
        """Do what is due every minute."""
        cap_log(self._context.app.home.start_log, START_LOG_BYTES)
        self._outbox_worker.tick()
        self._deadline_watch.check()
        wake_for_missed(self._context.app, self._context.clock())
        if self._slow_work.acquire(blocking=False):  # child processes, which may take longer than a minute
            try:
                queue_pause.resume_if_repaired(self._context)
                publish_ended_groups(self._context.app, self._context.clock())
            finally:
                self._slow_work.release()

    def shut_down(self) -> None:
        """Allow sleep again, after all AttemptRunners have returned."""
        self._sleep_inhibitor.end()

    def _next(self) -> Job | None:
        """Return the next job to run: a job whose worker is gone comes before queued jobs."""
        if self._context.shutting_down.is_set():
            return None
        app, owner, now = self._context.app, self._context.owner, self._context.clock()
        with self._choosing:
            job = take_over_orphan(app, owner, busy=self._running, now=now)
            if job is None:
                self._postpone_disk_full(now)
                for skipped in app.store.queue.enqueue_due(now, self._messages_of_skipped):
                    log.info("job %d: skipped: %s", skipped.id, skipped.detail)
                job = self._claim(now)
            if job is not None:
                self._running.add(job.id)
            return job

    def _claim(self, now: float) -> Job | None:
        """Claim the first job that may start; if none may, schedule a wake-up for the next one."""
        app, context = self._context.app, self._context
        if self._leaves_device(device_lock.obstacle(app.home), now):
            return None
        turns = eligibility.turns(
            app, slots=self._slots, read=context.read, now=now, zone=context.zone, estimates=self._estimates
        )
        for turn in turns:
            if turn.may_start and (job := self._claim_one(turn.job.id, now)) is not None:
                self._sleep_inhibitor.end()  # the AttemptRunner prevents sleep now
                return job
        if not self._running:
            self._sleep_inhibitor.update(turns)
        opens = eligibility.opens_next(turns)
        if opens is not None and opens != self._wakes_at:  # one wake-up for a time, however often this is called
            self._wakes_at = opens
            app.wakeup.wake(after_s=max(0.0, opens - now))
        return None

    def _leaves_device(self, in_use: Obstacle | None, now: float) -> bool:
        """Report whether a verb that waits for the device goes first, because another verb has just freed it.

        While a verb uses the device, this schedules the next check.
        """
        was_used, self._device_used = self._device_used, in_use is not None
        if (in_use is not None or was_used) and now >= self._device_check_at:
            self._device_check_at = now + device_lock.LOOK_S
            self._context.app.wakeup.wake(after_s=device_lock.LOOK_S)
        return was_used and in_use is None

    def _claim_one(self, job_id: int, now: float) -> Job | None:
        """Claim a job, unless a verb has just taken the device."""
        with device_lock.kept_free(self._context.app.home) as free:
            return self._context.app.store.leases.claim(self._context.owner, now, only=job_id) if free else None

    def _messages_of_skipped(self, job: Job) -> Sequence[NewMessage]:
        spec = self._context.app.store.spec(job.id)
        return JobNotifications(self._context.app, job, spec).skipped(job.detail or "")

    def _postpone_disk_full(self, now: float) -> None:
        """Postpone the jobs that wait for disk space while there is too little."""
        store, floor = self._context.app.store, None
        for job in store.jobs.overview(ended=0):
            due = job.status is Status.WAITING and (job.not_before or 0.0) <= now
            if not due or job.reason != Reason.DISK_FULL:
                continue
            floor = floor_of(self._context.app) if floor is None else floor
            space = disk.space_for(job.dir, floor=floor)
            if space is not None and not space.enough_to_resume:
                store.jobs.postpone(job.id, now + RETRY_EVERY_S)
                self._context.app.wakeup.wake(after_s=RETRY_EVERY_S)

    def _run(self, job: Job) -> None:
        try:
            AttemptRunner(self._context, job).run()
        except LqError as error:
            log.error("job %d: %s", job.id, error)
            raise
        finally:
            self._running.discard(job.id)
