"""The machine is restarted in the middle of the night: another boot id, and nobody left of before."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, power_cut, result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]


def restart_the_machine(training: Training) -> None:
    """Leave what a restart leaves, and start a worker."""
    power_cut(training)
    training.lq.start_worker()


def test_after_a_restart_it_goes_on_and_after_the_second_of_a_day_it_waits_for_its_user(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    lq.settings(notify={"services": [{"url": "json://127.0.0.1:9/", "name": "phone"}]})
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    restart_the_machine(training)
    training.until(Kind.PROGRESS, lambda event: event.attempt == 2 and event.data["losses"])
    restart_the_machine(training)
    job = training.until_status("held")
    assert (job["reason"], job["pid"]) == ("host_rebooted", None)
    facts = training.facts()
    first, second = facts["attempts"]
    assert (first["outcome"], first["reason"], second["quality"]) == ("crashed", "host_rebooted", "exact")
    assert [one["code"] for one in facts["incidents"]] == ["host_rebooted", "host_rebooted"]
    assert "restarted 2 times within a day" in facts["incidents"][1]["text"]
    assert "lq resume" in facts["incidents"][1]["text"]
    assert "needs_you" in {message["event"] for message in facts["messages"]}

    lq("resume", training.id)
    training.wait()
    assert result(training) == undisturbed.result
