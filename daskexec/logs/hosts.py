"""Names of hosts, looked up beside the work, in a limited time.

Role: `host_name` asks for one name, and `Resolver` is the executor that asks: threads of the
client, which sees the name servers that its user sees. Floor 10, part of the log job.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError
from typing import Any

__all__ = ["Resolver", "host_name"]


def host_name(client: bytes) -> str | None:
    """The name of the host with an address; None where it has none, or `client` is none."""
    try:
        address = str(ipaddress.ip_address(client.decode("ascii")))
        return socket.gethostbyaddr(address)[0]
    except (OSError, ValueError):
        return None


class Resolver(Executor):
    """A thread a call, and None for what has no result in time.

    The stdlib's thread pool would be waited for at the end of the program, and a name server that
    does not answer keeps a thread for half a minute. These threads are left behind.

    Parameters
    ----------
    seconds
        From the first call on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()  # guards the two below
        self._open: list[Future[Any]] = []
        self._timer: threading.Timer | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn(*args, **kwargs)`` in a thread of its own."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            self._open.append(future)
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self._give_up)
                self._timer.daemon = True
                self._timer.start()

        def call() -> None:
            try:
                result = fn(*args, **kwargs)
            except Exception as error:
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(error)
            else:
                with contextlib.suppress(InvalidStateError):
                    future.set_result(result)

        threading.Thread(target=call, name="daskexec-host-name", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Answer None for what has no result yet."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._give_up()

    def _give_up(self) -> None:
        with self._lock:
            late, self._open = self._open, []
        for future in late:
            with contextlib.suppress(InvalidStateError):
                future.set_result(None)
