"""Writes a job's report/: report.json, report.md, loss_curve.png. The border between facts and files."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from jobs.errors import HomeUnusable
from jobs.events import finite
from orchestrator.report.collect import collect
from orchestrator.report.facts import SCHEMA, Facts
from orchestrator.report.markdown import render
from orchestrator.store.store import Store
from workers.files import write_atomically, write_json
from workers.job_dir import JobDir

PICTURE = "loss_curve.png"

_log = logging.getLogger(__name__)


def make(
    store: Store,
    job_id: int,
    *,
    as_status: str | None = None,
    as_reason: str | None = None,
    now: float,
    home: str | None = None,
) -> Path:
    """Write the report of one job and return the path of report.md.

    The text is written before the picture is drawn: whatever drawing does to this process, the text is there.

    Args:
        store: where the job is.
        job_id: the job.
        as_status: the status to report, where the decision is made but not yet stored.
        as_reason: its reason code.
        now: unix seconds.
        home: $LQ_HOME to name in the commands; None for the default one.

    Raises:
        NoSuchJob: the store has no such job.
        HomeUnusable: the folder of the job cannot be written.
    """
    facts = collect(store, job_id, as_status=as_status, as_reason=as_reason, now=now, home=home)
    folder = JobDir(Path(facts.job.job_dir)).report
    report = folder / "report.md"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        write_json(folder / "report.json", to_json(facts))
        write_atomically(report, render(facts, picture=None))
        if _draw(store, facts, folder / PICTURE):
            write_atomically(report, render(facts, picture=PICTURE))
    except OSError as error:
        raise HomeUnusable(f"{folder}: the report cannot be written ({error.strerror}); check the disk") from error
    return report


def to_json(facts: Facts) -> dict[str, object]:
    """Return the content of report.json; numbers that are not finite are strings."""
    content: dict[str, object] = finite(dataclasses.asdict(facts))
    return {"schema": SCHEMA, **content}


def _draw(store: Store, facts: Facts, path: Path) -> bool:
    try:
        # Here and not above: the text must come out where matplotlib cannot even be imported.
        from orchestrator.report.plots import loss_curve

        write_atomically(path, loss_curve(facts, store.points(facts.job.id), store.validations(facts.job.id)))
    except (ImportError, OSError, ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        _log.warning("%s could not be drawn: %s", path.name, " ".join(str(error).split()))
        return False
    return True
