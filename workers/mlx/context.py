"""What the collaborators of a run share: the job, its events and requests, and its position. No mlx."""

from __future__ import annotations

from collections.abc import Callable

from jobs.model.events import MemoryReading
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from workers.events.reporter import Reporter
from workers.mlx.child import ChildProcess


class RunContext:
    """One attempt at a run."""

    def __init__(
        self,
        process: ChildProcess,
        spec: JobSpec,
        run_plan: RunPlan,
        job_dir: JobDir,
        memory: Callable[[], MemoryReading],
    ) -> None:
        """Start after the completed iterations of the process; `memory` reads its memory for progress events."""
        self.spec, self.run_plan, self.job_dir = spec, run_plan, job_dir
        self.events, self.requests = process.events, process.requests
        self.reporter = Reporter(process.events, steps_per_report=spec.steps_per_report, memory=memory)
        self.stage_index = run_plan.index_at(process.iteration)

    @property
    def iteration(self) -> int:
        """Completed iterations."""
        return self.reporter.iteration

    @property
    def stage(self) -> Stage:
        """The stage whose settings apply."""
        return self.run_plan.stages[self.stage_index]

    @property
    def is_stage_start(self) -> bool:
        """Whether the stage starts here."""
        return self.run_plan.example_of(self.iteration) == self.stage.first_example

    @property
    def stage_end(self) -> int:
        """The iteration at which another stage starts, or the run ends."""
        until = self.run_plan.holds_until(self.run_plan.example_of(self.iteration))
        return self.last_iteration if until is None else self.run_plan.iteration_of(until)

    @property
    def last_iteration(self) -> int:
        """The iteration at which the run ends."""
        ends_at = self.run_plan.ends_at
        return self.spec.iters if ends_at is None else self.run_plan.iteration_of(ends_at)

    @property
    def micro_batches(self) -> int:
        """Micro-batches per iteration."""
        return self.spec.batch_size // self.stage.batch_size
