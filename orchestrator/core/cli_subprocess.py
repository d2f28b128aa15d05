"""Has lq itself answer, in a process of its own: what reads models, data or all curves must not grow the worker."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

from orchestrator.core.paths import Home

log = logging.getLogger("lq.own_process")


def answer(home: Home, *words: str, timeout_s: float) -> dict[str, Any] | None:
    """Return what `lq WORDS --json` answers; None, and a line in the log, where it does not.

    Args:
        home: whose jobs it is about.
        words: a reading verb and its arguments.
        timeout_s: seconds to wait.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "orchestrator.cli", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"LQ_HOME": str(home.path)},
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        log.error("lq %s did not answer: %s", " ".join(words), type(error).__name__)
        return None
    return found
