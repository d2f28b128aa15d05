"""Memory fits: the measured memory and speed of each configuration on this machine."""

from __future__ import annotations

import dataclasses

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.model.job import Fit
from orchestrator.store.database import Records
from orchestrator.store.rows import fields_of, from_row
from orchestrator.store.schema import fits


class FitRecords(Records):
    """Measurements of configurations."""

    def record(self, key: str, fit: Fit, now: float) -> None:
        """Record a measurement of the configuration with this key. A value that is None keeps its last measurement."""
        row = {"key": key, "measured_at": now, **dataclasses.asdict(fit)}
        measured = {name: value for name, value in row.items() if value is not None or name == "peak_bytes"}
        with self._database.writing() as db:
            db.execute(upsert(fits).values(**row).on_conflict_do_update(index_elements=["key"], set_=measured))

    def get(self, key: str) -> Fit | None:
        """Return the measurement of a configuration; None if it was never measured."""
        row = self._first(select(*fields_of(fits, Fit)).where(fits.c.key == key))
        return None if row is None else Fit(**row)

    def all(self) -> dict[str, Fit]:
        """Return the measurement of every configuration by key, the most recent first."""
        query = select(fits.c.key, *fields_of(fits, Fit)).order_by(fits.c.measured_at.desc())
        return {row["key"]: from_row(Fit, row) for row in self._rows(query)}
