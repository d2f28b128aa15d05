"""What the trainer and the dry run have in common as child processes. No mlx.

A child reports through events.jsonl and its exit code: 0 done, 75 stopped on request (resumable), 78 refused (another
attempt would end the same way), anything else: it crashed.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from jobs.model.errors import DataInvalid, InvalidInput, LqError, ModelMissing, message_of
from jobs.model.events import EndedEvent, StartedEvent, WarningEvent
from jobs.model.outcomes import Outcome, Quality, Reason
from jobs.policies import raised
from jobs.policies.exits import DISK_FULL, DONE, NEVER_RETRY, RESUMABLE
from workers.checkpoints.storage import Checkpoint
from workers.events.log import EventLog
from workers.events.reporter import HEARTBEAT_S
from workers.process.stop_requests import Requests, StopNow
from workers.system import kernel_cache
from workers.system.processes import identity

CRASHED = 1


class ChildProcess:
    """Reports the start, the heartbeat and the end of a child."""

    def __init__(self, events: EventLog, requests: Requests) -> None:
        self.events, self.requests = events, requests
        self.iteration = 0  # completed iterations, for the `ended` event
        self.loads = False  # from here on an error may be caused by the model, the data or the job file
        self.trained = False  # at least one iteration

    def run(self, work: Callable[[ChildProcess], Reason]) -> int:
        """Do the work, report how it ended, and return the exit code."""
        try:
            reason = work(self)
        except StopNow:
            reason = Reason.STOPPED_BY_USER
        except InvalidInput as error:
            reasons = {DataInvalid: Reason.DATA_INVALID, ModelMissing: Reason.MODEL_MISSING}
            self._report_end(Outcome.REFUSED, reasons.get(type(error), Reason.CONFIG_INVALID), str(error))
            return NEVER_RETRY
        except BaseException as error:  # noqa: BLE001 the border of the process: it records, and the worker decides
            return self._crashed(error)
        if reason is Reason.STOPPED_BY_USER:
            why = "a segment ended" if self.requests.segment_over else "stopped on request"
            self._report_end(Outcome.STOPPED, reason, f"{why} at iteration {self.iteration}")
            return RESUMABLE
        early = reason is Reason.EARLY_STOPPED
        detail = f"ended early, at iteration {self.iteration:,}" if early else "trained to its last iteration"
        self._report_end(Outcome.DONE, reason, detail)
        return DONE

    def _crashed(self, error: BaseException) -> int:
        traceback.print_exc()
        text = f"{type(error).__name__}: {_first_line(error)}"
        if self.loads and not self.trained:
            network = raised.network_error(error)
            if network is not None:
                text = f"{type(network).__name__}: {_first_line(network)}"
                self._report_end(Outcome.STOPPED, Reason.NETWORK, f"the network or the hub does not answer: {text}")
                return RESUMABLE
            if raised.cannot_work(error):
                text = f"this model cannot be trained with these settings: {text}"
                self._report_end(Outcome.REFUSED, Reason.CONFIG_INVALID, text)
                return NEVER_RETRY
        reason = Reason.CRASHED
        if isinstance(error, MemoryError) or raised.is_disk_full(error):
            reason = Reason.OUT_OF_MEMORY if isinstance(error, MemoryError) else Reason.DISK_FULL
        with suppress(OSError):  # a full disk does not take these lines either; then the exit code gives the reason
            torn = kernel_cache.remove_torn(error)
            if torn is not None:
                removed = f"MLX's compiled kernel {torn.name} was torn and is removed; MLX will compile it again"
                self.events.append(WarningEvent(code="torn_kernel", text=removed))
            self._report_end(Outcome.CRASHED, reason, text)
        return DISK_FULL if reason is Reason.DISK_FULL else CRASHED

    def _report_end(self, outcome: Outcome, reason: Reason, detail: str) -> None:
        self.events.append(EndedEvent(outcome=outcome, reason=reason, iteration=self.iteration, detail=detail))

    def report_start(self, resume: Checkpoint | None, quality: Quality, versions: dict[str, str], stage: int) -> None:
        """Report this process and where it starts: at a checkpoint, or fresh if `resume` is None."""
        this = identity()
        self.events.append(
            StartedEvent(
                pid=this.pid,
                create_time=this.create_time,
                boot_id=this.boot_id,
                versions=versions,
                resumed_from=resume.path.name if resume else None,
                iteration=resume.iteration if resume else 0,
                resume_quality=quality.value,
                stage=stage,
            )
        )

    @contextmanager
    def heartbeat(self, beat: Callable[[], None]) -> Iterator[None]:
        """Call `beat` in a thread if nothing was reported for a while, so that silence means a stall."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(max(0.05, HEARTBEAT_S - self.events.quiet_for())):
                if self.events.quiet_for() >= HEARTBEAT_S:
                    beat()

        thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def named_as(kind: type[InvalidInput], what: str) -> Iterator[None]:
    """Raise what the block raises as an error of the job's own files, unless it may pass; `what` begins its message."""
    try:
        yield
    except LqError:
        raise
    except Exception as error:
        if raised.may_pass(error):
            raise
        raise kind(f"{what}: {message_of(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""
