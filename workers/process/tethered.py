"""`python -P -m workers.process.tethered MODULE ARG...`: runs a module as `python -m` does, and exits with its parent.

The parent holds the other end of a pipe whose number is in $LQ_TETHER. When the pipe closes, for example because the
parent was killed, this process ends too. An error is one line on stderr; Ctrl-C and the end of the input print nothing.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import threading

TETHER = "LQ_TETHER"  # environment variable with the descriptor of the pipe
FAILED, INTERRUPTED = 1, 130


def main(arguments: list[str]) -> int:
    """Run a module, the first of the arguments, with the others and return the exit code."""
    _exit_with(int(os.environ.pop(TETHER)))
    module, *own = arguments
    sys.argv = [module, *own]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return INTERRUPTED
    except EOFError:  # the end of the input
        return 0
    except Exception as error:  # noqa: BLE001 the border of the process: the parent shows the line
        sys.stdout.flush()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return FAILED
    return 0


def _exit_with(descriptor: int) -> None:
    """Kill this process when the other end of the pipe is closed."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 1):
                pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="tether", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
