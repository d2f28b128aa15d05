"""Versions, device and memory of this process, as MLX reports them."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

import mlx.core as mx

from jobs.model.errors import message_of
from jobs.model.events import MemoryReading
from jobs.model.memory_limit import limit_bytes
from jobs.model.spec import JobSpec
from workers.mlx.device import Device
from workers.system import memory, processor
from workers.system.memory import address_space_share
from workers.system.processes import footprint_bytes, swap_bytes


@functools.cache  # each lookup reads the disk, and every checkpoint stores the versions
def versions() -> dict[str, str]:
    """Return the versions that must be the same for an exact resume."""
    names = ("mlx", "mlx-lm", "numpy", "transformers", "tokenizers")
    return {name: importlib.metadata.version(name) for name in names} | {"python": platform.python_version()}


def machine() -> str:
    """Return the device and processor that must be the same for an exact resume."""
    return f"{mx.default_device()} on {processor.machine()}"


def recommended_memory() -> int:
    """Return the memory to use at most, in bytes: Metal's working set, or what the system allows."""
    if mx.metal.is_available():
        return int(mx.device_info()["max_recommended_working_set_size"])
    return memory.allowed_memory()


def device() -> Device:
    """Return what `lq doctor` shows. Compiles a kernel to see whether that works."""
    fused = mx.compile(lambda x: mx.exp(x) * 2 + x)
    try:
        mx.eval(fused(mx.zeros(4)))
        kernel_error = None
    except RuntimeError as error:
        kernel_error = message_of(error)
    return Device(
        mlx=versions()["mlx"],
        mlx_lm=versions()["mlx-lm"],
        device=machine(),
        metal=bool(mx.metal.is_available()),
        recommended=recommended_memory(),
        kernel_error=kernel_error,
    )


class MemoryReader:
    """Reads the memory of this process for progress events."""

    def __init__(self, spec: JobSpec) -> None:
        self._limit = limit_bytes(spec.lq.memory.limit, recommended_memory())
        self._pressure = memory.PressureGauge()

    def __call__(self) -> MemoryReading:
        """Return the memory of this process and of the machine now."""
        return MemoryReading(
            active=mx.get_active_memory(),
            cache=mx.get_cache_memory(),
            peak=mx.get_peak_memory(),
            footprint=footprint_bytes(),
            limit=self._limit,
            address_space_share=address_space_share(),
            swap=swap_bytes(),
            pressure_high=self._pressure.high(),
        )
