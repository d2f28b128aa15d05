"""`mlx_lm.lora` with a training callback that writes the time of each report to the file $LQ_BENCH_CLOCK."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import mlx_lm.lora
from mlx_lm.tuner.callbacks import TrainingCallback

CLOCK = "LQ_BENCH_CLOCK"


class Clock(TrainingCallback):
    """Writes one line per report: `iteration unix-seconds`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Write a line."""
        self._file.write(f"{train_info['iteration']} {time.time():.6f}\n")


def main() -> None:
    """Run `mlx_lm.lora` with the arguments of this process, and replace the function that returns its callbacks."""
    clock = Clock(Path(os.environ[CLOCK]))
    vars(mlx_lm.lora)["get_reporting_callbacks"] = lambda *_, **__: clock
    mlx_lm.lora.main()


if __name__ == "__main__":
    main()
