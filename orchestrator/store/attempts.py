"""Attempts: each run of a trainer process, from its start to its exit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update

from jobs.model.errors import NotAllowed
from jobs.model.job import Attempt, ProcessIdentity
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.policies.retry import Crash
from orchestrator.store.database import Records
from orchestrator.store.job_queries import change, read_column
from orchestrator.store.leases import require_lease
from orchestrator.store.rows import from_identity, to_attempt
from orchestrator.store.schema import attempts, incidents, jobs

USER_WENT_BACK = "user_went_back"
"""The code of the incident that `lq retry --fresh` and `lq retry --from` record."""


class AttemptRecords(Records):
    """Attempts of jobs."""

    def begin(self, job_id: int, *, owner: ProcessIdentity, now: float) -> Attempt:
        """Begin the next attempt of a job."""
        with self._database.writing() as db:
            job = require_lease(db, job_id, owner)
            running = select(attempts.c.number).where(attempts.c.job_id == job_id, attempts.c.ended_at.is_(None))
            if (number := db.execute(running).scalar()) is not None:
                raise NotAllowed(f"job {job_id}: attempt {number} has not ended, so no other may begin")
            change(db, job_id, {"attempts": job.attempts + 1})
            new = insert(attempts).values(job_id=job_id, number=job.attempts + 1, started_at=now)
            return to_attempt(db.execute(new.returning(*attempts.columns)).mappings().one())

    def set_child(self, attempt_id: int, child: ProcessIdentity) -> None:
        """Record the trainer process of an attempt."""
        with self._database.writing() as db:
            db.execute(update(attempts).where(attempts.c.id == attempt_id).values(**from_identity(child, "child")))

    def end(
        self,
        attempt_id: int,
        *,
        ending: Ending,
        exit_code: int | None,
        signal: int | None,
        now: float,
        stderr_tail: str | None = None,
    ) -> None:
        """Record how an attempt ended, unless it has ended already."""
        with self._database.writing() as db:
            running = update(attempts).where(attempts.c.id == attempt_id, attempts.c.ended_at.is_(None))
            end = {"outcome": ending.outcome, "reason": ending.reason, "detail": ending.detail, "ended_at": now}
            db.execute(running.values(**end, exit_code=exit_code, signal=signal, stderr_tail=stderr_tail))

    def of(self, job_id: int) -> list[Attempt]:
        """Return the attempts of a job by number."""
        query = select(*attempts.columns).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
        return [to_attempt(row) for row in self._rows(query)]

    def crashes(self, job_id: int) -> list[Crash]:
        """Return the crashes since the last retry, oldest first, each with its reason and its new iterations.

        An iteration is new if no earlier attempt reached it, including those before the retry. After a rewind by the
        user, the iterations that it gave up are new again.
        """
        with self._database.reading() as db:
            counted_from = read_column(db, job_id, jobs.c.crashes_from)
        rewinds = self._rewinds(job_id)
        crashes, furthest = [], 0
        for attempt in self.of(job_id):
            furthest = min([furthest, *(to for after, to in rewinds if after == attempt.number - 1)])
            reached = attempt.first_iteration or 0 if attempt.last_iteration is None else attempt.last_iteration
            if attempt.number > counted_from and attempt.outcome == Outcome.CRASHED:
                crashes.append(Crash(gained=max(0, reached - furthest), reason=attempt.reason or Reason.LOST))
            furthest = max(furthest, reached)
        return crashes

    def recent(self, *, since: float) -> list[Attempt]:
        """Return the attempts of all jobs that run, and those that ended since then (unix seconds), the last first."""
        every = select(*attempts.columns)
        queries = every.where(attempts.c.ended_at.is_(None)), every.where(attempts.c.ended_at >= since)  # two indexes
        found = [to_attempt(row) for query in queries for row in self._rows(query)]
        return sorted(found, key=lambda attempt: attempt.ended_at or float("inf"), reverse=True)

    def self_tests(self, job_id: int) -> dict[int, Mapping[str, Any]]:
        """Return the self-test after each resume (equal, measured, recorded), by attempt number."""
        query = (
            select(attempts.c.number, attempts.c.self_test)
            .where(attempts.c.job_id == job_id, attempts.c.self_test.is_not(None))
            .order_by(attempts.c.number)
        )
        return {row["number"]: row["self_test"] for row in self._rows(query)}

    def _rewinds(self, job_id: int) -> list[tuple[int, int]]:
        """Return, for each rewind by the user, the attempt before it and the iteration that it went back to."""
        query = select(incidents.c.attempt, incidents.c.evidence).where(incidents.c.job_id == job_id)
        rows = self._rows(query.where(incidents.c.code == USER_WENT_BACK))
        return [(row["attempt"], int(row["evidence"]["back_to"])) for row in rows]
