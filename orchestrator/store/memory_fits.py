"""Memory fits: the measured memory and speed of each configuration on this machine."""

from __future__ import annotations

import dataclasses

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.model.job import Fit
from orchestrator.store.database import Records
from orchestrator.store.rows import fields_of
from orchestrator.store.schema import fits


class FitRecords(Records):
    """Measurements of configurations."""

    def record(self, key: str, fit: Fit, now: float) -> None:
        """Record a measurement. A value that was not measured this time keeps its last measurement.

        Args:
            key: the key of the configuration.
            fit: the measurement.
            now: unix seconds.
        """
        row = {"key": key, "measured_at": now, **dataclasses.asdict(fit)}
        measured = {name: value for name, value in row.items() if value is not None or name == "peak_bytes"}
        with self._database.writing() as db:
            db.execute(upsert(fits).values(**row).on_conflict_do_update(index_elements=["key"], set_=measured))

    def get(self, key: str) -> Fit | None:
        """Return the measurement of a configuration; None if it was never measured."""
        query = select(*fields_of(fits, Fit)).where(fits.c.key == key)
        with self._database.reading() as db:
            row = db.execute(query).mappings().first()
        return None if row is None else Fit(**row)

    def all(self) -> dict[str, Fit]:
        """Return the measurement of every configuration by key, the most recent first."""
        query = select(fits.c.key, *fields_of(fits, Fit)).order_by(fits.c.measured_at.desc())
        with self._database.reading() as db:
            rows = [dict(row) for row in db.execute(query).mappings()]
        return {row.pop("key"): Fit(**row) for row in rows}
