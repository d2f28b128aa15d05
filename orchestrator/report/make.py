"""Writes a job's report/ (JSON, Markdown, HTML, pictures) and the model card. The border between facts and files."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

from jobs.model.errors import HomeUnusable
from jobs.model.events import finite
from jobs.model.job_dir import JobDir
from orchestrator.report.analysis.verdict import Series
from orchestrator.report.collect import collect_all
from orchestrator.report.facts import SCHEMA, Facts
from orchestrator.report.render.html import Pictures, to_html
from orchestrator.report.render.model_card import is_written_by_lq, render_card
from orchestrator.report.render.report import ANALYSIS, LOSS, render
from orchestrator.store.store import Store
from workers.checkpoints import publishing
from workers.files.atomic import write_atomically

CARD = "README.md"

_log = logging.getLogger(__name__)


def make(
    store: Store,
    job_id: int,
    *,
    as_status: str | None = None,
    as_reason: str | None = None,
    as_detail: str | None = None,
    now: float,
    home: str | None = None,
) -> Path:
    """Write the report of one job and return the path of report.md.

    The text is written before the pictures are drawn: whatever drawing does to this process, the text is there.

    Args:
        store: where the job is.
        job_id: the job.
        as_status: the status to report, where the decision is made but not yet stored.
        as_reason: its reason code.
        as_detail: its line for a person.
        now: unix seconds.
        home: $LQ_HOME to name in the commands; None for the default one.

    Raises:
        NoSuchJob: the store has no such job.
        HomeUnusable: the folder of the job cannot be written.
    """
    facts, series = collect_all(
        store, job_id, as_status=as_status, as_reason=as_reason, as_detail=as_detail, now=now, home=home
    )
    folder = JobDir(Path(facts.job.job_dir)).report
    report = folder / "report.md"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        text = json.dumps(to_json(facts), indent=1, ensure_ascii=False) + "\n"
        write_atomically(folder / "report.json", text)
        _write_text(facts, folder, {})
        _write_text(facts, folder, _draw(facts, series, folder))
        _write_cards(facts)
    except OSError as error:
        raise HomeUnusable(f"{folder}: the report cannot be written ({error.strerror}); check the disk") from error
    return report


def to_json(facts: Facts) -> dict[str, object]:
    """Return the content of report.json; numbers that are not finite are strings."""
    content: dict[str, object] = finite(dataclasses.asdict(facts))
    return {"schema": SCHEMA, **content}


def _write_text(facts: Facts, folder: Path, pictures: Pictures) -> None:
    text = render(facts, pictures=tuple(pictures))
    write_atomically(folder / "report.md", text)
    title = f"{facts.job.name} (job {facts.job.id}): {facts.job.status}"
    write_atomically(folder / "report.html", to_html(text, title, pictures))


def _draw(facts: Facts, series: Series, folder: Path) -> Pictures:
    """Draw the pictures, for a light page into files and for both into memory; one that fails is left out."""
    try:
        # Here and not above: the text must come out where matplotlib cannot even be imported.
        from orchestrator.report import plots
    except (ImportError, OSError, ValueError) as error:
        _log.warning("no picture could be drawn: %s", " ".join(str(error).split()))
        return {}
    drawn: dict[str, tuple[bytes, bytes]] = {}
    for name, draw in ((LOSS, plots.loss_curve), (ANALYSIS, plots.analysis)):

        def both(draw: Callable[..., bytes] = draw) -> tuple[bytes, bytes]:
            light, dark = (
                draw(facts, series.points, series.validations, every=series.every, theme=theme)
                for theme in (plots.LIGHT, plots.DARK)
            )
            return light, dark

        try:
            drawn[name] = both()
            write_atomically(folder / name, drawn[name][0])
        except (OSError, ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
            drawn.pop(name, None)
            _log.warning("%s could not be drawn: %s", name, " ".join(str(error).split()))
    return drawn


def _write_cards(facts: Facts) -> None:
    """Put the model card beside every published adapter of this job; a README.md of the user's own stays."""
    own = Path(facts.adapter.path)
    if facts.adapter.best is None or facts.settings is None:
        return
    places = [own]
    if facts.settings.adapter_path is not None and _is_of(Path(facts.settings.adapter_path), facts):
        places.append(Path(facts.settings.adapter_path))
    for place in places:
        card = place / CARD
        if card.exists() and not is_written_by_lq(_text_of(card)):
            continue
        write_atomically(card, render_card(facts))


def _is_of(folder: Path, facts: Facts) -> bool:
    """Say whether the adapter that lies there is this job's."""
    try:
        about = json.loads((folder / publishing.ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("job_dir") == facts.job.job_dir


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
