"""What the collaborators of a run share: the job, its events and requests, and its position. No mlx."""

from __future__ import annotations

import dataclasses

from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from workers.events.log import EventLog
from workers.events.reporter import Reporter
from workers.files.job_dir import JobDir
from workers.process.stop_requests import Requests


class Position:
    """The completed iterations, and the stage whose settings apply."""

    def __init__(self, run_plan: RunPlan, reporter: Reporter, *, iteration: int) -> None:
        """Take the stage that applies after `iteration`, before the reporter is restored to it."""
        self._run_plan, self._reporter = run_plan, reporter
        self.index = run_plan.index_at(iteration)  # of the stage

    @property
    def iteration(self) -> int:
        """Completed iterations."""
        return self._reporter.iteration

    @property
    def stage(self) -> Stage:
        """The stage whose settings apply."""
        return self._run_plan.stages[self.index]

    @property
    def is_stage_start(self) -> bool:
        """Whether the stage starts here."""
        return self._run_plan.example_of(self.iteration) == self.stage.first_example

    def enter_stage(self) -> Stage:
        """Take the stage that trains the next iteration."""
        self.index = self._run_plan.index_at(self.iteration)
        return self.stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext:
    """One attempt at a run."""

    spec: JobSpec
    run_plan: RunPlan
    job_dir: JobDir
    events: EventLog
    requests: Requests  # what signals asked for
    reporter: Reporter
    position: Position

    @property
    def last_iteration(self) -> int:
        """The iteration at which the run ends."""
        ends_at = self.run_plan.ends_at
        return self.spec.iters if ends_at is None else self.run_plan.iteration_of(ends_at)

    @property
    def stage_end(self) -> int:
        """The iteration at which another stage starts, or the run ends."""
        until = self.run_plan.holds_until(self.run_plan.example_of(self.position.iteration))
        return self.last_iteration if until is None else self.run_plan.iteration_of(until)

    @property
    def micro_batches(self) -> int:
        """Micro-batches per iteration."""
        return self.spec.batch_size // self.position.stage.batch_size
