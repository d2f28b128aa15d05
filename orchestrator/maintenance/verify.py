"""Check every file of a job. Changes nothing, except that it renames damaged checkpoints if asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.errors import CheckpointInvalid, CheckpointOfAnotherVersion, LqError
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from orchestrator.core.app import App
from orchestrator.report.stored_verdict import lacks_report
from workers.checkpoints import publishing, storage, tensor_files
from workers.checkpoints.storage import ADAPTERS, Checkpoint
from workers.events import log as event_log


@dataclass(frozen=True, kw_only=True)
class VerifiedFile:
    """A file or a checkpoint that was checked."""

    path: Path  # absolute
    ok: bool  # the file is intact
    because: str  # what was compared, or what is wrong

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint, which can be set aside."""
        return self.path.parent.name == "checkpoints"


@dataclass(frozen=True, kw_only=True)
class VerifiedJob:
    """A job whose files were checked."""

    id: int
    name: str
    ok: bool  # every file is intact
    files: tuple[VerifiedFile, ...]

    @property
    def damaged(self) -> list[VerifiedFile]:
        """The files that are not intact."""
        return [file for file in self.files if not file.ok]


def verify_job(app: App, job: Job, *, set_aside: bool = False) -> VerifiedJob:
    """Check every file of a job; with `set_aside`, rename damaged checkpoints to `step-N.bad`."""
    files = tuple(_verified(app, job, job.dir, set_aside=set_aside))
    return VerifiedJob(id=job.id, name=job.name, ok=all(file.ok for file in files), files=files)


def _verified(app: App, job: Job, job_dir: JobDir, *, set_aside: bool) -> Iterator[VerifiedFile]:
    if not job_dir.path.is_dir():
        yield VerifiedFile(path=job_dir.path, ok=False, because="the folder of the job is missing")
        return
    yield _check(job_dir.config, partial(_same_config, app, job, job_dir))
    yield _check(job_dir.provenance, partial(_readable, job_dir.provenance))
    yield _check(job_dir.run_plan, partial(_same_run_plan, app, job, job_dir))
    yield from _events(app, job, job_dir)
    yield from _checkpoints(job_dir, set_aside=set_aside)
    for path in storage.listed_bad(job_dir.checkpoints):
        yield VerifiedFile(path=path, ok=True, because=f"set aside earlier and not used: {storage.why(path)}")
    yield from _adapters(job_dir)
    yield from _published(app, job, job_dir)
    report = job_dir.report / "report.json"
    if lacks_report(app.store, job):
        yield VerifiedFile(path=report, ok=False, because=f"missing or incomplete; write it: lq report {job.id}")
    elif report.exists():
        yield _check(report, partial(_readable, report))


def _check(path: Path, compare: Callable[[], str]) -> VerifiedFile:
    """Check one file. `compare` returns what it compared, or raises an error."""
    try:
        return VerifiedFile(path=path, ok=True, because=compare())
    except OSError as error:
        return VerifiedFile(path=path, ok=False, because=(error.strerror or type(error).__name__).lower())
    except (LqError, ValueError, KeyError, TypeError) as error:
        return VerifiedFile(path=path, ok=False, because=" ".join(str(error).split()))


def _same_config(app: App, job: Job, job_dir: JobDir) -> str:
    if load_frozen(job_dir.config) != app.store.spec(job.id):
        raise ValueError("differs from the submitted job file; a new attempt would train something else")
    return "equal to the submitted job file"


def _same_run_plan(app: App, job: Job, job_dir: JobDir) -> str:
    written = run_plans.from_json(job_dir.run_plan.read_text()).stages
    stored = app.store.run_plans.get(job.id, app.store.spec(job.id)).stages
    if written != stored[: len(written)]:
        raise ValueError("its stages differ from the store; the next attempt writes it again")
    return f"equal to the store, {len(written)} of {len(stored)} stages"  # the next attempt writes the others


def _events(app: App, job: Job, job_dir: JobDir) -> Iterator[VerifiedFile]:
    """Check the event log. A file shorter than what the store has read from it has lost data."""
    read = app.store.events.offset(job.id)
    packed = event_log.packed(job_dir.events)
    path = packed if packed.exists() and not job_dir.events.exists() else job_dir.events
    if not path.exists() and (not read or job.cleaned_at is not None):
        return

    def compare() -> str:
        events = torn = offset = 0
        while (batch := event_log.read(job_dir.events, offset)).offset > offset:
            events, torn, offset = events + len(batch.events), torn + len(batch.unreadable), batch.offset
        if offset < read:
            raise ValueError(f"has {offset} bytes, but lq has read {read} bytes from it")
        return f"{events} events" + (f", {torn} lines cut off by a crash" if torn else "")

    yield _check(path, compare)


def _checkpoints(job_dir: JobDir, *, set_aside: bool) -> Iterator[VerifiedFile]:
    for checkpoint in storage.listed(job_dir.checkpoints):
        try:
            storage.verify(checkpoint)
            checkpoint.state()
        except CheckpointInvalid as error:
            if not checkpoint.path.is_dir():
                continue  # the worker has just pruned it
            because = str(error)
            renamed = None
            if set_aside and not isinstance(error, CheckpointOfAnotherVersion):
                renamed = storage.set_aside(checkpoint, because, by="lq verify")
            because += f"; set aside as {renamed.name}" if renamed is not None else ""
            yield VerifiedFile(path=checkpoint.path, ok=False, because=because)
        else:
            yield VerifiedFile(path=checkpoint.path, ok=True, because="sizes and SHA-256 match its manifest")


def _adapters(job_dir: JobDir) -> Iterator[VerifiedFile]:
    """Compare published files with lq.json, and milestones with their checkpoint while it exists."""
    known, checkpoints = _known(job_dir.adapters), _manifests(job_dir)
    for path in sorted({*job_dir.adapters.glob("[!.]*"), *known}):
        if path in known:
            yield _check(path, partial(_same_sha256, path, known[path], "lq.json"))
        elif path.suffix == ".safetensors":
            yield _check(path, partial(_milestone, path, checkpoints.get(path.name)))
        elif path.suffix == ".json":
            yield _check(path, partial(_readable, path))


def _manifests(job_dir: JobDir) -> dict[str, str]:
    """Return the SHA-256 of each checkpoint's adapter by its name as a milestone, including damaged checkpoints."""
    sums = {}
    good = [checkpoint.path for checkpoint in storage.listed(job_dir.checkpoints)]
    for path in (*storage.listed_bad(job_dir.checkpoints), *good):
        iteration = int(path.name.removeprefix("step-").removesuffix(".bad"))
        with suppress(CheckpointInvalid):  # reported for the checkpoint itself
            sums[f"{iteration:07d}_{ADAPTERS}"] = Checkpoint(path=path, iteration=iteration).sha256(ADAPTERS)
    return sums


def _published(app: App, job: Job, job_dir: JobDir) -> Iterator[VerifiedFile]:
    """Check the files in adapter_path if the lq.json there names this job."""
    target = app.store.spec(job.id).adapter_path
    if target is None or publishing.origin(Path(target)).get("job_dir") != str(job_dir.path):
        return
    for path, sha256 in _known(Path(target)).items():
        yield _check(path, partial(_same_sha256, path, sha256, "lq.json"))


def _known(folder: Path) -> dict[Path, str]:
    """Return the SHA-256 of each file in lq.json."""
    files = publishing.origin(folder).get("files")
    return {folder / name: str(sha256) for name, sha256 in files.items()} if isinstance(files, dict) else {}


def _same_sha256(path: Path, sha256: str, source: str) -> str:
    actual = publishing.sha256_of(path)
    if actual is None:
        raise ValueError("missing, or cannot be read")
    if actual != sha256:
        raise ValueError(f"its SHA-256 differs from {source}: the file was changed after it was written")
    return f"SHA-256 matches {source}"


def _milestone(path: Path, sha256: str | None) -> str:
    if sha256 is not None:
        return _same_sha256(path, sha256, "the manifest of its checkpoint")
    size = tensor_files.header(path)[1]
    if path.stat().st_size != size:
        raise ValueError(f"has {path.stat().st_size} bytes, but its header requires {size}")
    return "size matches its header; its SHA-256 is unknown because its checkpoint was deleted"


def _readable(path: Path) -> str:
    return f"readable, {len(json.loads(path.read_text()))} keys"
