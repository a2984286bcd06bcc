"""The door to every executor: one word, or one environment variable, chooses it.

Role: turn a word (``"threads"``), an address (``"tcp://host:8786"``) or the variable
``DASKEXEC_EXECUTOR`` into a ready ``concurrent.futures.Executor``; and the executor that
is no pool at all, :class:`SerialExecutor`. Floor 9: it knows `daskexec.executor` (imported
only when Dask is asked for), and nothing above.

Everything here runs in the caller's thread.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import operator
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

__all__ = ["ENVIRONMENT_VARIABLE", "SerialExecutor", "get_executor", "resolve_executor"]

P = ParamSpec("P")
T = TypeVar("T")

ENVIRONMENT_VARIABLE = "DASKEXEC_EXECUTOR"
"""Names the executor when the caller names none."""

_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "inproc")
_PORTLESS = ("inproc",)
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)")
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})/?")


class SerialExecutor(Executor):
    """Runs each call at once, in the thread that submits it.

    The whole contract of ``concurrent.futures.Executor`` without any concurrency: the
    executor for debugging (breakpoints work, tracebacks are whole) and the yardstick that
    the parallel executors must agree with.

    Parameters
    ----------
    max_workers
        Checked like the pools' own and otherwise ignored, so that the class can stand
        wherever a pool stands.

    Notes
    -----
    `submit` returns a future that is already done. What the call raises, including
    ``KeyboardInterrupt`` and ``SystemExit``, is kept on the future and raised by its
    ``result()``. Several threads may submit; each runs its own calls, at the same time.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        _check_max_workers(max_workers)
        self._lock = threading.Lock()  # guards _closed
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` now and return its finished future."""
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Run ``fn`` over the zipped iterables, before returning, as the pools' ``map`` does.

        Parameters
        ----------
        fn, *iterables
            As for the built-in ``map``.
        timeout
            Seconds. Never exceeded: each result is ready before it is asked for.
        chunksize
            Checked, and otherwise ignored: there is no message to share.
        buffersize
            At most so many calls run ahead of the results asked for; ``None``: all of
            them. Works on every Python, not only from 3.14 on.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        waiting = zip(*iterables)  # noqa: B905 - the shortest ends it, as for every map
        ahead = deque(self.submit(fn, *args) for args in itertools.islice(waiting, buffersize))

        def results() -> Iterator[T]:
            while ahead:
                ahead.extend(self.submit(fn, *args) for args in itertools.islice(waiting, 1))
                yield ahead.popleft().result()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further calls. Nothing is ever left to wait for or to cancel."""
        with self._lock:
            self._closed = True


def get_executor(
    spec: str | None = None, max_workers: int | None = None, **options: Any
) -> Executor:
    """Build the executor that a word, an address or the environment names.

    Parameters
    ----------
    spec
        - ``"serial"``: :class:`SerialExecutor`, no concurrency at all;
        - ``"threads"``: the stdlib's ``ThreadPoolExecutor``;
        - ``"processes"``: the stdlib's ``ProcessPoolExecutor``;
        - ``"dask"``: ``DaskExecutor`` on a cluster of its own on this machine;
        - ``"tcp://host:port"``, ``"tls://host:port"`` or ``"host:port"``: ``DaskExecutor``
          on the running scheduler at that address.

        ``None``: what the environment variable ``DASKEXEC_EXECUTOR`` says, or ``"dask"``
        where that is unset or empty.
    max_workers
        Most calls running at a time; ``None``: the executor's own default.
    **options
        Passed to the executor's constructor.

    Returns
    -------
    concurrent.futures.Executor
        To be used in a ``with`` statement, or shut down by the caller.

    Raises
    ------
    ValueError
        For a `spec` that names nothing (with the closest names), or `max_workers` below 1.
    TypeError
        For an option that the executor does not know, or arguments of a wrong type.
        All is checked before anything is started.

    Examples
    --------
    >>> with get_executor("serial") as executor:
    ...     executor.submit(pow, 2, 10).result()
    1024
    """
    return resolve_executor(spec, max_workers, **options)()


def resolve_executor(
    spec: str | None = None, max_workers: int | None = None, **options: Any
) -> functools.partial[Executor]:
    """Check all that :func:`get_executor` checks, start nothing, return what starts it.

    For programs that want to refuse a wrong word at once but start a cluster only when
    there is work for it. Parameters and errors are those of :func:`get_executor`; the
    ``func`` of what is returned is the executor's class.
    """
    origin = ""
    if spec is None:
        spec = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
        origin = f" (from the environment variable {ENVIRONMENT_VARIABLE})" if spec else ""
        spec = spec or "dask"
    if not isinstance(spec, str):
        raise TypeError(f"an executor is named by a str, not by {type(spec).__name__}: {spec!r}")
    _check_max_workers(max_workers)
    factory, fixed = _find(spec.strip(), origin)
    _check_options(factory, fixed, options, spec)
    return functools.partial(factory, max_workers=max_workers, **fixed, **options)


# -- by kind: each takes the word and answers a factory with the arguments it fixes --------

_Found = tuple[Callable[..., Executor], dict[str, Any]]


def _find(spec: str, origin: str) -> _Found:
    """Ask each kind in turn; the first that knows `spec` answers."""
    for kind in (_named, _addressed, _configured):
        found = kind(spec, origin)
        if found is not None:
            return found
    names = ", ".join(repr(name) for name in _NAMED)
    close = difflib.get_close_matches(spec.lower(), _NAMED, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(
        f"no executor is called {spec!r}{origin}.{hint} "
        f"There are {names}, and the address of a Dask scheduler such as 'tcp://host:8786'."
    )


def _named(spec: str, origin: str) -> _Found | None:
    load = _NAMED.get(spec)
    return None if load is None else (load(), {})


def _addressed(spec: str, origin: str) -> _Found | None:
    url = _URL.fullmatch(spec)
    scheme, rest = (url["scheme"].lower(), url["rest"]) if url else ("tcp", spec)
    if url and scheme not in _SCHEMES:
        raise ValueError(
            f"{spec!r}{origin}: Dask has no {scheme}:// addresses; "
            "a scheduler's address looks like 'tcp://host:8786' or 'tls://host:8786'."
        )
    if scheme not in _PORTLESS:
        match = _HOST_PORT.fullmatch(rest)
        if match is None or int(match["port"]) > 65535:
            if url is None and match is None:
                return None
            raise ValueError(
                f"{spec!r}{origin} is no complete address: host and port (0 to 65535) are "
                "needed, such as 'tcp://host:8786'."
            )
    return _load_dask(), {"cluster": f"{scheme}://{rest}"}


def _configured(spec: str, origin: str) -> _Found | None:
    from daskexec.config import find_config, load_config

    return (_load_dask(), {"cluster": load_config(spec)}) if find_config(spec) else None


def _load_dask() -> Callable[..., Executor]:
    from daskexec.executor import DaskExecutor  # imports distributed: only when asked for

    factory: Callable[..., Executor] = DaskExecutor
    return factory


def _load_threads() -> Callable[..., Executor]:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor


def _load_processes() -> Callable[..., Executor]:
    from concurrent.futures import ProcessPoolExecutor  # imports multiprocessing

    return ProcessPoolExecutor


_NAMED: dict[str, Callable[[], Callable[..., Executor]]] = {
    "serial": lambda: SerialExecutor,
    "threads": _load_threads,
    "processes": _load_processes,
    "dask": _load_dask,
}


# -- checks ---------------------------------------------------------------------------------


def _check_max_workers(max_workers: int | None) -> None:
    if max_workers is None:
        return
    try:
        number = operator.index(max_workers)
    except TypeError:
        kind = type(max_workers).__name__
        raise TypeError(f"max_workers must be an int or None, not {kind}") from None
    if number <= 0:
        raise ValueError("max_workers must be greater than 0")


def _check_options(
    factory: Callable[..., Executor], fixed: dict[str, Any], options: dict[str, Any], spec: str
) -> None:
    # Only named parameters count: from Python 3.14 on ThreadPoolExecutor also takes
    # **ctxkwargs, which it would only trip over later.
    parameters = inspect.signature(factory).parameters.values()
    known = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "max_workers"
    ]
    name = getattr(factory, "__name__", repr(factory))
    for option in options:
        if option in fixed:
            raise TypeError(f"{name}: the option {option!r} is already given by {spec!r}")
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{name} ({spec!r}) has no option {option!r}{hint}")
