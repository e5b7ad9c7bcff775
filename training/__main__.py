"""`python -m training COMMAND`: from pictures to a scored model; `--help` lists the commands.

An interrupt ends any of them with one line and status 130, whenever it comes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before Keras: no start-up chatter
MOMENT_SECONDS = 0.05
INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that falls into a finaliser is lost there: send it again, a moment later."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        main_thread = threading.main_thread().ident
        threading.Timer(MOMENT_SECONDS, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


def _main() -> int:
    try:
        from training.options import main  # takes a second, in which an interrupt may come

        return main()
    except KeyboardInterrupt:
        print("interrupted; the same command uses what was finished", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.unraisablehook = _send_again
    status = _main()
    if status == INTERRUPTED:
        # Keras's threads that prepare batches are waited for at a normal exit, at times for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
