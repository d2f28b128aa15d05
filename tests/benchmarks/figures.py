"""The figures: each measures lq, and its peer if there is one, in alternating rounds."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil

from jobs.estimates.memory import FORMULA_RANGE
from jobs.model.events import Kind
from jobs.model.outcomes import Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from orchestrator.demo.tiny_model import HIDDEN, build_data, build_model
from orchestrator.estimation.formula import Formula
from tests.benchmarks import convergence, material, side_by_side
from tests.benchmarks.clocks import (
    Timeline,
    alone,
    alternating,
    command_processor_seconds,
    command_seconds,
    loading,
    reports,
    under_lq,
)
from tests.benchmarks.detectors import measure
from tests.benchmarks.detectors.curves import FAMILIES
from tests.benchmarks.finished_jobs import copy_job
from tests.benchmarks.histories import POINTS, many_points
from tests.benchmarks.memory_trials import TRIALS, job_of
from tests.benchmarks.memory_trials import measure as measure_peak
from tests.harness import BESIDE_PYTHON, Lq, Training, kill, until
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.report_runs import PlayedAttempt, Run
from workers.checkpoints import storage
from workers.data.row_check import RowChecker
from workers.files.atomic import fsync_file

MANY_ROWS = 100_000
MANY_JOBS = 10_000
LONG_RUN = 15_000
DETECTOR_RUNS = 200
MEASURED_S = 10.0
SETTLED_S = 5.0
TURNS = 7
"""Turns per round of lq and MLX-LM in the speed figures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table."""

    what: str
    lq: str
    peer: str  # empty if there is none
    value: float  # compared with the goal
    spread: tuple[float, float]  # lowest and highest of the rounds
    unit: str  # of the value; empty for a ratio
    goal: float
    at_most: bool  # the goal is a maximum, not a minimum
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the goal is met."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What every figure uses."""

    folder: Path  # scratch
    lq: Lq  # with a running worker
    model: Path
    rounds: int
    say: Callable[[str], None]

    def warm_up(self) -> None:
        """Run both once without measuring, because MLX compiles its CPU kernels in the first run."""
        data = material.equal_rows(self.folder / "warm-up")
        file = material.job_file(self.folder / "warm-up.yaml", self.model, data, iters=2)
        alone(file, self.folder / "warm-up-alone")
        under_lq(self.lq, file)

    def pairs(self, name: str, file: Path) -> Iterator[tuple[Timeline, Timeline]]:
        """Run a job file under lq and alone, in alternating order; yield (lq, alone)."""
        for number in range(self.rounds):
            scratch = self.folder / f"{name}-alone-{number}"
            if number % 2:
                mine, other = under_lq(self.lq, file)[0], alone(file, scratch)
            else:
                other, mine = alone(file, scratch), under_lq(self.lq, file)[0]
            self.say(f"  round {number + 1} of {self.rounds}")
            yield mine, other


def iterations_per_second(bench: Bench) -> list[Figure]:
    """Speed with rows of equal length; checkpoints, events and supervision are on."""
    data = material.equal_rows(bench.folder / "equal")
    build_model(bench.folder / "tiny")
    what = "iterations per second, all rows equally long, lq / mlx_lm.lora"
    return [
        _speed(bench, bench.model, data, "equal", what),
        _speed(bench, bench.folder / "tiny", data, "tiny", f"the same on the demo's model (hidden {HIDDEN})"),
    ]


def _speed(bench: Bench, model: Path, data: Path, name: str, what: str) -> Figure:
    """Let both take turns of 20 iterations, with a report every 10; lq also writes checkpoints."""
    file = material.job_file(bench.folder / f"{name}.yaml", model, data, iters=100_000, steps_per_report=10)
    pairs = TURNS * bench.rounds
    with (
        side_by_side.under_lq(bench.lq, file) as mine,
        side_by_side.alone(file, bench.folder / f"{name}-alone") as other,
    ):
        runs = side_by_side.turns(mine, other, pairs)
    figure = _ratio(what, runs, "it/s", goal=0.98, at_most=False)
    note = f"{pairs} turns each; the ratio is that of their medians, with its 95 % interval (bootstrap)"
    return dataclasses.replace(figure, value=_of_medians(runs), spread=_interval(runs), note=note)


def _of_medians(runs: Sequence[tuple[float, ...]]) -> float:
    mine, other = (float(statistics.median(side)) for side in zip(*runs, strict=True))
    return mine / other


def _interval(runs: Sequence[tuple[float, ...]]) -> tuple[float, float]:
    """Return the 95 % interval of the ratio of the medians, by bootstrap."""
    generator = random.Random(0)  # noqa: S311 the same resamples every time
    ratios = sorted(_of_medians(generator.choices(runs, k=len(runs))) for _ in range(2000))
    return ratios[50], ratios[1949]


def seconds_per_epoch(bench: Bench) -> list[Figure]:
    """An epoch of mixed lengths; the first one does not count, because MLX compiles shapes in it."""
    data = material.log_normal_rows(bench.folder / "mixed")
    epoch = material.EPOCH_ROWS // material.BATCH
    file = material.job_file(bench.folder / "mixed.yaml", bench.model, data, iters=2 * epoch, steps_per_report=15)
    runs = [tuple(run.seconds(epoch, 2 * epoch) for run in pair) for pair in bench.pairs("mixed", file)]
    return [_ratio("seconds per epoch, log-normal lengths, lq / mlx_lm.lora", runs, "s", goal=0.62)]


def start(bench: Bench) -> list[Figure]:
    """From the command to the first trained iteration."""
    data = material.equal_rows(bench.folder / "start")
    file = material.job_file(bench.folder / "start.yaml", bench.model, data, iters=4, steps_per_report=1)
    pairs = list(bench.pairs("start", file))
    runs = [tuple(run.start_seconds for run in pair) for pair in pairs]
    more = [mine - other for mine, other in runs]
    figure = _ratio("submit to first trained iteration, lq - mlx_lm.lora", runs, "s", goal=1.5)
    marks = {name: statistics.median(mine.marks[name] for mine, _ in pairs) for name in pairs[0][0].marks}
    note = "under lq " + ", ".join(f"{name} after {seconds:.2f} s" for name, seconds in marks.items())
    spread = (min(more), max(more))
    return [dataclasses.replace(figure, value=statistics.median(more), spread=spread, unit="s", note=note)]


def recovery(bench: Bench) -> list[Figure]:
    """From KILL of the trainer to its next trained iteration, without loading the model."""
    data = material.equal_rows(bench.folder / "recovery")
    changes = {"iters": 5000, "steps_per_report": 1, "save_every": 5}
    file = material.job_file(bench.folder / "recovery.yaml", bench.model, data, **changes)
    found = []
    for number in range(bench.rounds):
        training = bench.lq.submit(file)
        training.trained(10)
        killed = time.time()
        kill(training.trainer())
        until(partial(reports, training, 2), "the next trained iteration", every=0.1)
        found.append(_parts(training, killed))
        bench.lq("cancel", training.id)
        training.until_status("cancelled")
        bench.say(f"  round {number + 1} of {bench.rounds}")
    without_load = [whole - load for whole, _, load in found]
    whole, imports, load = (statistics.median(part) for part in zip(*found, strict=True))
    return [
        Figure(
            what="KILL to next trained iteration, less loading",
            lq=f"{whole:.2f} s",
            peer="",
            value=statistics.median(without_load),
            spread=(min(without_load), max(without_load)),
            unit="s",
            goal=2.0,
            at_most=True,
            note=f"of {whole:.2f} s in total, {imports:.2f} s until the new trainer has started and imported MLX, "
            f"{load:.2f} s loading model and data (not counted), the rest self-test, probe and first iteration",
        )
    ]


def _parts(training: Training, killed: float) -> tuple[float, float, float]:
    """Return the seconds from the kill to the next iteration, those to the load phase, and those of loading."""
    imported, loaded = loading(training, attempt=2)
    return reports(training, 2)[0][1] - killed, imported - killed, loaded - imported


def command_line(bench: Bench) -> list[Figure]:
    """`lq status` and `lq submit` in a home with many finished jobs, compared with the import of SQLAlchemy."""
    home = Home(bench.folder / "many")
    job = home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="night")
    home.store.close()
    copy_job(home.path / "lq.db", job.id, MANY_JOBS - 1)
    build_model(bench.folder / "tiny")
    build_data(bench.folder / "questions")
    file = material.job_file(bench.folder / "small.yaml", bench.folder / "tiny", bench.folder / "questions")
    orm: list[str | Path] = [BESIDE_PYTHON / "python", "-c", "import sqlalchemy.orm"]
    lq = BESIDE_PYTHON / "lq"
    what = f"with {MANY_JOBS:,} finished jobs / `import sqlalchemy.orm`"
    return [
        _compared(bench, f"`lq status` {what}", [lq, "status"], orm, 2.0),
        _compared(bench, f"`lq submit` {what}", [lq, "submit", file], orm, 2.5),
    ]


def many_rows(bench: Bench) -> list[Figure]:
    """What rendering and tokenizing add to the submit of many chat rows; reading and hashing them is not counted."""
    build_data(bench.folder / "many-rows", train=MANY_ROWS, valid=0, test=0)
    keys = {"model": str(bench.model), "data": str(bench.folder / "many-rows")}
    figures = []
    for mask_prompt in (False, True):
        checker = RowChecker(bench.model, JobSpec.model_validate(keys | {"mask_prompt": mask_prompt}), cache=None)
        seconds, busy = [], []
        for _ in range(bench.rounds):
            began, used = time.perf_counter(), time.process_time()
            checked = checker.check(bench.folder / "many-rows" / "train.jsonl")
            seconds.append(time.perf_counter() - began)
            busy.append(time.process_time() - used)
        what = f"check of {MANY_ROWS:,} rows at submit{', mask_prompt' if mask_prompt else ''}"
        note = f"{sum(checked.tokens) / 1e6:.1f} million tokens; {statistics.median(busy):.1f} s processor time"
        figures.append(dataclasses.replace(_plain(what, seconds, "s", 5.0), note=note))
    return figures


def _compared(bench: Bench, what: str, words: Sequence[str | Path], peer: Sequence[str | Path], goal: float) -> Figure:
    environment = {"LQ_HOME": str(bench.folder / "many")}
    for command in (words, peer):
        command_seconds(command, environment)  # fills the disk cache
    runs = alternating(
        lambda: command_seconds(words, environment), lambda: command_seconds(peer, environment), 2 * bench.rounds + 1
    )
    return _ratio(what, runs, "s", goal=goal)


def worker(bench: Bench) -> list[Figure]:
    """Resident memory and processor time of the worker, idle and while a job trains."""
    lq = Lq(bench.folder / "worker-home")
    try:
        process = psutil.Process(lq.start_worker())
        time.sleep(SETTLED_S)
        idle = _used(process, bench.rounds)
        data = material.equal_rows(bench.folder / "worker-rows")
        file = material.job_file(bench.folder / "worker.yaml", bench.model, data, iters=100_000)
        training = lq.submit(file)
        training.until(Kind.PROGRESS, lambda event: bool(event.data["losses"]))
        busy = _used(process, bench.rounds)
        lq("cancel", training.id)
        training.until_status("cancelled")
    finally:
        lq.leave()
    rows = (("idle", idle, 75.0, 0.5), ("training", busy, 90.0, 2.0))
    return [
        figure
        for name, samples, most_memory, most_share in rows
        for figure in (
            _plain(f"worker, {name}: resident memory", [memory for memory, _ in samples], "MB", most_memory),
            _plain(f"worker, {name}: processor time, of one core", [share for _, share in samples], "%", most_share),
        )
    ]


def _used(process: psutil.Process, rounds: int) -> list[tuple[float, float]]:
    """Return samples of resident memory in MB and processor time in percent of one core."""
    found = []
    for _ in range(rounds):
        before, started = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(MEASURED_S)
        used = sum(process.cpu_times()[:2]) - before
        found.append((process.memory_info().rss / 1e6, 100 * used / (time.monotonic() - started)))
    return found


def long_report(bench: Bench) -> list[Figure]:
    """`lq report` of a long run."""
    home = bench.folder / "long"
    home.mkdir()
    run = Run(home, iters=LONG_RUN)
    run.play(PlayedAttempt(first=0, last=LONG_RUN, begins=0.0))
    run.settle(Status.SUCCEEDED, Reason.COMPLETED, "trained to its last iteration", 1_700_010_000.0)
    run.store.close()
    return [_report(bench, home, f"report of {LONG_RUN:,} iterations")]


def _report(bench: Bench, home: Path, what: str) -> Figure:
    words: list[str | Path] = [BESIDE_PYTHON / "lq", "report", "1"]
    runs = [command_processor_seconds(words, {"LQ_HOME": str(home)}) for _ in range(bench.rounds)]
    note = f"{statistics.median(busy for _, busy in runs):.2f} s processor time"
    return dataclasses.replace(_plain(what, [seconds for seconds, _ in runs], "s", 5.0), note=note)


def long_history(bench: Bench) -> list[Figure]:
    """Commands in a home with a million progress points, and the growth of the store by one run."""
    home, grown = many_points(bench.folder / "history")
    environment = {"LQ_HOME": str(home)}
    orm: list[str | Path] = [BESIDE_PYTHON / "python", "-c", "import sqlalchemy.orm"]
    figures = []
    for words, goal in ((["status"], 2.0), (["show", "1"], 2.5)):
        runs = alternating(
            lambda words=words: command_seconds([BESIDE_PYTHON / "lq", *words], environment),  # type: ignore[misc]
            lambda: command_seconds(orm, environment),
            bench.rounds,
        )
        what = f"`lq {words[0]}`, {POINTS:,} progress points / `import sqlalchemy.orm`"
        figures.append(_ratio(what, runs, "s", goal=goal))
    figures.append(_report(bench, home, f"report of {LONG_RUN:,} points among {POINTS:,}"))
    return [
        *figures,
        dataclasses.replace(_plain("store, growth by one run", [grown.usual], "MB", 2.0), note=grown.text),
    ]


def checkpoint_share(bench: Bench) -> list[Figure]:
    """The cost of checkpoints with a large adapter and the default `save_every: 100`, from a few iterations.

    Training waits for a checkpoint. The peer only writes and flushes the same bytes.
    """
    data = material.equal_rows(bench.folder / "large")
    large = {"rank": material.LARGE_RANK, "scale": 2.0}
    changes = {"iters": 16, "save_every": 2, "steps_per_report": 1, "lora_parameters": large}
    _, training = under_lq(bench.lq, material.job_file(bench.folder / "large.yaml", bench.model, data, **changes))
    written = training.events(Kind.CHECKPOINT)
    seconds = [float(event.data["seconds"]) for event in written]
    trained = [event for event in training.events(Kind.PROGRESS) if event.data["losses"]]
    hundred = 100 * statistics.median(1 / float(event.data["it_s"]) for event in trained)
    shares = [100 * each / (each + hundred) for each in seconds]
    adapter = (training.folder.adapters / "adapters.safetensors").stat().st_size / 1e6
    figure = _plain(f"checkpoint share of training time, {adapter:.0f} MB adapter", shares, "%", 1.0)
    note = (
        f"one has {int(written[0].data['bytes']) / 1e6:.0f} MB with the optimizer and takes "
        f"{statistics.median(seconds):.2f} s; 100 iterations would take {hundred:.0f} s"
    )
    whole = storage.listed(training.folder.checkpoints)[-1].path
    content = [path.read_bytes() for path in sorted(whole.iterdir())]
    plain = [_written_plainly(bench.folder / f"plain-{number}", content) for number in range(len(seconds))]
    ratio = _ratio(
        "checkpoint with its sha256 / write and flush of the same bytes",
        list(zip(seconds, plain, strict=True)),
        "s",
        goal=1.0,
    )
    return [dataclasses.replace(figure, note=note), ratio]


def _written_plainly(folder: Path, content: Sequence[bytes]) -> float:
    """Return the seconds to write files and flush each to the disk."""
    folder.mkdir()
    started = time.monotonic()
    for number, data in enumerate(content):
        (folder / str(number)).write_bytes(data)
        fsync_file(folder / str(number))
    fsync_file(folder)
    return time.monotonic() - started


def loss_detector(_: Bench) -> list[Figure]:
    """The loss detector on seeded curves; `python -m tests.benchmarks.detectors` compares it with other rules."""
    families = [measure.family(name, DETECTOR_RUNS) for name in FAMILIES]
    found = [each for family in families for each in family.found["lq"].values() if each.runs]
    delays = [
        max(0, delay) for each in found for delay in each.delays
    ]  # an alarm can precede the exact beginning of a drift
    clean = [family.clean["lq"] for family in families]
    alarmed, runs = sum(each.alarmed for each in clean), sum(each.runs for each in clean)
    shares, note = [each.share for each in found], "the spread is over kinds of curves and of breaks"
    false = _plain("loss detector: sound runs with a false alarm", [each.share for each in clean], "%", 0.5)
    missed = _plain("loss detector: broken runs found", shares, "%", 100.0)
    return [
        dataclasses.replace(false, value=100 * alarmed / runs, lq=f"{alarmed} of {runs}", note=note),
        dataclasses.replace(
            missed, value=min(shares), lq=f"{len(delays)} of {sum(each.runs for each in found)}", at_most=False
        ),
        dataclasses.replace(_plain("loss detector: longest delay", delays, "reports", 37.0), value=max(delays)),
    ]


def guarded_step(bench: Bench) -> list[Figure]:
    """The loss guard inside MLX's compiled step, compared with the plain optimizer; one process, a larger model."""
    command = [sys.executable, "-m", "tests.benchmarks.guarded_step", "--rounds", str(2 * bench.rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    runs = [(1 / mine, 1 / plain) for mine, plain in json.loads(done.stdout)]
    what = "iterations per second of train(), guarded optimizer / plain"
    return [_ratio(what, [(30 * mine, 30 * plain) for mine, plain in runs], "it/s", goal=0.98, at_most=False)]


def memory_plan(bench: Bench) -> list[Figure]:
    """The peak memory that `lq plan` estimates, compared with the measured one of a new trainer."""
    folder = bench.folder / "trials"
    folder.mkdir()
    figures, errors, inside = [], [], []
    for trial in TRIALS:
        spec = job_of(trial, folder)
        parts = Formula(None).parts(spec, RunPlan.requested(spec).stages[0])
        assert parts is not None
        low, high = FORMULA_RANGE
        measured = measure_peak(trial, folder).device
        ratio = measured / parts.device
        bench.say(f"  {trial.shape.name}; {trial.name}: measured / estimated {ratio:.3f}")
        figures.append(
            Figure(
                what=f"peak memory{' (tuned)' if trial.tuned else ''}: {trial.shape.name}; {trial.name}",
                lq=f"{parts.device / 1e6:.1f} MB",
                peer=f"{measured / 1e6:.1f} MB",
                value=ratio,
                spread=(low, high),
                unit="",
                goal=high,
                at_most=True,
            )
        )
        if not trial.tuned:
            errors.append(100 * abs(1 / ratio - 1))
            inside.append(low <= ratio <= high)
    share = _plain("peak memory: judging configurations inside the range", [100 * sum(inside) / len(inside)], "%", 90.0)
    error = _plain("peak memory: error of the estimate, median of those", errors, "%", 10.0)
    return [*figures, dataclasses.replace(share, at_most=False, lq=f"{sum(inside)} of {len(inside)}"), error]


def learning(bench: Bench) -> list[Figure]:
    """The effect of bucketing on the validation loss after the same rows, over seeds; see `convergence.py`."""
    seeds, figures = 2 * bench.rounds + 2, list[Figure]()
    words = [sys.executable, "-m", "tests.benchmarks.convergence", "--seeds", str(seeds), "--content"]
    runs = [subprocess.Popen([*words, content], stdout=subprocess.PIPE, text=True) for content in convergence.CONTENT]
    for content, run in zip(convergence.CONTENT, runs, strict=True):
        pairs = json.loads(run.communicate()[0])
        for what, compared in (("rows", convergence.at_equal_rows), ("work", convergence.at_equal_work)):
            mean, low, high = convergence.interval([compared(pair) for pair in pairs])
            figure = Figure(
                what=f"validation loss at equal {what}, bucketed over shuffled, content {content.replace('-', ' ')}",
                lq=f"{statistics.mean(pair['bucketed']['losses'][-1][0] for pair in pairs):.3f}",
                peer=f"{statistics.mean(pair['shuffled']['losses'][-1][0] for pair in pairs):.3f}" * (what == "rows"),
                value=mean,
                spread=(low, high),
                unit="%",
                goal=0.0 if what == "work" else 1.0,
                at_most=True,
                note=f"{seeds} seeds in pairs; the spread is the 95 % interval of the mean" * (not figures),
            )
            figures.append(figure)
    return figures


def _ratio(what: str, runs: Sequence[tuple[float, ...]], unit: str, *, goal: float, at_most: bool = True) -> Figure:
    """Return a figure from rounds of (lq, peer), with the median of the ratios as value."""
    ratios = [mine / other for mine, other in runs]
    mine, other = (statistics.median(side) for side in zip(*runs, strict=True))
    return Figure(
        what=what,
        lq=f"{mine:.3g} {unit}",
        peer=f"{other:.3g} {unit}",
        value=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        unit="",
        goal=goal,
        at_most=at_most,
    )


def _plain(what: str, values: Sequence[float], unit: str, goal: float) -> Figure:
    """Return a figure without a peer."""
    middle = statistics.median(values)
    return Figure(
        what=what,
        lq=f"{middle:.3g} {unit}",
        peer="",
        value=middle,
        spread=(min(values), max(values)),
        unit=unit,
        goal=goal,
        at_most=True,
    )


FIGURES: dict[str, Callable[[Bench], list[Figure]]] = {
    "speed": iterations_per_second,
    "epoch": seconds_per_epoch,
    "convergence": learning,
    "start": start,
    "recovery": recovery,
    "cli": command_line,
    "rows": many_rows,
    "worker": worker,
    "report": long_report,
    "history": long_history,
    "checkpoint": checkpoint_share,
    "detector": loss_detector,
    "guard": guarded_step,
    "memory_plan": memory_plan,
}
"""By name, for `--only`."""

NOT_BY_DEFAULT = ("convergence", "detector", "guard", "memory_plan")
"""Figures that need `--only` or `--all`: they have no peer, and the default table takes 15 minutes."""
