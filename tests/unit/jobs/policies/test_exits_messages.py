"""Error messages of real processes, and their classification.

The messages of Metal and MLX are worded as users have reported them (ml-explore/mlx #63, #479, #1718, #3849,
mlx-examples #759, mlx-vlm #1064, omlx #1387 and #2029, ollama #17902). The programs themselves printed the others.
"""

from __future__ import annotations

import dataclasses
import signal

import pytest

from jobs.model.events import EndedEvent
from jobs.model.outcomes import ExitReport, Outcome, Reason
from jobs.policies.exits import classify

ABORTED = ExitReport(
    exit_code=None,
    signal=signal.SIGABRT,
    ended=None,
    stop_asked=False,
    killed_by_lq=False,
    same_boot=True,
    phase="train",
)
"""An uncaught exception in C++, as in older versions of MLX."""

UNCAUGHT = "libc++abi: terminating due to uncaught exception of type std::runtime_error: "
METAL = "[METAL] Command buffer execution failed: "
RAISED = 'Traceback (most recent call last):\n  File "mlx_trainer.py", line 9, in run\nRuntimeError: '

REAL = [
    # Metal
    (
        METAL + "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        Reason.OUT_OF_MEMORY,
        "Insufficient Memory",
    ),
    (
        METAL + "Speichermangel (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",  # the words are localized
        Reason.OUT_OF_MEMORY,
        "kIOGPUCommandBufferCallbackErrorOutOfMemory",
    ),
    (
        METAL + "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
        Reason.GPU_WATCHDOG,
        "ImpactingInteractivity",
    ),
    (
        METAL + "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout).",
        Reason.GPU_TIMEOUT,
        "kIOGPUCommandBufferCallbackErrorTimeout",
    ),
    (
        METAL + "Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)",
        Reason.GPU_TIMEOUT,
        "kIOGPUCommandBufferCallbackErrorHang",
    ),
    (
        METAL + "Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault)",
        Reason.GPU_TIMEOUT,
        "kIOGPUCommandBufferCallbackErrorPageFault",
    ),
    (
        METAL + "Ignored (for causing prior/excessive GPU errors) "
        "(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)",
        Reason.GPU_TIMEOUT,
        "kIOGPUCommandBufferCallbackErrorSubmissionsIgnored",
    ),
    (
        METAL + "Innocent Victim (GPU recovery) (00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)",
        Reason.GPU_TIMEOUT,
        "kIOGPUCommandBufferCallbackErrorInnocentVictim",
    ),
    # MLX's allocators
    (
        "[metal::malloc] Attempting to allocate 135383101952 bytes which is greater than the maximum allowed buffer "
        "size of 86586540032 bytes.",
        Reason.OUT_OF_MEMORY,
        "greater than the maximum allowed buffer size",
    ),
    ("[metal::malloc] Resource limit (499000) exceeded.", Reason.DESCRIPTOR_LEAK, "Resource limit (499000) exceeded"),
    ("[malloc_or_wait] Unable to allocate 9663676416 bytes.", Reason.OUT_OF_MEMORY, "Unable to allocate"),
    ("[malloc] Unable to allocate 9663676416 bytes.", Reason.OUT_OF_MEMORY, "Unable to allocate"),
    ("std::bad_alloc", Reason.OUT_OF_MEMORY, "std::bad_alloc"),
]

STOPPED = EndedEvent(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail="stopped")


@pytest.mark.parametrize("how", [UNCAUGHT, RAISED])
@pytest.mark.parametrize(("message", "reason", "sign"), REAL)
def test_mlx_message_gives_the_reason(how: str, message: str, reason: Reason, sign: str) -> None:
    ending = classify(dataclasses.replace(ABORTED, stderr_tail=f"loading\n{how}{message}\n"))
    assert (ending.outcome, ending.reason, ending.sign) == (Outcome.CRASHED, reason, sign)
    assert message in ending.detail
    assert ending.detail != message, "the detail also has the meaning"
    assert "\n" not in ending.detail


OTHERS = [
    ("MemoryError", Reason.OUT_OF_MEMORY),
    (
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array with shape (1000, 1000)",
        Reason.OUT_OF_MEMORY,
    ),
    ("OSError: [Errno 12] Cannot allocate memory", Reason.OUT_OF_MEMORY),
    (
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
        Reason.OUT_OF_MEMORY,
    ),
    ("OSError: [Errno 28] No space left on device: '/home/me/lq/jobs/1/events.jsonl'", Reason.DISK_FULL),
    ("OSError: [Errno 122] Disk quota exceeded", Reason.DISK_FULL),
    ("OSError: [Errno 69] Disk quota exceeded", Reason.DISK_FULL),  # macOS
    ("sqlite3.OperationalError: database or disk is full", Reason.DISK_FULL),
    ("RuntimeError: [write] Unable to write 4194304 bytes to file.", Reason.DISK_FULL),
]


@pytest.mark.parametrize(("line", "reason"), OTHERS)
def test_system_message_gives_the_reason(line: str, reason: Reason) -> None:
    ending = classify(dataclasses.replace(ABORTED, signal=None, exit_code=1, stderr_tail=f"Traceback\n{line}\n"))
    assert (ending.outcome, ending.reason) == (Outcome.CRASHED, reason)


HUB = [
    "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-67c6eda4-0af4075f)\n\n"
    "Repository Not Found for url: https://huggingface.co/api/models/me/none/revision/main.",
    "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1-67c6eda4-0af4075f)",
    "huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: Root=1-66389f5d-0f09a938)\n\n"
    "Cannot access gated repo for url https://huggingface.co/mistralai/Mistral-7B/resolve/main/config.json.",
    "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.\n\nRevision Not Found for url: https://x.",
    "huggingface_hub.errors.HfHubHTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/api/x",
]


@pytest.mark.parametrize("text", HUB)
def test_hub_refusal_is_not_retried(text: str) -> None:
    ending = classify(dataclasses.replace(ABORTED, signal=None, exit_code=1, stderr_tail=f"Traceback\n{text}\n"))
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.MODEL_MISSING)
    assert text.splitlines()[0][:60] in ending.detail


LOOK_ALIKES = [
    "huggingface_hub.errors.HfHubHTTPError: 503 Server Error: Service Unavailable for url: https://huggingface.co/x",
    "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/x",
    "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://api.wandb.ai/graphql",
    "ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /404",
    "RuntimeError: Resource limit exceeded",
    "KeyError: 'MemoryErrors'",
    f"RuntimeError: {METAL}Something New (000000ff:kIOGPUCommandBufferCallbackErrorNew)",
    "warning: the timeout of kIOGPU is long",
    "ValueError: 28 rows have no space left of the answer",
    "RuntimeError: attempting to allocate a sensible name",
    "IndexError: list index out of range",
]


@pytest.mark.parametrize("line", LOOK_ALIKES)
def test_similar_messages_are_crashes(line: str) -> None:
    ending = classify(dataclasses.replace(ABORTED, signal=None, exit_code=1, stderr_tail=f"Traceback\n{line}\n"))
    assert (ending.outcome, ending.reason, ending.sign) == (Outcome.CRASHED, Reason.CRASHED, None)


def test_ended_event_is_searched_too() -> None:
    """For an adopted trainer, lq has no exit code and perhaps no output."""
    ended = EndedEvent(
        outcome=Outcome.CRASHED, reason=Reason.CRASHED, detail=f"RuntimeError: {METAL}Insufficient Memory (8)"
    )
    ending = classify(dataclasses.replace(ABORTED, signal=None, ended=ended))
    assert (ending.outcome, ending.reason) == (Outcome.CRASHED, Reason.OUT_OF_MEMORY)


# --- crashes without a message ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
@pytest.mark.parametrize(
    "around", [{"pressure_high": True}, {"phase": "probe"}, {"memory_share": 0.9, "pressure_high": True}]
)
def test_silent_crash_with_little_memory(number: signal.Signals, around: dict[str, object]) -> None:
    found = dataclasses.replace(ABORTED, signal=number)
    ending = classify(dataclasses.replace(found, **around))  # type: ignore[arg-type]
    assert (ending.outcome, ending.reason) == (Outcome.CRASHED, Reason.OUT_OF_MEMORY)
    assert number.name in ending.detail
    assert classify(found).reason is not Reason.OUT_OF_MEMORY


def test_kernel_oom_kill_is_out_of_memory() -> None:
    killed = dataclasses.replace(ABORTED, signal=signal.SIGKILL, kernel_oom_kills=1)
    assert classify(killed).reason is Reason.OUT_OF_MEMORY
    crashed = dataclasses.replace(killed, signal=signal.SIGSEGV)
    assert classify(crashed).reason is Reason.CRASHED, "the kernel only sends KILL"


def test_term_is_never_out_of_memory() -> None:
    found = dataclasses.replace(ABORTED, signal=signal.SIGTERM, pressure_high=True, phase="probe", kernel_oom_kills=1)
    assert classify(found).reason is not Reason.OUT_OF_MEMORY


def test_own_kill_is_never_out_of_memory() -> None:
    found = dataclasses.replace(
        ABORTED, signal=signal.SIGKILL, killed_by_lq=True, pressure_high=True, phase="probe", kernel_oom_kills=2
    )
    assert classify(found).reason is Reason.KILLED


# --- stops by lq ---


@pytest.mark.parametrize(
    "ended", [None, EndedEvent(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail="stopped")]
)
@pytest.mark.parametrize("code", [None, 75, 1])
def test_stall_stop_is_stalled(ended: EndedEvent | None, code: int | None) -> None:
    found = dataclasses.replace(ABORTED, signal=None, exit_code=code, ended=ended, stop_asked=True, stall="no progress")
    assert (classify(found).outcome, classify(found).reason) == (Outcome.CRASHED, Reason.STALLED)
    assert classify(found).detail == "no progress"


def test_memory_guard_stop_is_out_of_memory() -> None:
    ended = STOPPED
    found = dataclasses.replace(
        ABORTED, signal=None, exit_code=75, ended=ended, stop_asked=True, guarded="it took 9 GB"
    )
    ending = classify(found)
    assert (ending.outcome, ending.reason, ending.detail) == (Outcome.CRASHED, Reason.OUT_OF_MEMORY, "it took 9 GB")


def test_done_before_the_stop_is_done() -> None:
    ended = EndedEvent(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="trained to its last iteration")
    found = dataclasses.replace(ABORTED, signal=None, exit_code=0, ended=ended, stop_asked=True, stall="no progress")
    assert classify(found).outcome is Outcome.DONE


def test_reboot_has_priority_over_output() -> None:
    found = dataclasses.replace(ABORTED, signal=None, same_boot=False, stderr_tail=UNCAUGHT + REAL[0][0], phase="probe")
    assert classify(found).reason is Reason.HOST_REBOOTED


@pytest.mark.parametrize("code", [74, None])
def test_disk_full_by_code_or_event(code: int | None) -> None:
    ended = (
        None
        if code
        else EndedEvent(outcome=Outcome.CRASHED, reason=Reason.DISK_FULL, detail="OSError: [Errno 27] File too large")
    )
    found = dataclasses.replace(ABORTED, signal=None, exit_code=code, ended=ended)
    assert (classify(found).outcome, classify(found).reason) == (Outcome.CRASHED, Reason.DISK_FULL)
