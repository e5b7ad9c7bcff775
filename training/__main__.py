"""`python -m training COMMAND`: from images to a scored model. `--help` lists the commands.

Each command is a module with two functions:

    add_arguments(parser)    adds the command's options to its ``argparse.ArgumentParser``
    run(parsed)              does the work. A ``TrainingError`` becomes one line and status 2

``commands.COMMANDS`` maps each command to its module. Only the module of the chosen command is
imported, so each module imports what it needs at its top. To add a command, write the module and
add one line to the table. An interrupt ends a command with one line and status 130.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before Keras: no start-up chatter
INTERRUPT_DELAY_S = 0.05
INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Send an interrupt again that a finaliser swallowed."""
    main_thread = threading.main_thread().ident
    if issubclass(unraisable.exc_type, KeyboardInterrupt) and main_thread is not None:
        timer = threading.Timer(
            INTERRUPT_DELAY_S, signal.pthread_kill, (main_thread, signal.SIGINT)
        )
        timer.start()
    else:
        sys.__unraisablehook__(unraisable)


def _main() -> int:
    try:
        from training.commands import main  # takes time, in which an interrupt may come

        return main()
    except KeyboardInterrupt:
        print("interrupted; the same command uses what was finished", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.unraisablehook = _send_again
    status = _main()
    if status == INTERRUPTED:
        # A normal exit waits for Keras's batch threads. Sometimes they never end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
