"""Writes the files of a report: report.json, report.md, report.html, the pictures and the model card."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.model.errors import HomeUnusable
from jobs.model.events import finite
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from orchestrator.report.analysis.verdict import Series
from orchestrator.report.collect import collect_all
from orchestrator.report.facts import SCHEMA, Facts, PendingStatus
from orchestrator.report.render.html import Pictures, to_html
from orchestrator.report.render.model_card import is_written_by_lq, render_card
from orchestrator.report.render.report import ANALYSIS, LOSS, render
from orchestrator.store.store import Store
from workers.checkpoints import publishing
from workers.files.atomic import write_atomically

if TYPE_CHECKING:
    from orchestrator.report.plots import Figure

CARD = "README.md"

_log = logging.getLogger(__name__)


def make(
    store: Store, job_id: int, *, now: float, home: str | None = None, pending: PendingStatus | None = None
) -> Path:
    """Write the report of one job and return the path of report.md. Takes the arguments of `collect_all`.

    The text is written before the pictures are drawn, so that it exists even if drawing ends this process. Nothing is
    drawn again if the report has the present facts.

    Raises:
        HomeUnusable: the job folder cannot be written.
    """
    facts, series = collect_all(store, job_id, now=now, home=home, pending=pending)
    folder = JobDir(Path(facts.job.job_dir)).report
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        text = json.dumps(to_json(facts), indent=1, ensure_ascii=False) + "\n"
        if not _is_current(folder, text, facts):
            _write_text(facts, folder, {})
            write_atomically(folder / "report.json", text)
            _write_text(facts, folder, _draw(facts, series, folder))
        _write_cards(facts)
    except OSError as error:
        raise HomeUnusable(f"{folder}: the report cannot be written ({error.strerror}); check the disk") from error
    return folder / "report.md"


def _is_current(folder: Path, text: str, facts: Facts) -> bool:
    """Return whether the whole report exists, made from facts that differ only in their times."""
    markdown, drawn = _read(folder / "report.md"), facts.train_loss.reports > 0
    exists = (folder / "report.html").is_file() and bool(markdown) and (LOSS in markdown) is drawn
    if not exists or (drawn and not (folder / LOSS).is_file()):
        return False
    try:
        before, now = json.loads(_read(folder / "report.json")), json.loads(text)
        for content in (before, now):
            if content["job"]["status"] in ENDED:  # the worker makes the report just before it stores this time
                content["times"] = None
            else:
                del content["times"]["reported_at"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return bool(before == now)


def to_json(facts: Facts) -> dict[str, object]:
    """Return the content of report.json. Numbers that are not finite become strings."""
    content: dict[str, object] = finite(dataclasses.asdict(facts))
    return {"schema": SCHEMA, **content}


def _write_text(facts: Facts, folder: Path, pictures: Pictures) -> None:
    text = render(facts, pictures=tuple(pictures))
    title = f"{facts.job.name} (job {facts.job.id}): {facts.job.status}"
    write_atomically(folder / "report.html", to_html(text, title, pictures))
    write_atomically(folder / "report.md", text)  # last, because `_is_current` looks for the picture in it


def _draw(facts: Facts, series: Series, folder: Path) -> Pictures:
    """Draw the pictures and write their light versions. A picture that cannot be drawn is left out."""
    try:
        # imported here, because the text must be written even if matplotlib cannot be imported
        from orchestrator.report import plots
    except (ImportError, OSError, ValueError) as error:
        _log.warning("no picture could be drawn: %s", " ".join(str(error).split()))
        return {}
    drawings: Mapping[str, Callable[[plots.Theme], Figure | None]] = {
        LOSS: lambda theme: plots.loss_curve(facts, series.points, series.validations, every=series.every, theme=theme),
        ANALYSIS: lambda theme: plots.analysis(facts, series.points, theme=theme),
    }
    drawn: dict[str, tuple[bytes, bytes]] = {}
    for name, draw in drawings.items():
        try:
            light, dark = draw(plots.LIGHT), draw(plots.DARK)
            if light is None or dark is None:  # nothing was measured
                (folder / name).unlink(missing_ok=True)
                continue
            pair = plots.png(light), plots.png(dark)
            write_atomically(folder / name, pair[0])
            drawn[name] = pair
        except (OSError, ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
            _log.warning("%s could not be drawn: %s", name, " ".join(str(error).split()))
    return drawn


def _write_cards(facts: Facts) -> None:
    """Write the model card next to each published adapter of this job, but not over your own README.md."""
    if facts.adapter.best is None or facts.settings is None:
        return
    folders, copy = [Path(facts.adapter.path)], Path(facts.settings.adapter_path or facts.adapter.path)
    if copy not in folders and publishing.origin(copy).get("job_dir") == facts.job.job_dir:
        folders.append(copy)
    for folder in folders:
        card = folder / CARD
        if not card.exists() or is_written_by_lq(_read(card)):
            write_atomically(card, render_card(facts))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
