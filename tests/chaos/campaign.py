"""Many rounds on one testbed, and what they come to."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.model.errors import LqError
from tests.chaos.lookout import DeadlineWatch
from tests.chaos.places import Place, place
from tests.chaos.rounds import Round, broken_off, play
from tests.chaos.schedule import Plan
from tests.chaos.testbed import Testbed, Undisturbed, inbox
from tests.harness import processes_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a campaign came to."""

    rounds: tuple[Round, ...]
    undisturbed: Undisturbed
    left: tuple[str, ...]  # processes that were there at the end
    kept: tuple[Path, ...]  # homes of rounds in which something was wrong
    full_disk: str  # how it was brought about
    seconds: float

    @property
    def wrong(self) -> list[Round]:
        """The rounds in which something did not hold."""
        return [one for one in self.rounds if one.wrong]

    @property
    def all_well(self) -> bool:
        """Say whether everything held."""
        return not self.wrong and not self.left


def live_through(plans: Sequence[Plan], *, iters: int, rehearsals: int, say: Callable[[str], None]) -> Result:
    """Live through rounds; stop at the first job that is lost, for those after it would wait behind it.

    Args:
        plans: the rounds.
        iters: iterations of each job.
        rehearsals: undisturbed runs before; the last is the one timed, the first may have had kernels to compile.
        say: prints a line after each round.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lq-chaos-") as folder, place(Path(folder)) as where, inbox() as (url, _):
        with DeadlineWatch(where.home) as lookout:
            testbed = Testbed(where, lookout, iters=iters)
            testbed.lq.settings(notify={"services": [{"url": url, "name": "inbox"}]}, disk={"floor": 0})
            try:
                undisturbed = _rehearsed(testbed, rehearsals, say)
                rounds, kept = _rounds(testbed, where, plans, undisturbed, say)
            finally:
                left = _sent_home(testbed)
                testbed.close()
        return Result(
            rounds=tuple(rounds),
            undisturbed=undisturbed,
            left=left,
            kept=tuple(kept),
            full_disk=where.way,
            seconds=time.monotonic() - began,
        )


def _rehearsed(testbed: Testbed, times: int, say: Callable[[str], None]) -> Undisturbed:
    """Find out what every round must come to."""
    runs = [testbed.undisturbed(f"undisturbed-{number}") for number in range(1, times + 1)]
    assert all(run.sha256 == runs[0].sha256 for run in runs), "two undisturbed runs differ; nothing can be proved"
    say(f"undisturbed: {runs[-1].life_s:.1f} s, of it the trainer {runs[-1].trainer_s:.1f} s")
    return runs[-1]


def _rounds(
    testbed: Testbed, where: Place, plans: Sequence[Plan], undisturbed: Undisturbed, say: Callable[[str], None]
) -> tuple[list[Round], list[Path]]:
    rounds: list[Round] = []
    kept: list[Path] = []
    for plan in plans:
        try:
            one = play(testbed, plan, undisturbed)
        except (AssertionError, LqError, OSError, subprocess.SubprocessError) as error:
            one = broken_off(plan, error)
        except KeyboardInterrupt:
            say("interrupted; the table tells of the rounds before")
            break
        rounds.append(one)
        say(line(one))
        if one.wrong:
            kept.append(where.keep(f"round-{plan.number}"))
            say(f"  kept: {kept[-1]}")
        if "lost" in one.wrong:
            say("  a job was lost; the rounds after it are left out")
            break
    return rounds, kept


def _sent_home(testbed: Testbed) -> tuple[str, ...]:
    """Send everything home; name what did not go, and end it."""
    try:
        testbed.lq.leave()
    except AssertionError as error:
        return (str(error),)
    return tuple(str(process.pid) for process in processes_of(testbed.place.home))


def line(one: Round) -> str:
    """Return a round in one line."""
    acts = ", ".join(
        f"{act.kind.value} at {act.at:.2f}" + (f" ({one.did[act.kind]})" if one.did.get(act.kind) else "")
        for act in one.plan.acts
    )
    found = "; ".join(f"WRONG {name}: {text}" for name, text in one.wrong.items()) or "well"
    again = f", repeated {max(one.repeated)}" if one.repeated else ""
    paused = f", the queue was paused: {one.queue_paused}" if one.queue_paused else ""
    return f"round {one.plan.number}: {acts}: {one.attempts} attempts{again}, {one.seconds:.1f} s{paused}: {found}"
