"""The store: one attribute for each kind of record. Each method of them is one transaction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy import text

from jobs.model.errors import StoreUnusable
from orchestrator.store.attempts import AttemptRecords
from orchestrator.store.database import Database
from orchestrator.store.dependencies import DependencyRecords
from orchestrator.store.events import EventRecords
from orchestrator.store.groups import GroupRecords
from orchestrator.store.incidents import IncidentRecords
from orchestrator.store.job_edits import JobEdits
from orchestrator.store.jobs import JobRecords
from orchestrator.store.leases import Leases
from orchestrator.store.memory_fits import FitRecords
from orchestrator.store.metrics import MetricRecords
from orchestrator.store.outbox import Outbox
from orchestrator.store.queue import JobQueue
from orchestrator.store.run_plans import RunPlanRecords
from orchestrator.store.status_queries import StatusQueries
from orchestrator.store.versions import open_engine

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec


class Store:
    """The records of every job."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.transaction = database.transaction
        self.attempts = AttemptRecords(database)
        self.dependencies = DependencyRecords(database)
        self.edits = JobEdits(database)
        self.events = EventRecords(database)
        self.fits = FitRecords(database)
        self.groups = GroupRecords(database)
        self.incidents = IncidentRecords(database)
        self.jobs = JobRecords(database)
        self.leases = Leases(database)
        self.metrics = MetricRecords(database)
        self.outbox = Outbox(database)
        self.queue = JobQueue(database)
        self.run_plans = RunPlanRecords(database)
        self.status = StatusQueries(database)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store at `path`; create it (0600) if it does not exist, upgrade it if it is older.

        An older one is first copied to `lq.db.v<N>.bak` in the same folder.

        Raises:
            StoreUnusable: the file is damaged, is not a store, or has a version that this program cannot read.
            HomeUnusable: the file cannot be read or written.
        """
        return cls(Database(path, open_engine(path)))

    def spec(self, job_id: int) -> JobSpec:
        """Return what a job asks for.

        Raises:
            pydantic.ValidationError: another version of lq wrote it.
        """
        from jobs.model.spec import JobSpec  # pydantic is slow to import, and `lq status` needs no specs

        return JobSpec.model_validate_json(self.jobs.spec_json(job_id))

    def check(self) -> None:
        """Read the whole file and look for damage.

        Raises:
            StoreUnusable: something is wrong, named by SQLite.
        """
        with self.database.reading() as db:
            problems = [str(line) for line in db.execute(text("PRAGMA integrity_check")).scalars() if line != "ok"]
            rows = db.execute(text("PRAGMA foreign_key_check"))
            problems += [f"a row of {row[0]} without its {row[2]}" for row in rows]
        if problems:
            raise StoreUnusable(
                f"{self.database.path}: the store is damaged ({problems[0]}; {len(problems)} in all); "
                "put a copy of it in its place"
            )

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
