"""What an exception of a trainer means (docs/explanation/policies.md, section 3). Pure: an exception is a value."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from jobs.model.outcomes import Reason
from jobs.policies.exits import ERROR_PATTERNS
from jobs.policies.machine import is_device_error

# names of classes: the trainer's libraries use several HTTP clients, and none is imported here
_NETWORK_TYPES = frozenset(
    {
        *("LocalEntryNotFoundError", "OfflineModeIsEnabled"),  # huggingface_hub: neither in the cache nor reachable
        *("TransportError", "Timeout", "MaxRetryError", "ProtocolError", "gaierror", "TimeoutError"),
        *("ConnectionError", "ConnectTimeout", "ChunkedEncodingError", "SSLError", "ProxyError"),
    }
)
_NETWORK_TEXT = re.compile(r"Consistency check failed|CAS service error|[Rr]eqwest|error sending request")  # hf_xet
_RETRIED_STATUS = frozenset({408, 425, 429})  # HTTP: timeout, too early, too many requests; and all from 500 on

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PASSING = frozenset({*_FULL, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ENOMEM})
_PASSING |= frozenset({errno.ESTALE, errno.EBUSY, errno.ENOTCONN, errno.EHOSTDOWN})
_OWN_PACKAGES = frozenset({"mlx", "mlx_lm", "numpy", "transformers", "tokenizers", "safetensors", "huggingface_hub"})
_TORN_KERNEL = re.compile(r"Could not load C\+\+ shared library|\[Compile::eval_cpu\]")

_PASSING_TEXTS = [pattern for pattern, reason, _ in ERROR_PATTERNS if reason is not Reason.MODEL_MISSING]

_DETERMINISTIC = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
_UNSUPPORTED = re.compile(
    r"no gradient wrt|\bnot (?:yet )?(?:supported|implemented)|\bonly supports?\b|\bdoes not support", re.IGNORECASE
)  # how MLX says that it cannot do something with this model: RuntimeError


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from, as a traceback shows them, the last first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def network_error(error: BaseException) -> BaseException | None:
    """Return the first network failure that led to an exception; None if the hub answered, or nothing was asked.

    An answer such as "no such model" or "no access" is final. Too many requests, and an error of the server, are not.
    """
    links = list(chain(error))
    statuses = [status for link in links if (status := _status(link)) is not None]
    if statuses:
        passing = all(status in _RETRIED_STATUS or status >= 500 for status in statuses)
        return next(link for link in links if _status(link) is not None) if passing else None
    failed = [link for link in links if not isinstance(link, BrokenPipeError) and _is_network(link)]
    offline = (link for link in failed if type(link).__name__ == "OfflineModeIsEnabled")
    return next(offline, failed[-1] if failed else None)


def _is_network(error: BaseException) -> bool:
    by_type = _NETWORK_TYPES & {base.__name__ for base in type(error).__mro__}
    return bool(by_type) or _NETWORK_TEXT.search(str(error)) is not None


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def is_disk_full(error: BaseException) -> bool:
    """Return whether the disk took no more bytes."""
    return isinstance(error, OSError) and error.errno in _FULL


def may_pass(error: BaseException) -> bool:
    """Return whether an exception comes from the network, memory, device or system, and can be over later."""
    if network_error(error) is not None:
        return True
    return any(
        isinstance(link, MemoryError)
        or (isinstance(link, OSError) and link.errno in _PASSING)
        or (isinstance(link, ImportError) and (link.name or "").partition(".")[0] in _OWN_PACKAGES)
        or _TORN_KERNEL.search(str(link)) is not None
        or is_device_error(str(link))
        or any(re.search(pattern, str(link)) for pattern in _PASSING_TEXTS)
        for link in chain(error)
    )


def cannot_work(error: BaseException) -> bool:
    """Return whether an exception before the first update is one that every attempt would raise again."""
    if may_pass(error):
        return False
    unsupported = isinstance(error, RuntimeError) and _UNSUPPORTED.search(str(error)) is not None
    return unsupported or isinstance(error, (*_DETERMINISTIC, NotImplementedError))
