"""Every file of a job against what it should be. Reads only, but for setting bad checkpoints aside when asked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.errors import CheckpointInvalid, CheckpointOfAnotherVersion, LqError
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from orchestrator.core.app import App
from orchestrator.maintenance.prune import asked_for
from workers.checkpoints import publishing, storage, tensor_files
from workers.checkpoints.storage import ADAPTERS, Checkpoint
from workers.events import log as event_log


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one file, or one checkpoint."""

    path: Path
    ok: bool
    because: str  # what was compared, or what is wrong

    @property
    def checkpoint(self) -> bool:
        """Whether it is a checkpoint, which can be set aside."""
        return self.path.parent.name == "checkpoints"


def verified(app: App, job: Job, *, set_aside: bool = False) -> list[Finding]:
    """Check every file of a job.

    Args:
        app: the store, which knows what the files should say.
        job: in any state.
        set_aside: take bad checkpoints out of the row.
    """
    job_dir = job.dir
    if not job_dir.path.is_dir():
        return [Finding(path=job_dir.path, ok=False, because="the job's folder is not there")]
    found = [_config(app, job, job_dir), _provenance(job_dir), _run_plan(app, job, job_dir)]
    found += [*_events(app, job, job_dir), *_checkpoints(job_dir, set_aside=set_aside), *_set_aside_before(job_dir)]
    return [*found, *_adapters(job_dir), *_published(app, job, job_dir), *_report(job_dir)]


def _read(path: Path, look: Callable[[], str]) -> Finding:
    """Return what looking at a file comes to; `look` says what it compared, or raises."""
    try:
        return Finding(path=path, ok=True, because=look())
    except OSError as error:
        return Finding(path=path, ok=False, because=(error.strerror or type(error).__name__).lower())
    except (LqError, ValueError, KeyError, TypeError) as error:
        return Finding(path=path, ok=False, because=" ".join(str(error).split()))


def _config(app: App, job: Job, job_dir: JobDir) -> Finding:
    def look() -> str:
        if load_frozen(job_dir.config) != asked_for(app, job.id)[0]:
            raise ValueError("it is not what was submitted; a new attempt would train something else")
        return "is what was submitted"

    return _read(job_dir.config, look)


def _provenance(job_dir: JobDir) -> Finding:
    return _read(job_dir.provenance, partial(_readable, job_dir.provenance))


def _run_plan(app: App, job: Job, job_dir: JobDir) -> Finding:
    def look() -> str:
        written = run_plans.from_json(job_dir.run_plan.read_text()).stages
        known = asked_for(app, job.id)[1].stages
        if written != known[: len(written)]:
            raise ValueError("its stages are not the store's; the next attempt writes it anew")
        return f"is the store's, {len(written)} of {len(known)} stages"  # the rest is written before the next attempt

    return _read(job_dir.run_plan, look)


def _events(app: App, job: Job, job_dir: JobDir) -> Iterator[Finding]:
    """The store has taken in so many bytes; a file that is shorter has lost some."""
    taken = app.store.events.offset(job.id)
    packed = event_log.packed(job_dir.events)
    path = packed if packed.exists() and not job_dir.events.exists() else job_dir.events
    if not path.exists() and (not taken or job.cleaned_at is not None):
        return

    def look() -> str:
        told = torn = offset = 0
        while (found := event_log.read(job_dir.events, offset)).offset > offset:
            told, torn, offset = told + len(found.events), torn + len(found.unreadable), found.offset
        if offset < taken:
            raise ValueError(f"it has {offset} bytes, but {taken} were read from it before")
        return f"{told} events" + (f", {torn} lines that a crash tore" if torn else "")

    yield _read(path, look)


def _checkpoints(job_dir: JobDir, *, set_aside: bool) -> Iterator[Finding]:
    for checkpoint in storage.listed(job_dir.checkpoints):
        try:
            storage.verify(checkpoint)
            checkpoint.state()
        except CheckpointInvalid as error:
            if not checkpoint.path.is_dir():
                continue  # it went while it was looked at: the worker keeps the newest ones only
            aside = _aside(checkpoint, error) if set_aside else None
            because = str(error) if aside is None else f"{error}; set aside as {aside.name}"
            yield Finding(path=checkpoint.path, ok=False, because=because)
        else:
            yield Finding(path=checkpoint.path, ok=True, because="sizes and sha256 are those of its manifest")


def _aside(checkpoint: Checkpoint, error: CheckpointInvalid) -> Path | None:
    if isinstance(error, CheckpointOfAnotherVersion):
        return None
    return storage.set_aside(checkpoint, str(error), by="lq verify")


def _set_aside_before(job_dir: JobDir) -> Iterator[Finding]:
    for path in storage.listed_bad(job_dir.checkpoints):
        yield Finding(path=path, ok=True, because=f"was set aside and is not used: {storage.why(path)}")


def _adapters(job_dir: JobDir) -> Iterator[Finding]:
    """Published files against lq.json, milestones against their checkpoint where that is there still."""
    known = _known(job_dir.adapters)
    sums = _manifests(job_dir)
    present = {path.name for path in job_dir.adapters.glob("*") if not path.name.startswith(".")}
    for path in (job_dir.adapters / name for name in sorted(present | set(known))):
        if path.name in known:
            yield _read(path, partial(_same, path, known[path.name], "lq.json"))
        elif path.suffix == ".safetensors":
            yield _read(path, partial(_milestone, path, sums.get(path.name)))
        elif path.suffix == ".json":
            yield _read(path, partial(_readable, path))


def _manifests(job_dir: JobDir) -> dict[str, str]:
    """Return the sha256 of each checkpoint's adapter, by the name it has as a milestone; of bad ones too."""
    found = {}
    good = [one.path for one in storage.listed(job_dir.checkpoints)]
    for path in (*storage.listed_bad(job_dir.checkpoints), *good):
        iteration = int(path.name.removeprefix("step-").removesuffix(".bad"))
        with suppress(CheckpointInvalid):  # said of the checkpoint itself
            found[f"{iteration:07d}_{ADAPTERS}"] = Checkpoint(path=path, iteration=iteration).sha256(ADAPTERS)
    return found


def _published(app: App, job: Job, job_dir: JobDir) -> Iterator[Finding]:
    """What was copied to adapter_path, as long as the lq.json there is this job's."""
    named = asked_for(app, job.id)[0].adapter_path
    target = Path(named) if named is not None else None
    if target is None or publishing.origin(target).get("job_dir") != str(job_dir.path):
        return
    for name, sha256 in _known(target).items():
        yield _read(target / name, partial(_same, target / name, sha256, "lq.json"))


def _report(job_dir: JobDir) -> Iterator[Finding]:
    path = job_dir.report / "report.json"
    if path.exists():
        yield _read(path, partial(_readable, path))


def _known(folder: Path) -> dict[str, str]:
    files = publishing.origin(folder).get("files")
    return {str(name): str(sha256) for name, sha256 in files.items()} if isinstance(files, dict) else {}


def _same(path: Path, sha256: str, source: str) -> str:
    found = publishing.sha256_of(path)
    if found is None:
        raise ValueError("it is not there, or cannot be read")
    if found != sha256:
        raise ValueError(f"its sha256 is not the one in {source}: it has changed since it was written")
    return f"its sha256 is the one in {source}"


def _milestone(path: Path, sha256: str | None) -> str:
    if sha256 is not None:
        return _same(path, sha256, "its checkpoint's manifest")
    whole = tensor_files.header(path)[1]
    if path.stat().st_size != whole:
        raise ValueError(f"it has {path.stat().st_size} bytes, its own header says {whole}")
    return "as long as its header says; its checkpoint is gone, and with it its sha256"


def _readable(path: Path) -> str:
    return f"can be read, {len(_json(path))} keys"


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
