"""Rollback: target, escalation, rows left out, and the end as diverged."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.loss.alarms import Alarm, LossFinding
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec, LqSpec, Spike
from jobs.model.states import Status
from jobs.policies import after_attempt
from jobs.policies.decision import Decision, History
from jobs.policies.retry import Crash
from jobs.policies.rollback import (
    Rollback,
    RollbackCandidate,
    distance,
    escalation,
    is_point,
    roll_back,
    spacing,
    window,
)

SPEC = JobSpec(iters=15_000, batch_size=4, save_every=500, steps_per_report=10)
"""The reference run, reporting every ten iterations."""


def spike(first_flag: int = 980, *, detected: int | None = None, alarm: Alarm = Alarm.SPIKE) -> LossFinding:
    iteration = first_flag + 20 if detected is None else detected
    return LossFinding(alarm=alarm, iteration=iteration, first_flag=first_flag, text="loss 7.4", evidence={"loss": 7.4})


def candidate(iteration: int, *, best: bool = False, healthy: bool = True, updates: int = 0) -> RollbackCandidate:
    return RollbackCandidate(iteration=iteration, updates=updates, best=best, healthy=healthy)


def answer(
    finding: LossFinding, *candidates: RollbackCandidate, stages: tuple[Stage, ...] = (), spec: JobSpec = SPEC
) -> Rollback:
    run_plan = (*RunPlan.requested(spec).stages, *stages)
    history = History(stages=run_plan, candidates=candidates, batches_per_epoch=105)
    return roll_back(finding, spec, history, before=len(stages))


def earlier(target: int, first_flag: int, step: int, **changes: Any) -> Stage:
    """Return a stage that an earlier rollback appended."""
    requested = RunPlan.requested(SPEC).stages[0]
    return requested.continued(target * 4, because="spike", rollback=step, first_flag=first_flag, salt=step, **changes)


def test_reference_run_rolls_back_to_500() -> None:
    found = answer(spike(), candidate(500, best=True))
    assert found.target == 500
    assert (found.stage.first_example, found.stage.salt, found.stage.grad_clip) == (2000, 1, 1.0)
    assert (found.stage.learning_rate_factor, found.stage.warmup_updates, found.stage.reset_moments) == (1.0, 0, False)
    assert found.stage.because == "spike at iteration 1000"


def test_target_is_healthy_and_early_enough() -> None:
    spec = JobSpec(iters=15_000, batch_size=4, save_every=100)
    several = [candidate(700), candidate(800), candidate(850, healthy=False), candidate(900), candidate(1000)]
    assert answer(spike(), *several, spec=spec).target == 800
    assert answer(spike(), candidate(800, healthy=False), candidate(700), spec=spec).target == 700


def test_no_healthy_checkpoint_restarts_run() -> None:
    found = answer(spike(), candidate(500, healthy=False))
    assert (found.target, found.stage.first_example) == (0, 0)


def test_best_before_flag_is_the_fallback() -> None:
    assert answer(spike(140), candidate(120, best=True)).target == 120
    assert answer(spike(140), candidate(150, best=True)).target == 0, "it is after the flag"


def test_only_rollback_points_are_targets() -> None:
    assert answer(spike(), candidate(500), candidate(777)).target == 500


def test_second_step_goes_one_point_further() -> None:
    spec = JobSpec(iters=15_000, batch_size=4, save_every=100)
    several = [candidate(at, updates=at) for at in (700, 800, 900)]
    first = answer(spike(), *several, spec=spec)
    second = answer(spike(1010), *several, stages=(first.stage,), spec=spec)
    assert (first.target, second.target) == (800, 700)
    assert (second.stage.learning_rate_factor, second.stage.warmup_updates, second.stage.first_update) == (0.5, 50, 700)
    assert (second.stage.rollback, second.stage.salt, second.stage.reset_moments) == (2, 2, False)


def test_third_step_resets_the_moments() -> None:
    stages = (earlier(500, 980, 1), earlier(500, 990, 2, learning_rate_factor=0.5))
    found = answer(spike(1000), candidate(130, best=True, updates=3), candidate(500), stages=stages)
    assert found.target == 130
    assert (found.stage.learning_rate_factor, found.stage.warmup_updates, found.stage.first_update) == (0.25, 150, 3)
    assert found.stage.reset_moments


def test_rollback_restarts_the_warm_up() -> None:
    """Otherwise the learning rate would be negative before the old start of the warm-up."""
    stage = earlier(1000, 1200, 3, warmup_updates=150, first_update=1000, learning_rate_factor=0.25)
    found = answer(spike(4000), candidate(3500, updates=900), stages=(stage,))
    assert (found.stage.rollback, found.stage.warmup_updates, found.stage.first_update) == (1, 150, 900)


def test_distant_spike_does_not_escalate() -> None:
    far, near = spike(980 + 1501), spike(980 + 1499)
    stages = [*RunPlan.requested(SPEC).stages, earlier(500, 980, 1)]
    assert escalation(far, stages, SPEC, before=1) == 1
    assert escalation(near, stages, SPEC, before=1) == 2
    assert escalation(near, stages, SPEC, before=0) == 1, "a new submit or retry resets the count"


def test_requested_clip_is_never_raised() -> None:
    spec = SPEC.model_copy(update={"lq": LqSpec(grad_clip=0.25)})
    assert answer(spike(), candidate(500), spec=spec).stage.grad_clip == 0.25


@pytest.mark.parametrize(
    ("target", "first_flag", "detected", "batches", "expected"),
    [
        (500, 900, 920, 10_000, (500, 970)),  # up to the detection and fifty more
        (500, 980, 1000, 1050, (875, 980)),  # a tenth of the epoch, up to the flag
        (900, 980, 1000, 1050, (900, 1005)),
        (0, 9000, 9020, 100_000, (8500, 9000)),  # at most 500
        (0, 40, 50, 5, (39, 40)),
    ],
)
def test_window_of_left_out_rows(
    target: int, first_flag: int, detected: int, batches: int, expected: tuple[int, int]
) -> None:
    assert window(target, spike(first_flag, detected=detected), batches) == expected


def test_points_are_ends_of_updates() -> None:
    spec = JobSpec(save_every=100, grad_accumulation_steps=32, steps_per_report=10)
    assert (distance(spec), spacing(spec)) == (100, 100)
    assert [at for at in range(700) if is_point(at, spec)] == [128, 224, 320, 416, 512, 608]


# --- the decision ---


def settled(crashes: list[Reason], *, spec: JobSpec = SPEC, conclusion: Any = None, **changes: Any) -> Decision:
    history = History(
        crashes=[Crash(gained=500, reason=reason) for reason in crashes],
        stages=RunPlan.requested(spec).stages,
        stage=RunPlan.requested(spec).stages[0],
        conclusion=conclusion or spike(),
        candidates=[candidate(500, best=True)],
        batches_per_epoch=105,
        **changes,
    )
    ending = Ending(outcome=Outcome.CRASHED, reason=crashes[-1], detail="loss 7.4")
    return after_attempt.decide(ending, spec=spec, history=history, now=100.0, jitter=0.0)


def test_spike_rolls_back_immediately() -> None:
    decision = settled([Reason.SPIKE])
    assert (decision.status, decision.reason, decision.not_before) == (Status.WAITING, Reason.SPIKE, 100.0)
    assert decision.stage is not None
    assert (decision.back_to, decision.stage.first_example) == (500, 2000)
    assert decision.evidence["iterations_given_up"] == 500


@pytest.mark.parametrize("last", [Reason.SPIKE, Reason.DRIFT, Reason.NOT_FINITE])
def test_three_rollbacks_end_as_diverged(last: Reason) -> None:
    decision = settled([Reason.SPIKE, Reason.DRIFT, Reason.KILLED, Reason.NOT_FINITE, last])
    assert (decision.status, decision.reason, decision.publish_until) == (Status.FAILED, Reason.DIVERGED, 500)
    assert (decision.evidence["rollbacks"], decision.evidence["published"]) == (3, 500)


def test_max_rollbacks_is_a_setting() -> None:
    spec = SPEC.model_copy(update={"lq": LqSpec(spike=Spike(max_rollbacks=0))})
    assert settled([Reason.SPIKE], spec=spec).reason is Reason.DIVERGED


def test_cancelled_job_is_not_rolled_back() -> None:
    assert settled([Reason.SPIKE], stop_request="cancel").status is Status.CANCELLED


def test_continued_stage_clears_fields() -> None:
    stage = earlier(500, 980, 3, reset_moments=True, skipped=(1, 2), warmup_updates=150, first_update=7)
    on = stage.continued(9999, because="memory", batch_size=2)
    assert (on.reset_moments, on.skipped, on.rollback, on.first_flag) == (False, None, 0, None)
    assert (on.salt, on.warmup_updates, on.first_update, on.batch_size) == (3, 150, 7, 2)
