"""Store: every question and every change, each one transaction. The parts are told apart by noun."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from sqlalchemy import text

from jobs.model.errors import StoreUnusable
from orchestrator.store.attempts import AttemptRecords
from orchestrator.store.groups import GroupRecords
from orchestrator.store.incidents import IncidentRecords
from orchestrator.store.job_edits import Edits
from orchestrator.store.jobs import JobRecords
from orchestrator.store.leases import Leases
from orchestrator.store.metrics import Observations
from orchestrator.store.naming import Naming
from orchestrator.store.outbox import Outbox
from orchestrator.store.queue import Line
from orchestrator.store.queue_state import QueueRecord
from orchestrator.store.run_plans import RunPlans
from orchestrator.store.status_queries import Sights
from orchestrator.store.versions import open_engine


class Store(
    JobRecords,
    Edits,
    GroupRecords,
    Naming,
    Line,
    Leases,
    AttemptRecords,
    RunPlans,
    Observations,
    IncidentRecords,
    Outbox,
    QueueRecord,
    Sights,
):
    """What is true about every job; the only one who knows."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store, made (0600) where there is none, migrated where it is older.

        An older one is first copied beside itself, to `lq.db.v<N>.bak`.

        Raises:
            StoreUnusable: damaged, of a newer version, or not a store.
            HomeUnusable: it cannot be read or written where it is.
        """
        return cls(path, open_engine(path))

    def check(self) -> None:
        """Read the whole file and look for damage.

        Raises:
            StoreUnusable: something is wrong, named by SQLite.
        """
        with self.reading() as db:
            found = [str(line) for line in db.execute(text("PRAGMA integrity_check")).scalars() if line != "ok"]
            found += [f"a row of {row[0]} without its {row[2]}" for row in db.execute(text("PRAGMA foreign_key_check"))]
        if found:
            raise StoreUnusable(
                f"{self._path}: the store is damaged ({found[0]}; {len(found)} in all); put a copy of it in its place"
            )
