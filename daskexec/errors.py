"""The errors of daskexec. Floor 0.

::

    Exception
    ├── BrokenExecutor                       (concurrent.futures)
    │   ├── BrokenProcessPool                (concurrent.futures.process)
    │   │   ├── WorkerDied                   one call: its worker process ended under it
    │   │   └── InitializerFailed            the executor: its initializer raised
    │   └── SchedulerLost                    the executor: its cluster cannot be reached any more
    ├── TimeoutError
    │   └── CallTimedOut                     one call: it took longer than its ``timeout`` option
    ├── ConnectionError
    │   ├── ClusterUnreachable               nobody answered at the address, or not in TLS
    │   └── InsecureConnection               plaintext to another machine was not asked for
    ├── ValueError
    │   ├── ConfigError                      a cluster config that cannot be right
    │   └── GraphError                       a graph of properties that cannot be computed
    │       └── GraphCycle                   properties that need themselves; a graphlib.CycleError
    ├── RuntimeError
    │   ├── ClusterStartFailed               a cluster could not be started: what the queue said
    │   │   └── PackageMissing               as a package is not installed; a ModuleNotFoundError
    │   ├── Detached                         the call runs on, with a cluster that was left
    │   └── NotFetched                       a large value that nobody asked for in time
    ├── RemoteError                          an exception that cannot be rebuilt in this process
    └── RemoteTraceback                      the ``__cause__`` of an exception from a worker
    Warning
    └── UserWarning
        └── ExecutorWarning                  what the user should know: what is waited for, ...

``WorkerDied`` and ``InitializerFailed`` are ``BrokenProcessPool`` so that code which catches
what ``ProcessPoolExecutor`` raises catches them too. Unlike there, ``WorkerDied`` is the end
of one call only: the executor goes on.
"""

from __future__ import annotations

import concurrent.futures
import sys
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from graphlib import CycleError
from typing import Any

__all__ = [
    "CallTimedOut",
    "ClusterStartFailed",
    "ClusterUnreachable",
    "ConfigError",
    "Detached",
    "ExecutorWarning",
    "GraphCycle",
    "GraphError",
    "InitializerFailed",
    "InsecureConnection",
    "NotFetched",
    "PackageMissing",
    "RemoteError",
    "RemoteTraceback",
    "SchedulerLost",
    "WorkerDied",
]


class WorkerDied(BrokenProcessPool):
    """The worker process that ran the call ended before the call did.

    It crashed (segmentation fault, ``os._exit``), was killed (out of memory, ``kill``), or
    was lost with its host. The call has begun, so it may have had effects; it was not run
    again. Other calls are not affected and the executor stays usable.

    Attributes
    ----------
    function : str
        Name of the function that was called.
    worker : str
        Name or address of the worker, "" where it is not known.
    host : str
        Host of the worker, "" where it is not known.
    reason : str
        What is known of the end of the process, such as "killed by SIGKILL".
    attempts : int
        How many times the call was begun.
    """

    def __init__(
        self, function: str, worker: str = "", host: str = "", reason: str = "", attempts: int = 1
    ) -> None:
        self.function, self.worker, self.host = function, worker, host
        self.reason, self.attempts = reason, attempts
        where = f"worker {worker or '(unknown)'}" + (f" on host {host}" if host else "")
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(
            f"the call of {function}() ended with its worker process: {where}"
            f"{': ' + reason if reason else ''} (the call was begun {times}). "
            f"Other calls are not affected."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            type(self),
            (self.function, self.worker, self.host, self.reason, self.attempts),
        )


if sys.version_info >= (3, 11):
    _TimeoutError = TimeoutError
else:  # two classes: caught as either

    class _TimeoutError(concurrent.futures.TimeoutError, TimeoutError):
        pass


class CallTimedOut(_TimeoutError):
    """The call took longer than its ``timeout`` option allows, and was killed.

    A ``TimeoutError``, and on Python 3.10, where that is another class, a
    ``concurrent.futures.TimeoutError`` as well. The call has begun, so it may have had effects; it
    is not run again. Other calls are not affected and the executor stays usable.

    Attributes
    ----------
    function : str
        Name of the function that was called.
    timeout : float
        Seconds that the call was allowed.
    worker : str
        Name or address of the worker, "" where it is not known.
    host : str
        Host of the worker, "" where it is not known.
    """

    def __init__(self, function: str, timeout: float, worker: str = "", host: str = "") -> None:
        self.function, self.timeout, self.worker, self.host = function, timeout, worker, host
        where = f"worker {worker or '(unknown)'}" + (f" on host {host}" if host else "")
        super().__init__(
            f"the call of {function}() was not over {timeout:g} s after {where} had begun it: "
            f"that is its limit, by with_options(timeout={timeout:g}). It was killed, and other "
            f"calls are not affected."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.timeout, self.worker, self.host)


class InitializerFailed(BrokenProcessPool):
    """The executor's ``initializer`` raised on a worker; the executor is broken.

    The initializer's own exception is the ``__cause__``.
    """


class SchedulerLost(BrokenExecutor):
    """The executor lost its cluster: scheduler gone or restarted, client or cluster closed."""


class ClusterUnreachable(ConnectionError):
    """No scheduler answered at the given address within the time allowed.

    Or one did, and the two could not agree on TLS: the message says on what.
    """


class InsecureConnection(ConnectionError):
    """The address is another machine's and not encrypted, and ``insecure`` was not given.

    Nothing was sent. Connect to a scheduler with TLS, or say ``insecure=True``.
    """


class ConfigError(ValueError):
    """A cluster config cannot be right; the message says where, what, and what to do.

    Attributes
    ----------
    source : str
        Path of the file, or what else the config came from.
    """

    def __init__(self, message: str, source: str = "") -> None:
        self.source = source
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.source)


class ClusterStartFailed(RuntimeError):
    """A cluster could not be started; the message has the queue's, or the host's, own words."""


class PackageMissing(ClusterStartFailed, ModuleNotFoundError):
    """A kind of cluster needs a package that is not installed; the message says which, and how.

    Attributes
    ----------
    name : str
        Of the package, as it is imported.
    """

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.name)


class Detached(RuntimeError):
    """The executor was left: the call runs on, and what it comes to is had by attaching.

    Attributes
    ----------
    cluster : str
        The name that it was left by: ``DaskExecutor.attach(cluster)``.
    name : str, int or None
        What the call is asked for by: ``.futures[name]``; None where that is not known.
    """

    def __init__(self, cluster: str, name: str | int | None = None) -> None:
        self.cluster, self.name = cluster, name
        what = "this executor was detached" if name is None else "the call runs on, detached"
        futures = "futures" if name is None else f"futures[{name!r}]"
        super().__init__(
            f"{what}: DaskExecutor.attach({cluster!r}).{futures} has what comes of it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cluster, self.name)


class NotFetched(RuntimeError):
    """The value of a call stayed with the workers, for other calls, and went with the executor.

    Attributes
    ----------
    key : str
        Of the call's future.
    size : int
        Bytes that the value took.
    """

    def __init__(self, key: str, size: int) -> None:
        self.key, self.size = key, size
        super().__init__(
            f"the value of {key} ({size / (1 << 20):,.1f} MiB) was used by other calls, nobody "
            f"asked for it before the executor was shut down, and it was left with the workers. "
            f"Ask for it before that: by its result(), or wait() for it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.size)


class GraphError(ValueError):
    """A graph of properties cannot be computed as asked; nothing was submitted.

    Attributes
    ----------
    path : tuple of str
        From the property asked for to what is missing, each needing the next; empty where
        the error has no path.
    """

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        self.path = path
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.path)


class GraphCycle(GraphError, CycleError):
    """Properties need themselves.

    A ``graphlib.CycleError``: ``args[1]`` is the list of names around the circle, the first
    being the last, each needed by the next.
    """

    def __init__(self, message: str, circle: list[str]) -> None:
        super().__init__(message, tuple(reversed(circle)))
        self.args = (message, circle)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class RemoteError(Exception):
    """Stands for an exception of a call whose own type could not be rebuilt here.

    Attributes
    ----------
    type_name : str
        Qualified name of the original type, such as ``"mypackage.errors.Broken"``.
    message : str
        ``str()`` of the original exception.
    """

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name, self.message = type_name, message
        super().__init__(f"{type_name}: {message}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.type_name, self.message)


class RemoteTraceback(Exception):
    """The traceback of a call, as text, from the worker where it was raised.

    It is the ``__cause__`` of the exception that a future raises, so that a printed
    traceback shows the frames of the worker first.
    """

    def __init__(self, tb: str) -> None:
        self.tb = tb
        super().__init__(tb)

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tb,)


class ExecutorWarning(UserWarning):
    """Something that its user should know: what the executor waits for, or what a config risks."""
