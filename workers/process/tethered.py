"""`python -P -m workers.tethered MODULE ARG...`: a module as `python -m` runs it, that ends with whoever started it.

Who started it holds the other end of a pipe whose number is in $LQ_TETHER. When that
closes, because its holder was killed for example, this process ends too. An error is one line on stderr, Ctrl-C and the
end of the input are none.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import threading

TETHER = "LQ_TETHER"
"""The environment's name for the descriptor of the pipe."""

FAILED, INTERRUPTED = 1, 130


def main(arguments: list[str]) -> int:
    """Run a module and return the exit code.

    Args:
        arguments: the module's name and its own arguments.
    """
    _follow(int(os.environ.pop(TETHER)))
    module, *own = arguments
    sys.argv = [module, *own]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return INTERRUPTED
    except EOFError:  # nobody types any more
        return 0
    except Exception as error:  # noqa: BLE001 the border of the process: the parent tells it
        sys.stdout.flush()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return FAILED
    return 0


def _follow(descriptor: int) -> None:
    """End this process when the pipe's other end is closed."""

    def look() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 1):
                pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="tether", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
