"""`mlx_lm.lora` as it is, with a clock: its training callback stamps each report into the file of $LQ_BENCH_CLOCK."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import mlx_lm.lora
from mlx_lm.tuner.callbacks import TrainingCallback

CLOCK = "LQ_BENCH_CLOCK"


class Clock(TrainingCallback):
    """Writes `iteration unix-seconds`, one report a line."""

    def __init__(self, path: Path) -> None:
        """Begin a file."""
        self._file = path.open("w", buffering=1)

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Stamp a report."""
        self._file.write(f"{train_info['iteration']} {time.time():.6f}\n")


def main() -> None:
    """Run `mlx_lm.lora` on this process's arguments; it takes its callback from a function, which is replaced."""
    clock = Clock(Path(os.environ[CLOCK]))
    vars(mlx_lm.lora)["get_reporting_callbacks"] = lambda *_, **__: clock
    mlx_lm.lora.main()


if __name__ == "__main__":
    main()
