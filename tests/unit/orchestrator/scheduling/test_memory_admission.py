"""Whether a job fits beside those that run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.model.configuration import fit_key
from jobs.model.job import Fit, Job
from jobs.model.run_plan import RunPlan
from orchestrator.scheduling.memory_admission import MemoryAdmission
from tests.unit.orchestrator.cli_homes import WORKER, Home

GB = 10**9


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


def took(home: Home, job: Job, peak: int | None) -> None:
    """Let a run of the same configuration have taken so much."""
    spec = home.store.spec(job.id)
    key = fit_key(spec, RunPlan.requested(spec).stages[0])
    home.store.fits.record(key, Fit(fits=True, peak_bytes=peak, job_id=job.id), time.time())


def kept_by(home: Home, job: Job, recommended: int) -> str | None:
    [waiting] = [one for one in home.store.queue.waiting() if one.job.id == job.id]
    found = MemoryAdmission(home.store, lambda: recommended)(waiting)
    return found.text if found is not None else None


def test_alone_a_job_has_all_the_memory_and_nothing_is_asked_of_it(home: Home) -> None:
    assert kept_by(home, home.queued(), 0) is None


def test_a_job_of_which_nothing_is_known_runs_alone(home: Home) -> None:
    first = home.queued("first", batch_size=1)
    home.store.leases.claim(WORKER, time.time())
    second = home.queued("second", batch_size=2)
    assert kept_by(home, second, 100 * GB) == f"what job {first.id} takes of the memory is not known yet"
    took(home, first, GB)
    assert kept_by(home, second, 100 * GB) == "what it takes of the memory is not known, so it runs alone"
    took(home, second, None)
    assert kept_by(home, second, 100 * GB) == "what it takes of the memory is not known, so it runs alone"


@pytest.mark.parametrize(("recommended", "fits"), [(11 * GB, True), (10 * GB, False)])
def test_two_jobs_run_beside_each_other_where_both_fit_within_the_limit(
    home: Home, recommended: int, fits: bool
) -> None:
    first = home.queued("first", batch_size=1)
    home.store.leases.claim(WORKER, time.time())
    second = home.queued("second", batch_size=2, lq={"memory": {"limit": "80%"}})
    took(home, first, 3 * GB)
    took(home, second, 5 * GB)
    text = kept_by(home, second, recommended)
    assert (text is None) == fits
    assert text is None or "7.36 GB" in text
