"""Name lookups that end at a deadline.

``getaddrinfo`` has no timeout and cannot be stopped. So each lookup runs in a daemon thread, and
the caller leaves the thread behind at the deadline. The thread ends by itself when the system
resolver gives up (``RES_OPTIONS="timeout:1 attempts:2"`` makes that 2 seconds for each name
server). It holds no request state, and its late result is dropped. If Lambda freezes the
environment, the thread may end during a later request.

At most ``MAX_LOOKUPS`` threads exist at once. Further lookups wait for a place, within their own
deadline.
"""

from __future__ import annotations

import functools
import queue
import socket
import threading
from typing import TYPE_CHECKING

from lambda_function.errors import FetchError
from lambda_function.fetching.errors import too_slow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lambda_function.fetching.deadline import Deadline

    Resolve = Callable[[str], Sequence[str]]

MAX_LOOKUPS = 64  # at once, lookups that were left behind included


def resolve_host(name: str) -> list[str]:
    """Ask the system resolver for a name's addresses.

    Blocks for as long as the system resolver does.

    Args:
        name: in ASCII.

    Returns:
        Addresses as text, in the order in which to try them.

    Raises:
        OSError: the name has no addresses, or the resolver failed.
    """
    infos = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in infos))


def start_thread(run: Callable[[], None]) -> None:
    """Run a function in a daemon thread.

    Raises:
        RuntimeError: the system starts no more threads.
    """
    threading.Thread(target=run, name="lookup", daemon=True).start()


class LookupPool:
    """Runs lookups in threads, at most ``max_lookups`` at once."""

    def __init__(
        self,
        max_lookups: int = MAX_LOOKUPS,
        *,
        start: Callable[[Callable[[], None]], None] = start_thread,
    ) -> None:
        """Make an empty pool.

        Args:
            max_lookups: threads at once.
            start: runs a function in a thread.
        """
        self._slots = threading.BoundedSemaphore(max_lookups)
        self._start = start

    def resolve(self, name: str, resolve: Resolve, deadline: Deadline) -> Sequence[str]:
        """Look up a name's addresses.

        Args:
            name: of the host.
            resolve: name to addresses. No addresses and an OSError mean the same.
            deadline: of the fetch.

        Returns:
            The addresses. Empty if the name has none.

        Raises:
            DeadlineError: the result did not arrive in time.
            FetchError: no thread could be started.
        """
        if not self._slots.acquire(timeout=deadline.remaining_s()):
            raise too_slow()
        results: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
        try:
            self._start(functools.partial(self._run, name, resolve, results))
        except (RuntimeError, MemoryError) as error:
            self._slots.release()
            raise FetchError(
                "The name of the image's server could not be looked up just now. Try again."
            ) from error
        try:
            return results.get(timeout=deadline.remaining_s())
        except queue.Empty:
            raise too_slow() from None

    def _run(self, name: str, resolve: Resolve, results: queue.SimpleQueue[Sequence[str]]) -> None:
        addresses: Sequence[str] = []
        try:
            addresses = resolve(name)
        except (OSError, UnicodeError):
            pass
        finally:
            self._slots.release()
        results.put(addresses)
