"""Runs a verb of lq in a child process: reading models, data or all curves must not use the worker's memory."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

from orchestrator.core.paths import Home

log = logging.getLogger("lq.cli_subprocess")


def json_of(home: Home, *words: str, timeout_s: float) -> dict[str, Any] | None:
    """Return the output of `lq WORDS --json` for a verb that only reads; if it fails, log the error, return None."""
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
        content: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        log.error("lq %s failed: %s", " ".join(words), type(error).__name__)
        return None
    return content
