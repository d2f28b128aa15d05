"""Tells, once, that a group has ended: every minute the worker looks for groups whose last job is no longer live.

The comparison is made by a process of its own, so that its memory is not the worker's. A group whose worker was killed
right after its last job is told by the next worker, within a day.
"""

from __future__ import annotations

import logging

from jobs.model.errors import ConfigInvalid
from orchestrator.core import cli_subprocess
from orchestrator.core.app import App
from orchestrator.notify import messages
from orchestrator.notify.routing import wants
from orchestrator.store.groups import EndedGroup

TOLD_WITHIN_S = 24 * 3600.0
COMPARE_TIMEOUT_S = 300.0

log = logging.getLogger("lq.groups")


def publish_ended(app: App, now: float) -> None:
    """Write the message of every group that has ended and is not told yet.

    Args:
        app: store, settings and wake-up queue.
        now: unix seconds.
    """
    for group in app.store.groups.ended_since(now - TOLD_WITHIN_S):
        if not app.store.outbox.has(messages.group_key(group.name, group.ended_at)):
            _tell(app, group, now)


def _tell(app: App, group: EndedGroup, now: float) -> None:
    spec = app.store.spec(group.last_job)
    try:
        services = app.settings().notify.everyone
    except ConfigInvalid as error:
        log.error("group %s is told when settings.yaml is mended: %s", group.name, error)
        return
    notify = spec.lq.notify
    if not wants(services, "finished", job_on=notify.on, job_tags=notify.tags):
        return
    best, picture = _compared(app, group.name)
    new = messages.group_ended(
        group.name,
        app.store.groups.jobs(group.name),
        best,
        ended_at=group.ended_at,
        picture=picture,
        spec=spec,
    )
    added = app.store.outbox.add(new, now)
    if added is not None:
        log.info("message %d: group %s has ended", added.id, group.name)
        app.wakeup.wake_for_delivery(added.id)


def _compared(app: App, name: str) -> tuple[list[str], str | None]:
    """Return what is to be said of the best of a group, and the picture of its curves."""
    content = cli_subprocess.answer(app.home, "compare", f"--group={name}", timeout_s=COMPARE_TIMEOUT_S)
    if content is None:
        return ["the jobs could not be compared"], None
    best = content["best_of"]
    text = best["text"] if best is not None else ["no job ended with a validation and an adapter"]
    return [str(line) for line in text], content["picture"]
