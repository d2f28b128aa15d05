"""Decides when lq stops a running trainer: a request, memory, a stall, the disk, the losses, or a constraint."""

from __future__ import annotations

import logging

from jobs.model.job import Job
from jobs.model.spec import JobSpec
from jobs.policies.attempt_health import AttemptHealth
from jobs.scheduling import obstacles
from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import Obstacle
from orchestrator.core.context import WorkerContext
from orchestrator.worker.disk_watch import FOLDER_GONE_GRACE_S, DiskWatch
from orchestrator.worker.loss_guard import LossGuard, ending_of
from workers.process.supervisor import Child

STOP_GRACE_S = 60.0
STALL_GRACE_S = 30.0
LONGEST_GRACE_S = 900.0

log = logging.getLogger("lq.attempt")


class Intervention:
    """Stops the trainer of one attempt, and keeps why."""

    def __init__(
        self, context: WorkerContext, job: Job, spec: JobSpec, constraints: Constraints, disk: DiskWatch
    ) -> None:
        self._context, self._job, self._spec, self._constraints = context, job, spec, constraints
        self.disk = disk
        self.memory: str | None = None  # why the memory guard stopped the trainer
        self.stall: str | None = None  # why the stall watch stopped it
        self.obstacle: Obstacle | None = None  # which constraint stopped it
        self._suspected: int | None = None  # first flag of the suspicion that a validation was requested for

    def check(self, child: Child, health: AttemptHealth, losses: LossGuard) -> None:
        """Ask the trainer to stop if there is a reason; kill it if it does not stop in time."""
        store = self._context.app.store
        job = store.jobs.get(self._job.id)
        if job.stop_request is None and self._context.shutting_down.is_set():
            job = store.jobs.request_stop(self._job.id, "worker_stop", self._context.clock())
        if child.stop_requested_at is None and job.stop_request is None:
            self._check_machine(child, health)
            self._check_losses(child, health, losses)
            self._check_constraints(child)
        if job.stop_request is not None:
            child.request_stop()
        if self.disk.folder_gone:
            child.kill_after(FOLDER_GONE_GRACE_S)
        child.kill_after(STALL_GRACE_S if self.stall is not None else self.stop_grace_s())

    def _check_machine(self, child: Child, health: AttemptHealth) -> None:
        self.stall = health.stall(self._context.awake())
        if self.stall is None:
            self.memory = health.short_of_memory()
        why = self.stall or self.memory or self.disk.check()
        if why is not None:
            log.warning("job %d: %s; stopping the trainer", self._job.id, why)
            child.request_stop()

    def _check_losses(self, child: Child, health: AttemptHealth, losses: LossGuard) -> None:
        """Stop the trainer for a conclusion of the loss guard; request a validation for a suspicion."""
        if losses.conclusion is not None:
            log.warning("job %d: %s; stopping the trainer", self._job.id, ending_of(losses.conclusion).detail)
            child.request_stop()
        elif losses.suspicion not in (None, self._suspected) and health.trained:
            self._suspected = losses.suspicion
            child.request_validation()

    def _check_constraints(self, child: Child) -> None:
        """Stop the trainer if its window closes, for power or heat, or if the machine is in use."""
        reading = self._context.read(self._constraints)
        now, zone = self._context.clock(), self._context.zone
        self.obstacle = obstacles.of_constraints(self._constraints, reading, now=now, zone=zone, runs=True)
        if self.obstacle is not None:
            log.info("job %d: %s; stopping the trainer for now", self._job.id, self.obstacle.text)
            child.request_stop()

    def stop_grace_s(self) -> float:
        """Return how many seconds a stop may take: the trainer completes its update and writes a checkpoint."""
        speed = self._context.app.store.jobs.get(self._job.id).it_s
        update = self._spec.grad_accumulation_steps / speed if speed else 0.0
        return min(STOP_GRACE_S + 4 * update, LONGEST_GRACE_S)
