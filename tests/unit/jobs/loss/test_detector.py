"""The loss detector: alarms on synthetic reports and validations, and properties."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.loss.alarms import Alarm, LossFinding, LossReport, ValidationLoss
from jobs.loss.detector import LossDetector, fold
from tests.benchmarks.detectors import curves
from tests.benchmarks.detectors.measure import LEAST_RISE, broken_runs, large
from tests.benchmarks.detectors.rules import GRAVE, detector, findings
from tests.golden import assert_golden

GOLDEN = Path(__file__).parent / "golden"
NAN, INF = math.nan, math.inf
WAVE = (0.0, 0.04, -0.04, 0.08, -0.08)
"""Noise with a median absolute deviation of 4 % and thus a scale of 5.9 %."""


def steady(count: int, level: float = 1.0) -> list[float]:
    return [level * (1 + WAVE[number % len(WAVE)]) for number in range(count)]


def reports(losses: Iterable[float], *, every: int = 10) -> list[LossReport]:
    return [LossReport(iteration=(number + 1) * every, loss=loss) for number, loss in enumerate(losses)]


def validations(losses: Iterable[float], *, every: int = 100, error: float | None = None) -> list[ValidationLoss]:
    return [
        ValidationLoss(iteration=(number + 1) * every, loss=loss, standard_error=error)
        for number, loss in enumerate(losses)
    ]


def findings_of(
    losses: Iterable[float], validated: Sequence[ValidationLoss] = (), *, warm_up: int = 0, every: int = 10
) -> list[LossFinding]:
    return fold(reports(losses, every=every), validated, warm_up=warm_up, steps_per_report=every)[1]


def alarms(
    losses: Iterable[float], validated: Sequence[ValidationLoss] = (), *, warm_up: int = 0
) -> list[tuple[str, int]]:
    return [(found.alarm.value, found.iteration) for found in findings_of(losses, validated, warm_up=warm_up)]


def after(losses: Iterable[float], *, warm_up: int = 0) -> LossDetector:
    return fold(reports(losses), [], warm_up=warm_up, steps_per_report=10)[0]


# --- one report ---


@pytest.mark.parametrize(
    ("level", "loss", "flagged"),
    [
        (1.0, 1.501, True),  # median 1, scale 0.059: 8.4 scales, 1.501 times, 0.501 above
        (1.0, 1.5, False),  # not more than 1.5 times
        (0.2, 0.351, True),  # scale 0.02: 7.6 scales, 1.76 times, 0.151 above
        (0.2, 0.349, False),  # not more than 0.15 above
        (0.1, 0.249, False),
        (0.1, 0.251, True),
    ],
)
def test_flag_needs_all_three_criteria(level: float, loss: float, flagged: bool) -> None:
    assert after([*steady(40, level), loss]).reports.was_flagged(410) == flagged


@pytest.mark.parametrize(("loss", "flagged"), [(2.77, False), (2.79, True)])
def test_flag_depends_on_the_noise(loss: float, flagged: bool) -> None:
    noisy = [1 + 5 * WAVE[number % 5] for number in range(40)]  # scale 1.4826 * 0.2: six of them are 1.78
    assert after([*noisy, loss]).reports.was_flagged(410) == flagged


def test_one_high_report_raises_nothing() -> None:
    assert alarms([*steady(40), 2.9, *steady(40)]) == []


@pytest.mark.parametrize(
    ("tail", "at"),
    [
        ([2.0, 2.0, 2.0], 430),
        ([2.0, 1.0, 2.0, 2.0], 440),
        ([2.0, 2.0, 1.0, 2.0], 440),
        ([2.0, 1.0, 1.0, 2.0, 2.0], None),  # three, but not among four
        ([2.0, 2.0, 1.0, 1.0, 2.0], None),
    ],
)
def test_three_flags_of_four_are_a_spike(tail: list[float], at: int | None) -> None:
    found = findings_of([*steady(40), *tail])
    assert [(each.alarm, each.iteration, each.first_flag) for each in found] == (
        [(Alarm.SPIKE, at, 410)] if at is not None else []
    )


def test_spike_evidence_has_the_numbers() -> None:
    (spike,) = findings_of([*[0.15] * 40, 1.0, 2.0, 7.425])
    assert spike.evidence == {
        "loss": 7.425,
        "median": 0.15,
        "scale": 0.02,
        "z": pytest.approx(363.75),
        "base": 40,
        "flags": 3,
    }


def test_baseline_excludes_flagged_reports() -> None:
    assert after([*steady(40), *[9.0] * 200]).reports.unflagged_after(400) == 0
    assert after([*steady(40), *[9.0] * 200]).reports.was_flagged(2400)


def test_finding_texts_golden() -> None:
    rising = [1 + 0.01 * number for number in range(100)]
    falling = [1 - 0.002 * number for number in range(400)]
    overfit = validations([1.0, 0.9, 0.8, 0.91, 0.92])
    both = validations([2.0, 1.0, 0.5, 0.3, 0.167, 0.17, 0.17, 0.17, 0.17, 8.685, 8.0])
    skipped = [LossReport(iteration=10, loss=1.0, skipped=2), LossReport(iteration=20, loss=1.0, skipped=1)]
    found = [
        *findings_of([*[0.15] * 40, 1.0, 2.0, 7.425]),
        *findings_of([2.0, *[4.01] * 5]),
        *findings_of([*steady(60), *rising]),
        *findings_of([*steady(40), 5.0]),
        *fold(skipped, [], warm_up=0, steps_per_report=10)[1],
        *findings_of([1.0, NAN]),
        *findings_of(falling, overfit),
        *findings_of([0.150, 7.425], both, every=500),
        *findings_of(steady(20), validations([1.0, NAN])),
    ]
    assert_golden("".join(f"{each.alarm}: {each.text}\n" for each in found), GOLDEN / "findings.txt")


# --- the beginning of a run ---


def test_baseline_needs_fifteen_reports() -> None:
    assert not after([1.0] * 14 + [2.4]).reports.was_flagged(150)
    assert after([1.0] * 15 + [2.4]).reports.was_flagged(160)


def test_warm_up_is_not_compared() -> None:
    assert not after([*steady(30), 2.4], warm_up=310).reports.was_flagged(310)
    assert after([*steady(30), 2.4], warm_up=300).reports.was_flagged(310)


@pytest.mark.parametrize(
    ("losses", "at"),
    [
        ([2.0, *[4.01] * 5], 60),
        ([2.0, *[4.0] * 5], None),
        ([2.0, *[4.01] * 4, 3.9, *[4.01] * 4], None),
        ([2.0, 1.0, 1.0, *[5.0] * 5], 80),
    ],
)
def test_five_early_reports_are_a_spike(losses: list[float], at: int | None) -> None:
    found = findings_of(losses)
    assert [each.iteration for each in found] == ([at] if at else [])
    assert all(each.alarm is Alarm.SPIKE and each.first_flag == at - 40 for each in found if at)


def test_early_rule_applies_in_warm_up() -> None:
    assert alarms([*steady(40), *[2.6] * 5], warm_up=1_000) == [("spike", 450)]
    assert alarms([*steady(40), *[2.4] * 5], warm_up=1_000) == []


# --- suspect ---


@pytest.mark.parametrize(("loss", "suspected"), [(3.0, False), (3.1, True)])
def test_one_enormous_report_is_suspect(loss: float, suspected: bool) -> None:
    detector_ = after([*steady(40), loss])
    assert detector_.suspicion == (410 if suspected else None)
    assert alarms([*steady(40), loss]) == ([("suspect", 410)] if suspected else [])


def test_suspect_at_low_level_needs_two_nats() -> None:
    assert alarms([*steady(40, 0.1), 2.0]) == []
    assert alarms([*steady(40, 0.1), 2.2]) == [("suspect", 410)]


def test_two_unflagged_reports_end_suspect() -> None:
    assert after([*steady(40), 5.0, 1.0]).suspicion == 410
    assert after([*steady(40), 5.0, 1.0, 1.0]).suspicion is None
    assert after([*steady(40), 5.0, 1.0, 2.0, 1.0]).suspicion == 410


def test_suspect_is_raised_once_until_ended() -> None:
    assert alarms([*steady(40), 5.0, 1.0, 5.0]) == [("suspect", 410)]
    assert alarms([*steady(40), 5.0, 1.0, 1.0, 5.0]) == [("suspect", 410), ("suspect", 440)]


def skipping(*skipped: int, every: int = 10) -> list[tuple[str, int, int]]:
    given_ = [
        LossReport(iteration=(number + 1) * every, loss=1.0, skipped=count)
        for number, count in enumerate([*[0] * 20, *skipped])
    ]
    found = fold(given_, [], warm_up=0, steps_per_report=every)[1]
    return [(each.alarm.value, each.iteration, each.first_flag) for each in found]


def test_many_skipped_updates_are_suspect() -> None:
    assert skipping(2) == []
    assert skipping(3) == [("suspect", 210, 210)]
    assert skipping(1, 0, 1, 0, 1) == [("suspect", 250, 210)]
    assert skipping(1, *[0] * 18, 2) == [("suspect", 400, 210)]
    assert skipping(1, *[0] * 19, 2) == []  # the first one is more than 200 iterations old
    assert skipping(5, every=500) == []  # one report covers all of them
    assert skipping(6, every=500) == [("suspect", 10_500, 10_500)]


def test_skipped_updates_are_raised_once() -> None:
    assert skipping(*[1] * 40) == [("suspect", 230, 210)]
    assert len(skipping(3, *[0] * 30, 3)) == 2


def test_skipped_share_counts_200_updates() -> None:
    start = [LossReport(iteration=10, loss=1.0, skipped=2), LossReport(iteration=20, loss=1.0, skipped=1)]
    found = fold(start, [], warm_up=0, steps_per_report=10)[1]
    assert [(each.alarm, each.evidence) for each in found] == [(Alarm.SUSPECT, {"skipped": 3, "iterations": 20})]


# --- drift ---


def test_rising_level_is_a_drift() -> None:
    (drift,) = findings_of([*steady(60), *(1 + 0.01 * number for number in range(100))])
    assert drift.alarm is Alarm.DRIFT
    assert 600 < drift.first_flag < drift.iteration < 1_400
    assert drift.evidence["lo"] == 1.0


def test_small_or_short_rise_is_no_drift() -> None:
    assert alarms([*steady(60), *steady(100, 1.4)]) == []
    assert alarms([*steady(60, 0.2), *steady(100, 0.34)]) == []  # two thirds higher, but only by 0.14
    assert alarms([*steady(60), *steady(9, 1.49), *steady(60)]) == []


def test_drift_needs_sixty_reports() -> None:
    rising = [1 + 0.02 * number for number in range(200)]
    (drift,) = findings_of(rising)
    assert drift.iteration == 600


def test_drift_begins_after_last_low_window() -> None:
    """A rollback to the lowest window of a long plateau would discard thousands of good iterations."""
    lowest_early = [*steady(60), *steady(20, 0.99), *steady(300), *steady(40, 1.2), *steady(40, 1.4), *steady(60, 1.6)]
    (drift,) = findings_of(lowest_early)
    assert drift.alarm is Alarm.DRIFT
    assert 3_800 <= drift.first_flag <= 4_300


# --- not finite ---


@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_non_finite_loss_is_raised(loss: float) -> None:
    (found,) = findings_of([1.0, loss, 1.0])
    assert (found.alarm, found.iteration, found.first_flag) == (Alarm.NOT_FINITE, 20, 20)
    assert found.evidence == {"loss": str(loss)}
    json.dumps(dict(found.evidence), allow_nan=False)


def test_non_finite_validation_is_raised() -> None:
    assert alarms(steady(20), validations([1.0, NAN])) == [("not_finite", 200)]


# --- episodes ---


def test_continued_spike_is_one_incident() -> None:
    assert alarms([*steady(60), *[9.0] * 1_000]) == [("suspect", 610), ("spike", 630)]
    assert alarms([*steady(60), *[9.0] * 50, NAN, NAN, *[9.0] * 50])[1:] == [("spike", 630), ("not_finite", 1110)]


def test_twenty_good_reports_end_episode() -> None:
    spike = [2.0] * 3
    assert alarms([*steady(40), *spike, *steady(19), *spike]) == [("spike", 430)]
    assert alarms([*steady(40), *spike, *steady(20), *spike]) == [("spike", 430), ("spike", 660)]
    assert alarms([*steady(40), NAN, *steady(19), NAN]) == [("not_finite", 410)]
    assert alarms([*steady(40), NAN, *steady(20), NAN]) == [("not_finite", 410), ("not_finite", 620)]


def test_level_that_stays_high_is_one_drift() -> None:
    rising = [1 + 0.01 * number for number in range(100)]
    assert [alarm for alarm, _ in alarms([*steady(60), *rising, *steady(800, 2.0)])] == ["drift"]


def test_spike_after_drift_is_raised() -> None:
    rising = [1 + 0.01 * number for number in range(100)]
    found = [alarm for alarm, _ in alarms([*steady(60), *rising, *steady(100, 2.0), *[9.0] * 5])]
    assert found == ["drift", "suspect", "spike"]


# --- validations ---


def test_overfitting_is_raised_once() -> None:
    falling = [1 - 0.002 * number for number in range(400)]
    validated = validations([1.0, 0.9, 0.8, 0.91, 0.92, 0.93, 0.8, 0.95, 0.96])
    (found,) = findings_of(falling, validated)
    assert (found.alarm, found.iteration, found.first_flag) == (Alarm.OVERFITTING, 500, 400)
    assert (found.evidence["best"], found.evidence["beyond"]) == (0.8, 2)
    assert found.evidence["training_then"] == pytest.approx(0.951)


BEYOND = validations([1.0, 0.9, 0.8, 0.91, 0.92, 0.93], error=0.01)
"""Validations every 100 iterations whose best is the third one."""


@pytest.mark.parametrize(
    ("level", "alarm", "word"),
    [
        (lambda at: 1 - 0.002 * at, Alarm.OVERFITTING, "fell"),
        (lambda at: 0.2, Alarm.OVERFITTING, "did not change"),  # memorized
        (lambda at: 1.0, Alarm.REGRESSED, "did not change"),
        (lambda at: 1.0 + 0.08 * (at > 35), Alarm.REGRESSED, "rose by less than"),
        (lambda at: 1.0 + 0.4 * (at > 35), Alarm.SPIKE, "rose too"),
    ],
)
def test_training_loss_names_the_alarm(level: Callable[[int], float], alarm: Alarm, word: str) -> None:
    noise = (0.0, 0.004, -0.004)
    losses = [level(at) * (1 + noise[at % 3]) for at in range(60)]
    (found,) = findings_of(losses, BEYOND)
    assert (found.alarm, found.iteration) == (alarm, 500)
    assert f"the training loss {word}" in found.text
    rise, tolerance = found.evidence["training_now"], found.evidence["training_margin"]
    assert (float(rise) - float(found.evidence["training_then"]) > float(tolerance)) == (alarm is Alarm.SPIKE)


def test_flagged_reports_delay_overfitting() -> None:
    falling = [1 - 0.004 * at for at in range(60)]
    falling[48:49] = [9.0]  # one flagged report right before the second validation beyond the best
    found = [one for one in findings_of(falling, BEYOND) if one.alarm is Alarm.OVERFITTING]
    assert [one.iteration for one in found] == [600]


# --- gradients ---


def without_gradient(losses: Sequence[float], norms: Sequence[float | None]) -> list[tuple[str, int, int]]:
    """Return alarm, iteration and first flag of each finding."""
    pairs = enumerate(zip(losses, norms, strict=True), start=1)
    found = fold(
        [LossReport(iteration=10 * at, loss=loss, grad_norm=norm) for at, (loss, norm) in pairs],
        [],
        warm_up=0,
        steps_per_report=10,
    )[1]
    return [(one.alarm.value, one.iteration, one.first_flag) for one in found]


@pytest.mark.parametrize(
    ("losses", "norms", "found"),
    [
        ([5.2] * 20 + [5.951] * 30, [0.01] * 20 + [0.0] * 30, [("no_gradient", 300, 210)]),
        ([5.2] * 20 + [5.951] * 9 + [5.2], [0.01] * 20 + [0.0] * 9 + [0.01], []),
        ([5.2] * 20 + [5.951] * 30, [0.01] * 20 + [1e-13] * 30, [("no_gradient", 300, 210)]),
        ([5.2] * 50, [1e-9] * 50, []),  # tiny, but the weights change
        ([5.2] * 50, [None] * 50, []),  # no update yet
        ([5.2] * 30, [0.0] * 5 + [None] * 10 + [0.0] * 15, [("no_gradient", 200, 10)]),
        ([5.2] * 50, [NAN, 0.0] * 25, []),  # updates that were not applied
        ([0.01] * 50, [0.0] * 50, []),  # its rows are learned
        ([1e-9] * 50, [0.0] * 50, []),
        ([2.0 - 0.03 * at for at in range(50)], [0.0] * 50, []),  # it learns, whatever the norm says
        ([5.0, 4.0] * 25, [0.0, 0.1] * 25, []),  # single batches without a gradient
    ],
)
def test_model_without_gradient_is_detected(
    losses: list[float], norms: list[float | None], found: list[tuple[str, int, int]]
) -> None:
    assert without_gradient(losses, norms) == found


def test_each_stop_of_learning_is_raised_once() -> None:
    norms = [0.1] * 10 + [0.0] * 20 + [0.1] + [0.0] * 20
    found = without_gradient([5.0] * 51, norms)
    assert found == [("no_gradient", 200, 110), ("no_gradient", 410, 320)]


def test_both_losses_rising_are_a_spike() -> None:
    """The settings of the reference run: a report every 500 iterations, a validation every 100."""
    validated = validations([2.0, 1.0, 0.5, 0.3, 0.167, 0.17, 0.17, 0.17, 0.17, 8.685, 8.0])
    (found,) = findings_of([0.150, 7.425], validated, every=500)
    assert (found.alarm, found.iteration, found.first_flag) == (Alarm.SPIKE, 1_100, 1_000)
    assert (found.evidence["training_then"], found.evidence["training_now"]) == (0.15, 7.425)


@pytest.mark.parametrize(
    ("best", "error", "loss", "met"),
    [
        (1.0, None, 1.1, True),  # 10 %
        (1.0, None, 1.101, False),
        (0.2, None, 0.249, True),  # 0.05
        (0.2, None, 0.251, False),
        (1.0, 0.1, 1.299, True),  # three standard errors
        (1.0, 0.1, 1.301, False),
        (1.0, NAN, 1.101, False),
        (1.0, None, NAN, False),
    ],
)
def test_validation_tolerance(best: float, error: float | None, loss: float, met: bool) -> None:
    detector_ = LossDetector(warm_up=0, steps_per_report=10)
    detector_.validation(ValidationLoss(iteration=10, loss=best, standard_error=error))
    assert detector_.within_tolerance(ValidationLoss(iteration=20, loss=loss, standard_error=error)) == met
    beyond = validations([best, loss, loss], error=error)
    assert len(findings_of(steady(40, best), beyond)) == (0 if met else 1)


def test_one_validation_beyond_is_no_alarm() -> None:
    assert alarms(steady(60), validations([1.0, 1.2, 1.0, 1.2, 1.0])) == []


def test_first_validation_is_in_tolerance() -> None:
    assert LossDetector(warm_up=0, steps_per_report=10).within_tolerance(validations([9.0])[0])


def test_spike_explains_bad_validations() -> None:
    spiked = [*steady(60), *[9.0] * 30, *steady(60)]
    validated = validations([1.0] * 6 + [8.0] * 3 + [1.3] * 5)
    assert [alarm for alarm, _ in alarms(spiked, validated)] == ["suspect", "spike"]


# --- queries ---


def test_unflagged_after_counts_reports() -> None:
    detector_ = after([*steady(40), 2.0, *steady(7)])
    assert detector_.reports.unflagged_after(0) == 40
    assert detector_.reports.unflagged_after(390) == 1
    assert detector_.reports.unflagged_after(400) == 0
    assert detector_.reports.unflagged_after(405) == 0
    assert detector_.reports.unflagged_after(410) == 7
    assert detector_.reports.unflagged_after(450) == 3
    assert detector_.reports.unflagged_after(9_999) == 0


def test_flag_covers_iterations_of_report() -> None:
    detector_ = after([*steady(40), 2.0, *steady(7)])
    assert [detector_.reports.was_flagged(iteration) for iteration in (400, 401, 410, 411, 999)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_validation_follows_its_report() -> None:
    at_once = fold(reports(steady(20)), validations([NAN, NAN], every=50), warm_up=0, steps_per_report=10)[1]
    by_hand = LossDetector(warm_up=0, steps_per_report=10)
    for each in reports(steady(5)):
        assert by_hand.report(each) is None
    assert at_once == [by_hand.validation(ValidationLoss(iteration=50, loss=NAN, standard_error=None))]


# --- properties ---

ANY_LOSS = st.one_of(st.floats(0.01, 10.0), st.floats(), st.sampled_from([NAN, INF, -INF, 1e308, 0.0]))


@given(st.lists(ANY_LOSS, max_size=150), st.lists(ANY_LOSS, max_size=15), st.integers(0, 300))
@settings(deadline=None)
def test_any_numbers_give_valid_findings(losses: list[float], validated: list[float], warm_up: int) -> None:
    for found in findings_of(losses, validations(validated), warm_up=warm_up):
        assert found.first_flag <= found.iteration
        assert "\n" not in found.text
        json.dumps(dict(found.evidence), allow_nan=False)


@given(st.lists(ANY_LOSS, min_size=1, max_size=150), st.lists(ANY_LOSS, max_size=15), st.data())
@settings(deadline=None)
def test_fold_in_parts_equals_whole_fold(losses: list[float], validated: list[float], data: st.DataObject) -> None:
    whole, found = fold(reports(losses), validations(validated), warm_up=50, steps_per_report=10)
    until = 10 * data.draw(st.integers(0, len(losses)))
    first = [each for each in validations(validated) if each.iteration <= until]
    part, before = fold([r for r in reports(losses) if r.iteration <= until], first, warm_up=50, steps_per_report=10)
    rest: list[LossReport | ValidationLoss] = [r for r in reports(losses) if r.iteration > until]
    rest += [each for each in validations(validated) if each.iteration > until]
    later = [
        part.report(each) if isinstance(each, LossReport) else part.validation(each)
        for each in sorted(rest, key=lambda each: (each.iteration, isinstance(each, ValidationLoss)))
    ]
    assert before + [each for each in later if each is not None] == found
    assert part.suspicion == whole.suspicion
    assert [part.reports.unflagged_after(n) for n in range(0, 1_600, 50)] == [
        whole.reports.unflagged_after(n) for n in range(0, 1_600, 50)
    ]


@given(st.floats(0.01, 8.0), st.lists(st.floats(-0.1, 0.1), min_size=50, max_size=300))
@settings(deadline=None)
def test_low_noise_raises_nothing(level: float, noise: list[float]) -> None:
    losses = [level * (1 + each) for each in noise]
    assert alarms(losses, validations([level * (1 + 0.4 * each) for each in noise[9::10]])) == []


@given(st.sampled_from([2.0, 4.0, 8.0]), st.lists(st.floats(1.0, 4.0), min_size=20, max_size=120))
@settings(deadline=None)
def test_flags_are_scale_invariant(factor: float, losses: list[float]) -> None:
    base = [1.0] * 20  # powers of two, so that the rounding is equal
    one, other = after(base + losses), after([factor * loss for loss in base + losses])
    iterations = range(160, 10 * len(base + losses) + 10, 10)
    assert [one.reports.was_flagged(n) for n in iterations] == [other.reports.was_flagged(n) for n in iterations]


# --- whole runs ---


def test_reference_run_raises_one_spike() -> None:
    for draw in range(3):
        reported, validated = curves.reference_run(curves.rng_of(7, draw))
        _, found = fold(reported, validated, warm_up=100, steps_per_report=10)
        grave = [each for each in found if each.alarm is not Alarm.SUSPECT]
        assert [each.alarm for each in grave] == [Alarm.SPIKE]
        assert grave[0].iteration < 1_050
        assert (grave[0].first_flag - 100) // 500 * 500 == 500  # the newest checkpoint far enough before it
        assert all(970 < each.iteration <= grave[0].iteration for each in found)


@pytest.mark.parametrize("name", curves.FAMILIES)
def test_healthy_runs_raise_nothing(name: str) -> None:
    sound = curves.FAMILIES[name](curves.rng_of(11), 12)
    assert [found.text for run in range(12) for found in findings(sound, run) if found.alarm in GRAVE] == []


@pytest.mark.parametrize("kind", curves.BREAKS)
def test_every_broken_run_is_detected(kind: str) -> None:
    broken = large(broken_runs("heavy tails", kind, 16), LEAST_RISE)
    assert len(broken.onsets) >= 5
    for raised, onset in zip(detector(broken.curves.losses), broken.onsets.tolist(), strict=True):
        assert raised
        assert raised[0] >= onset
