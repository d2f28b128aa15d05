"""What an exception of a trainer means, for exceptions of the libraries that the trainer uses."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import httpx2
import pytest
import requests
from huggingface_hub.errors import HfHubHTTPError, IncompleteSnapshotError, LocalEntryNotFoundError

from jobs.policies.raised import cannot_work, is_disk_full, may_pass, network_error


def raised_from(error: Exception, *causes: BaseException) -> Exception:
    """Return an error that was raised from others, the last one first."""
    link: BaseException = error
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return error


def answered(status: int) -> Exception:
    """Return the error of a hub that answers with this HTTP status."""
    request = httpx2.Request("GET", "http://127.0.0.1/api")
    return HfHubHTTPError(f"{status}", response=httpx2.Response(status, request=request))


PASSING = {
    "refused": lambda: httpx2.ConnectError("[Errno 111] Connection refused"),
    "no name": lambda: socket.gaierror(-2, "Name or service not known"),
    "slow": lambda: requests.exceptions.ReadTimeout("timed out"),
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "reset"),
    "hidden": lambda: raised_from(OSError("We couldn't connect"), LocalEntryNotFoundError("x"), ConnectionError("y")),
    "half a cache": lambda: IncompleteSnapshotError("2 files are missing", snapshot_path="x"),
    "torn download": lambda: OSError("Consistency check failed: file should be of size 5 but has size 3"),
    "xet": lambda: RuntimeError("Data processing error: CAS service error : Reqwest Error: error sending request"),
    "busy": lambda: answered(429),
    "server error": lambda: answered(502),
}


@pytest.mark.parametrize("make", PASSING.values(), ids=PASSING.keys())
def test_network_errors_are_recognised(make: Callable[[], Exception]) -> None:
    error = make()
    assert network_error(error) is not None
    assert (may_pass(error), cannot_work(error)) == (True, False)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_answer_of_the_hub_is_final(status: int) -> None:
    """Also if the library then reports that the entry is not in the cache."""
    assert network_error(answered(status)) is None
    assert network_error(raised_from(LocalEntryNotFoundError("x"), answered(status))) is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("[metal::malloc] Unable to allocate 5 bytes"),
        RuntimeError("[metal::Device] Unable to load device"),
        ImportError("libmlx.so: file too short", name="mlx.core"),
        RuntimeError("Could not load C++ shared library /tmp/mlx/0/x.so: file too short"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_machine_errors_may_pass(error: Exception) -> None:
    assert network_error(error) is None
    assert (may_pass(error), cannot_work(error)) == (True, False)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (RuntimeError("[QuantizedMatmul::vjp] no gradient wrt the quantized weights."), True),
        (RuntimeError("[Primitive::vjp] Not implemented for Hadamard"), True),
        (NotImplementedError("this cache cannot be trimmed"), True),
        (ValueError("[broadcast_shapes] Shapes cannot be broadcast."), True),
        (IndexError("list index out of range"), True),
        (RuntimeError("something else"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: str(value)[:25],
)
def test_deterministic_errors_are_final(error: BaseException, final: bool) -> None:
    assert cannot_work(error) is final


def test_pipe_is_no_network() -> None:
    """A tracker whose process has ended closes a pipe, which is a ConnectionError too."""
    assert network_error(BrokenPipeError(errno.EPIPE, "Broken pipe")) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_recognised(number: int) -> None:
    assert is_disk_full(OSError(number, "full"))
    assert may_pass(OSError(number, "full"))
