"""A restart of the machine: another boot id, and no process of before."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, power_cut, result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]


def restart_the_machine(training: Training) -> None:
    """Leave the state after a power cut, and start a worker."""
    power_cut(training)
    training.lq.start_worker()


def test_second_reboot_in_a_day_holds_job(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
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
    assert [incident["code"] for incident in facts["incidents"]] == ["host_rebooted", "host_rebooted"]
    assert facts["incidents"][1]["evidence"]["reboots_in_24_h"] == 2
    assert "needs_you" in {message["event"] for message in facts["messages"]}

    lq("resume", training.id)
    training.wait()
    assert result(training) == undisturbed.result
