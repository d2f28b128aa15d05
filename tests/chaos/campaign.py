"""Many rounds on one testbed, and their result."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.model.errors import LqError
from tests.chaos.limited_disk import LimitedDisk, limited_disk
from tests.chaos.rounds import Round, aborted, play
from tests.chaos.schedule import Plan
from tests.chaos.testbed import Testbed, Undisturbed, notification_server
from tests.chaos.trainer_watch import TrainerWatch
from tests.harness import processes_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a campaign."""

    rounds: tuple[Round, ...]
    undisturbed: Undisturbed
    left: tuple[str, ...]  # processes that still ran at the end
    kept: tuple[Path, ...]  # homes of failed rounds
    full_disk: str  # how the disk was filled
    seconds: float

    @property
    def wrong(self) -> list[Round]:
        """The rounds with a failed check."""
        return [played for played in self.rounds if played.wrong]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return not self.wrong and not self.left


def run_campaign(plans: Sequence[Plan], *, iters: int, dry_runs: int, say: Callable[[str], None]) -> Result:
    """Run rounds until the first lost job, which would block the jobs after it.

    Args:
        iters: iterations of each job.
        dry_runs: undisturbed runs before the rounds. The last one is timed; the first may compile kernels.
        say: prints a line after each round.
    """
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="lq-chaos-") as folder,
        limited_disk(Path(folder)) as disk,
        notification_server() as (url, _),
    ):
        with TrainerWatch(disk.home) as watch:
            testbed = Testbed(disk, watch, iters=iters)
            testbed.lq.settings(notify={"services": [{"url": url, "name": "inbox"}]}, disk={"floor": 0})
            try:
                undisturbed = _run_undisturbed(testbed, dry_runs, say)
                rounds, kept = _rounds(testbed, disk, plans, undisturbed, say)
            finally:
                left = _shut_down(testbed)
                testbed.close()
        return Result(
            rounds=tuple(rounds),
            undisturbed=undisturbed,
            left=left,
            kept=tuple(kept),
            full_disk=disk.method,
            seconds=time.monotonic() - began,
        )


def _run_undisturbed(testbed: Testbed, times: int, say: Callable[[str], None]) -> Undisturbed:
    """Run jobs without faults, and return the result that every round must have."""
    runs = [testbed.undisturbed(f"undisturbed-{number}") for number in range(1, times + 1)]
    assert all(run.sha256 == runs[0].sha256 for run in runs), "two undisturbed runs differ"
    say(f"undisturbed: {runs[-1].life_s:.1f} s, trainer {runs[-1].trainer_s:.1f} s")
    return runs[-1]


def _rounds(
    testbed: Testbed, disk: LimitedDisk, plans: Sequence[Plan], undisturbed: Undisturbed, say: Callable[[str], None]
) -> tuple[list[Round], list[Path]]:
    rounds: list[Round] = []
    kept: list[Path] = []
    for plan in plans:
        try:
            played = play(testbed, plan, undisturbed)
        except (AssertionError, LqError, OSError, subprocess.SubprocessError) as error:
            played = aborted(plan, error)
        except KeyboardInterrupt:
            say("interrupted")
            break
        rounds.append(played)
        say(line(played))
        if played.wrong:
            kept.append(disk.keep(f"round-{plan.number}"))
            say(f"  kept: {kept[-1]}")
        if "lost" in played.wrong:
            say("  a job was lost; the other rounds are not run")
            break
    return rounds, kept


def _shut_down(testbed: Testbed) -> tuple[str, ...]:
    """Stop all processes; return those that did not stop."""
    try:
        testbed.lq.leave()
    except AssertionError as error:
        return (str(error),)
    return tuple(str(process.pid) for process in processes_of(testbed.place.home))


def line(played: Round) -> str:
    """Return one line about a round."""
    acts = ", ".join(
        f"{act.kind.value} at {act.at:.2f}" + (f" ({played.skipped[act.kind]})" if played.skipped.get(act.kind) else "")
        for act in played.plan.acts
    )
    failures = "; ".join(f"WRONG {name}: {text}" for name, text in played.wrong.items()) or "passed"
    again = f", repeated {max(played.repeated)}" if played.repeated else ""
    paused = f", the queue was paused: {played.queue_paused}" if played.queue_paused else ""
    attempts = f"{played.attempts} attempts{again}, {played.seconds:.1f} s{paused}"
    return f"round {played.plan.number}: {acts}: {attempts}: {failures}"
