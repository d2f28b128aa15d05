"""Memory fits: what is known of the memory and the speed of configurations on this machine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.model.job import Fit
from orchestrator.store.database import Records
from orchestrator.store.rows import fields_of
from orchestrator.store.schema import fits

if TYPE_CHECKING:
    pass


class FitRecords(Records):
    """What is known of configurations."""

    def record(self, key: str, fit: Fit, now: float) -> None:
        """Keep what a configuration took; what did not fit once counts until it is seen to fit.

        What was not measured this time leaves what was measured before.

        Args:
            key: names the configuration.
            fit: what was seen.
            now: unix seconds.
        """
        row = {"key": key, "seen_at": now, **dataclasses.asdict(fit)}
        news = {name: value for name, value in row.items() if value is not None or name == "peak_bytes"}
        with self._database.writing() as db:
            db.execute(upsert(fits).values(**row).on_conflict_do_update(index_elements=["key"], set_=news))

    def get(self, key: str) -> Fit | None:
        """Return what is known of a configuration; None where it was never seen."""
        query = select(*fields_of(fits, Fit)).where(fits.c.key == key)
        with self._database.reading() as db:
            row = db.execute(query).mappings().first()
        return None if row is None else Fit(**row)

    def all(self) -> dict[str, Fit]:
        """Return what is known of every configuration that was seen, by its key, the last seen first."""
        query = select(fits.c.key, *fields_of(fits, Fit)).order_by(fits.c.seen_at.desc())
        with self._database.reading() as db:
            rows = [dict(row) for row in db.execute(query).mappings()]
        return {row.pop("key"): Fit(**row) for row in rows}
