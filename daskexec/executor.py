"""DaskExecutor: the public face. Floor 8.

The stdlib's interface, checked arguments, and nothing else: the work is the dispatcher's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, TypeVar, overload

# The dispatcher and what it needs are imported when the first executor is made: the process
# that starts the workers, which a first result waits for, is started before.
from daskexec import clusters
from daskexec._batching import BatchPolicy, Sharing
from daskexec._checks import check_chunksize, check_count, check_seconds
from daskexec.futures import DaskFuture, Promise
from daskexec.options import CallOptions

if TYPE_CHECKING:
    from daskexec._kept import KeptCluster
    from daskexec._left import KeptCalls

__all__ = ["DaskExecutor"]

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

_DEFAULTS = CallOptions()

# Seconds of work for each worker thread that may wait on the scheduler. A cluster that was given
# may be adaptive: Dask lets it grow when there are over 5 s of work for each thread.
_AHEAD = 0.5
_AHEAD_SHARED = 6.0

# These two let no thread start once the main one has ended, though others still have work to
# do (python/cpython#113964): there the constructor waits for the cluster.
_NO_THREADS_AT_EXIT = (3, 12, 0) <= sys.version_info[:3] <= (3, 12, 1)


class DaskExecutor(Executor):
    """A ``concurrent.futures.Executor`` whose workers are a Dask cluster.

    Takes what ``ProcessPoolExecutor`` takes, in the same order, and behaves as it does, as
    the stdlib's documentation of ``concurrent.futures`` says.

    Parameters
    ----------
    max_workers : int, optional
        Worker processes to start; the number of usable cores when None. On a cluster that is
        given: most calls to have there at a time; no limit when None.
    mp_context : multiprocessing context, optional
        Taken so that calls written for ``ProcessPoolExecutor`` work, and checked. Workers
        are always fresh processes, as with ``"spawn"``: they inherit nothing.
    initializer : callable, optional
        Run once in each worker process before its first call, also on workers that join
        later or replace one that died. If it raises, the executor is broken.
    initargs : tuple
        Its arguments.
    max_tasks_per_child : int, optional
        Calls after which a worker process is replaced by a fresh one. Own clusters only.
    cluster : str, path, ClusterConfig, distributed.Client or Dask cluster, optional
        Where to run: the address of a scheduler (``"tcp://host:8786"``); the name or the file
        of a cluster config (``"slurm"``, ``"mysite.yaml"``), which is started, and ended with
        the executor; a connected client, or a cluster object such as ``LocalCluster`` or
        ``SLURMCluster``, which `shutdown` does not close. When None, a cluster of processes on
        this machine is started in the background, listens on 127.0.0.1 only, and ends with the
        executor.
    threads_per_worker : int
        Calls that a worker process of an own cluster runs at the same time.
    memory_limit : int or str, optional
        For each worker process of an own cluster: Dask spills and pauses near it, and a process
        that uses 95 % of it (``distributed.worker.memory.terminate``) is ended; its call fails.
    dashboard : bool
        Serve Dask's dashboard on http://127.0.0.1:8787. Own clusters only; needs bokeh.
    connect_timeout : float
        Seconds in which the scheduler at an address must answer.
    insecure : bool
        Speak plaintext with a scheduler on another machine (``"tcp://host:8786"``), which is
        refused otherwise, or have a config's cluster do without TLS.
    secure : bool
        Have the connections of an own cluster speak TLS, with certificates made for it that
        stay in the memory of its processes: other users of this machine can then neither connect
        nor listen. Needs cryptography.
    sharing : {"auto", "always", "never"}
        Whether small calls share Dask tasks, which makes them fast: when their run time is
        known to be short, two by two before that as well, or not at all. With "never" each
        call is a task of its own on Dask's dashboard.
    worker_timeout : float, optional
        Seconds without any worker after which waiting calls fail with ``BrokenExecutor``.
        When None they wait on, and a warning says so.
    warn_after : float
        Seconds after which an `ExecutorWarning` says that calls wait in vain, and for what: for
        workers, for a resource that nobody has, or since the scheduler or a worker is silent.
        More follow at twice the interval each, an hour at most.

    Raises
    ------
    ClusterUnreachable
        Nobody answered at the address, or not in TLS. A ``ConnectionError``.
    InsecureConnection
        It would be plaintext to another machine. A ``ConnectionError``.
    TypeError, ValueError, ModuleNotFoundError
        An argument that cannot be right, or lacks what it needs; nothing was started.

    Notes
    -----
    Limits: at most 65,536 Dask tasks are with the scheduler at a time; the backlog stays on the
    client and is limited by memory only, a few hundred bytes a call.

    Every method may be called from any thread. The constructor returns at once where it
    starts a cluster of its own; calls can be submitted while that comes up.
    """

    #: Futures among the arguments of calls stand for their values, and need not be done: what
    #: submits to any executor, such as `Graph`, may look for this. It then says
    #: ``with_options(remote=True)`` of calls whose values only other calls are to need.
    takes_futures: ClassVar[bool] = True

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        cluster: Any = None,
        threads_per_worker: int = 1,
        memory_limit: int | str | None = None,
        dashboard: bool = False,
        connect_timeout: float = clusters.CONNECT_TIMEOUT,
        worker_timeout: float | None = None,
        warn_after: float = 5.0,
        sharing: Sharing = "auto",
        insecure: bool = False,
        secure: bool = False,
    ) -> None:
        check_count("max_workers", max_workers)
        check_count("max_tasks_per_child", max_tasks_per_child)
        check_count("threads_per_worker", threads_per_worker)
        check_seconds("warn_after", warn_after)
        _check_context(mp_context)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        cluster = clusters.resolve(cluster)
        if dashboard and importlib.util.find_spec("bokeh") is None:
            raise ModuleNotFoundError(
                "dashboard=True needs bokeh: pip install 'daskexec[dashboard]'", name="bokeh"
            )
        if secure and importlib.util.find_spec("cryptography") is None:
            raise ModuleNotFoundError(
                "secure=True needs cryptography: pip install 'daskexec[tls]'", name="cryptography"
            )
        own = {
            "threads_per_worker": (threads_per_worker, 1),
            "memory_limit": (memory_limit, None),
            "dashboard": (dashboard, False),
            "secure": (secure, False),
        }
        if cluster is not None:
            own["max_tasks_per_child"] = (max_tasks_per_child, None)
            for name, (value, default) in own.items():
                if value != default:
                    raise ValueError(
                        f"{name} is for workers that this executor starts itself; with "
                        f"cluster=... set it where the cluster is started"
                    )
        self._futures: dict[Any, DaskFuture[Any]] = {}
        self._kept: KeptCluster | None = None
        self._calls: KeptCalls | None = None
        blob = None
        if initializer is not None:
            from daskexec._pickling import dump

            blob = dump((initializer, tuple(initargs)))
        self._id = os.urandom(10).hex()
        self._options = _DEFAULTS
        self._base: DaskExecutor | None = None  # of a view: keeps it from being collected
        # A worker process that is to end after some calls is not given many at a time.
        policy = BatchPolicy(
            "never" if max_tasks_per_child else sharing,
            ahead=_AHEAD if cluster is None else _AHEAD_SHARED,
            limit=None if cluster is None else max_workers,
        )
        if cluster is None:
            self._max_workers = max_workers or _usable_cores()
            options = {name: value for name, (value, _) in own.items()}
            connect = clusters.own(self._id, self._max_workers, options)
            self._client: Any = None
        elif isinstance(cluster, clusters.Ended):
            self._max_workers, self._client = max_workers or 1, None
            connect = cluster.connect
        else:
            opened = clusters.open_client(cluster, connect_timeout, max_workers, insecure)
            self._client, self._kept = opened.client, opened.kept
            self._max_workers = max_workers or max(1, clusters.threads_of(opened.client))
            connect = clusters.shared(self._id, opened)
            if worker_timeout is None:
                worker_timeout = opened.start_timeout

        from daskexec._dispatcher import Dispatcher
        from daskexec._patience import Patience

        self._dispatcher = Dispatcher(
            connect,
            self._id,
            policy,
            initializer=blob,
            max_calls=max_tasks_per_child or 0,
            width=self._max_workers,
            patience=Patience(warn_after, worker_timeout),
        )
        if _NO_THREADS_AT_EXIT:
            self._dispatcher.line()  # a cluster that starts needs threads
        # Calls that are pending when the last reference goes are finished, as by a pool.
        finalizer = weakref.finalize(self, self._dispatcher.shutdown, wait=False)
        finalizer.atexit = False

    # Type checkers take the first that fits: the stdlib's, then those with futures in the place
    # of positional arguments.
    @overload
    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> DaskFuture[T]: ...

    @overload
    def submit(self, fn: Callable[[A], T], a: A | Promise[A], /) -> DaskFuture[T]: ...

    @overload
    def submit(
        self, fn: Callable[[A, B], T], a: A | Promise[A], b: B | Promise[B], /
    ) -> DaskFuture[T]: ...

    @overload
    def submit(
        self,
        fn: Callable[[A, B, C], T],
        a: A | Promise[A],
        b: B | Promise[B],
        c: C | Promise[C],
        /,
    ) -> DaskFuture[T]: ...

    @overload
    def submit(
        self,
        fn: Callable[[A, B, C, D], T],
        a: A | Promise[A],
        b: B | Promise[B],
        c: C | Promise[C],
        d: D | Promise[D],
        /,
    ) -> DaskFuture[T]: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> DaskFuture[Any]:
        """Have ``fn(*args, **kwargs)`` run by a worker.

        Parameters
        ----------
        fn : callable
            Anything that ``pickle`` or ``cloudpickle`` can carry: lambdas, closures and
            functions of ``__main__`` too.
        *args, **kwargs
            Its arguments, all of them: no keyword is taken from them. Futures among them,
            of this or any other executor and at any depth, stand for their values: the call
            starts when they are done. It fails with what the first of them to fail raised,
            and a note that names the calls; it is cancelled if one of them is.

        Returns
        -------
        DaskFuture

        Raises
        ------
        TypeError
            `fn` is not callable.
        RuntimeError
            After `shutdown`, or in a forked child.
        BrokenExecutor
            The cluster was lost or the initializer failed.

        Notes
        -----
        What cannot be pickled fails the future, not this method. Within a call that runs on
        a worker, submitting gives the worker's thread back for other calls.

        A type checker takes a future of an int where `fn` takes an int, as one of up to four
        positional arguments. As a keyword argument, or within a list, it takes
        ``typing.cast(int, future)``.
        A future of this executor that becomes an argument before it is done is not fetched:
        its value, if it takes over 4 kB, stays with the workers for the calls that need it,
        each of which has an object of its own. The future is done when the value is here,
        which anything that looks at it asks for: ``result``, ``exception``, ``done``, ``wait``,
        ``as_completed``, a callback, ``await``. (``is_remote`` and ``add_run_callback`` do not.)
        When it is dropped and no call needs the value, the workers let go of it; if they lose
        it before, its call is run again, three times at most. At ``shutdown`` values below
        1 MiB whose futures are still referenced are fetched; a larger one that nobody has
        asked for by then is not, and its future raises ``NotFetched``. (With
        ``max_tasks_per_child`` values do pass through this process, as bytes: workers that
        are replaced cannot keep them.)
        """
        if not callable(fn):
            raise TypeError(f"submit() takes a callable first, not {type(fn).__name__}")
        return self._dispatcher.submit(fn, args, kwargs, self._options)

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        errors: Literal["raise"] = "raise",
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        errors: Literal["return"],
    ) -> Iterator[T | BaseException]: ...

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Any]:
        """Yield ``fn(*items)`` for the items of the iterables taken in step.

        Parameters
        ----------
        fn : callable
            Takes as many arguments as there are iterables.
        *iterables
            May be of any kind, with or without a length, with `buffersize` also endless. The
            shortest one ends it.
        timeout : float, optional
            Seconds from the call of ``map`` in which a result must be there when it is
            asked for.
        chunksize : int, optional
            Items that are to stay together: one worker runs them one after the other. When
            None, as many share a task as make it worth its cost, from their measured run
            times, and slow ones do not hold up others.
        buffersize : int, optional
            Most items that are taken from the iterables and whose results are not yet
            yielded, as in Python 3.14. When None all are taken at once, as ever.
        ordered : bool
            Yield results in the order of the items; else in the order in which they come.
        errors : {"raise", "return"}
            What to do with what a call raised: raise it, in its turn, which ends the
            iteration; or yield the exception in the result's place, and go on.

        Raises
        ------
        TimeoutError
            When a result is asked for and not there in time.
        ValueError, TypeError
            An argument that cannot be right; nothing was submitted.

        Notes
        -----
        When the iterator is closed, dropped or raises, what has not begun is cancelled. It is
        for one thread at a time.
        """
        if not callable(fn):
            raise TypeError(f"map() takes a callable first, not {type(fn).__name__}")
        check_chunksize(chunksize, buffersize)
        if errors not in ("raise", "return"):
            raise ValueError(f"errors must be 'raise' or 'return', not {errors!r}")
        self._dispatcher.check_open()
        deadline = None if timeout is None else monotonic() + timeout

        from daskexec._mapping import MapJob

        job = MapJob(
            self._dispatcher,
            fn,
            iterables,
            self._options,
            chunk=chunksize,
            buffersize=buffersize,
        )
        return job.results(ordered, errors, deadline, self)

    def stats(self) -> dict[str, Any]:
        """Return where the calls are, and how many of them share a task, and why.

        Returns
        -------
        dict
            ``threads`` (of the workers), ``pending`` (calls that are not done), ``queued``
            (those of them that wait on the client), ``tasks_sent`` (Dask tasks that are with
            the scheduler), ``calls`` and ``tasks`` (finished, and sent, since the start),
            ``sharing``, and ``functions``: for each its ``name``, ``calls``, ``tasks``,
            ``mean_seconds`` (None until one has run), ``share`` (calls that its last task was
            to carry), ``argument_bytes`` and ``result_bytes`` (means of a call).

        Notes
        -----
        For people and logs; what is in it may change between versions.
        """
        return self._dispatcher.stats()

    def with_options(self, **options: Any) -> DaskExecutor:
        """Return a view of this executor whose calls run with other options.

        Parameters
        ----------
        name : str, optional
            What the dashboard shows for the calls.
        priority : int
            Calls with a higher one start first.
        retries : int
            How often a call is run again after it raised or its worker died.
        resources : mapping of str to float, optional
            What a worker must offer, such as ``{"GPU": 1}``. While no worker does, a warning
            says so, every few seconds at first.
        workers : list of str, optional
            The only workers that may run the calls: addresses, names or hosts.
        capture_output : bool
            Bring what a call writes to ``sys.stdout`` and ``sys.stderr``, and what it logs, to
            ``future.output``. Each call has a task of its own then. ``map`` gives no futures:
            there it has no effect.
        timeout : float, optional
            Seconds that a call may take from the moment a worker begins it; time in a queue
            does not count. Then its future fails with `CallTimedOut`, a ``TimeoutError``,
            though the call sleeps in C code or holds the GIL, and its worker process is killed
            as soon as nothing else runs in it: no other call is lost, or run twice. A call
            that has timed out is not run again, whatever `retries` says.
        after : Future or iterable of Future, optional
            Of any executor: the calls start when these are done. Their values are not
            passed on. If one has failed, the calls fail with its exception; if one was
            cancelled, they are cancelled.
        rerun : bool, optional
            Whether a call that a worker had begun may be run again after that worker died.
            False: never; it fails with `WorkerDied`. True: up to 3 times, and `retries` then
            counts what was raised alone. None: it is not, unless `retries` says so; but on a
            cluster that daskexec did not start, where nobody can be asked what the dead worker
            had begun, calls that may not have begun are tried once more, one by one.
        remote : bool
            Leave the value with the worker that made it until somebody asks for it, as that of
            a future that is an argument of another call: see `DaskFuture.is_remote`. Small ones
            come at once. ``map`` asks for what it yields: there it has no effect.

        Raises
        ------
        TypeError, ValueError
            There is no such option, or its value cannot be right.

        Notes
        -----
        The view shares cluster, workers and limits with this executor; shutting one down
        shuts down both. Options that are left out are those of this executor.
        """
        return self._with(self._options.with_(options))

    def _with(self, options: CallOptions) -> DaskExecutor:
        view = object.__new__(DaskExecutor)
        view.__dict__.update(self.__dict__)
        view._options = options
        view._base = self
        return view

    def upload(self, path: str | os.PathLike[str]) -> list[str]:
        """Bring Python code to the workers, so that calls can import it there.

        Parameters
        ----------
        path : str or path
            A module's file (``helpers.py``), a package's folder, or a zip, egg or wheel with
            modules and packages at its top.

        Returns
        -------
        list of str
            The names that can be imported now, on all workers there are and on those that
            come later, until this executor is shut down.

        Raises
        ------
        FileNotFoundError
            There is nothing at the path.
        ValueError
            There is no Python code in it, or none that could be imported by its name.
        RuntimeError
            A worker could not take it, or the executor is shut down.

        Notes
        -----
        Blocks until all workers have it. Calls submitted after that see the newest version:
        workers forget the modules of these names that they have imported, and import them anew
        when they are asked for; no worker restarts. What was made of an older version stays
        of that: instances, and names that another module took by ``from helpers import f``
        (upload that one, too). Calls that run meanwhile may see either. Workers that are
        threads of this process keep what it has imported.
        """
        from daskexec._code import pack

        bundle = pack(path)
        self._dispatcher.upload(bundle)
        return list(bundle.modules)

    def detach(
        self,
        name: str,
        *,
        futures: Mapping[str, DaskFuture[Any]] | Iterable[DaskFuture[Any]] = (),
        idle_timeout: float | str = "1h",
        keep: float | str = "7d",
    ) -> None:
        """Leave the cluster and all pending calls to run on, and shut this executor down.

        ``DaskExecutor.attach(name)`` gets back both, from any process of the same user on this
        host, after this one has ended too. Until then a process of its own sees to the calls.

        Parameters
        ----------
        name : str
            What to leave it as: letters, digits, ``-``, ``_`` and ``.``.
        futures : mapping or iterable of DaskFuture
            Of this executor, pending or done: ``attach(name).futures`` has them under the same
            names, or as 0, 1, 2 and so on. Pending calls that are not among them run as well,
            and are there as ``function-number``, items of a map as ``function[index]``.
        idle_timeout : float or str
            Seconds, or such as ``"30m"``, that the cluster is kept without work and without
            anybody attached. Then it ends; results stay.
        keep : float or str
            How long results are kept after the last process has left. The cluster ends then
            at the latest, whatever it does. So nothing is left for ever.

        Raises
        ------
        ValueError
            The name cannot be, or is in use; a future is of another executor.
        RuntimeError
            The cluster was not started from a config, so nobody but this process keeps it; or
            calls wait for futures among their arguments. The executor goes on.

        Notes
        -----
        Returns when the other process has everything. The futures of pending calls here then
        raise `Detached`; what cannot be pickled has failed its own. Each call still runs once.
        """
        from daskexec import _detaching

        _detaching.leave(self._dispatcher, self._kept, name, futures, idle_timeout, keep)

    @classmethod
    def attach(cls, name: str) -> DaskExecutor:
        """Return an executor on a cluster that was left by `detach`, and its calls.

        Parameters
        ----------
        name : str
            What it was left as.

        Returns
        -------
        DaskExecutor
            As if it had been made here: `shutdown` waits for all calls, those of `futures`
            too, and ends the cluster; what they came to is then no longer kept. If this
            process ends without that, or by a crash, the cluster and its calls are left as they
            were before, and new calls are lost. `detach` leaves it again. Where the cluster
            has ended, `futures` has the results that were kept, and calls are refused.

        Raises
        ------
        ValueError
            Nothing was left by that name; says which names there are.
        RuntimeError
            Another process has attached it.
        ClusterUnreachable
            It was left on another host, or does not answer.
        """
        from daskexec import _kept, _left

        entry = _kept.look_up(name)
        if entry.ended is not None:
            futures, why = _left.ended_futures(entry)
            executor = cls(cluster=clusters.Ended(why))
            executor._futures = futures
            return executor
        kept = _kept.attach(entry)
        executor = cls(cluster=kept)
        executor._calls = calls = _left.KeptCalls(kept, executor._dispatcher)
        executor._futures = calls.futures
        return executor

    @classmethod
    def current(cls) -> DaskExecutor:
        """Return, within a call, the executor that runs it, for calls of its own.

        Returns
        -------
        DaskExecutor
            One on the same cluster; the same one for all calls of a worker process, and that
            which an executor pickled into its own calls becomes there. It needs no shutdown:
            `shutdown` ends it for the calls of its process, and no other; the next one that asks
            has a new one.

        Raises
        ------
        RuntimeError
            This thread runs no call of a `DaskExecutor`.

        Notes
        -----
        Its calls are those of the executor that runs the call: its initializer has run where
        they run. While a call waits for others its thread runs other calls, so any depth works
        with one thread. What a call leaves pending when it returns finishes, as long as the
        cluster is there.
        """
        from daskexec._pickling import running

        executor = running.within
        if not executor:
            raise RuntimeError(
                "DaskExecutor.current() is for code that a DaskExecutor runs, on the thread of "
                "the call: there it returns the executor, for calls of its own. This thread "
                "runs no such call; elsewhere make one, or pass the one that you have"
            )
        return _within(executor)

    @property
    def futures(self) -> dict[Any, DaskFuture[Any]]:
        """The calls that were left with the cluster, by name; none unless by `attach`."""
        return dict(self._futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end what this executor has started when all are done.

        Parameters
        ----------
        wait : bool
            Return when all calls are done and everything is ended; else at once. Pending
            calls are finished in both cases.
        cancel_futures : bool
            Cancel the calls that have not begun.
        """
        if cancel_futures and self._calls is not None:
            self._calls.cancel_all()
        self._dispatcher.shutdown(wait, cancel_futures)

    def terminate_workers(self) -> None:
        """Give up all calls and end the worker processes with SIGTERM.

        Calls that have not begun are cancelled; others fail with ``BrokenProcessPool``. On a
        cluster that this executor did not start, the processes are left alone and what runs
        there runs on, unheard.
        """
        self._dispatcher.stop_workers(15, "terminate_workers")

    def kill_workers(self) -> None:
        """As `terminate_workers`, with SIGKILL."""
        self._dispatcher.stop_workers(9, "kill_workers")

    @property
    def _broken(self) -> str:
        """As of the stdlib's pools, for code that looks: why it is broken, "" if it is not."""
        return self._dispatcher.broken()

    def __reduce__(self) -> tuple[Any, ...]:
        line = self._dispatcher.line()
        address = line.backend.address
        return _attach, (self._id, address, self._options)

    def __repr__(self) -> str:
        return f"<DaskExecutor max_workers={self._max_workers} {self._dispatcher.state()}>"


# --- within calls --------------------------------------------------------------------------------

_attached: weakref.WeakValueDictionary[str, DaskExecutor] = weakref.WeakValueDictionary()
_lingering: dict[str, tuple[DaskExecutor, float]] = {}  # on workers, and until when
_attach_lock = threading.RLock()  # guards both

#: Seconds that a worker keeps an executor which its calls have used, for the next one.
_LINGER = 30.0


def _attach(executor: str, address: str, options: CallOptions) -> DaskExecutor:
    """Rebuild a pickled executor: on a worker of its cluster, through that worker.

    Certificates do not travel with it: a worker has its own, and any other process connects with
    those of its own Dask configuration.
    """
    from distributed import get_worker

    try:
        worker: Any = get_worker()
    except ValueError:
        worker = None
    from daskexec._pickling import running

    # The address may be another one there; but what runs a call is surely on its cluster.
    same = worker is not None and (
        running.within == executor or worker.scheduler.address == address
    )
    found: DaskExecutor | None
    if same:
        found = _within(executor)
    else:
        with _attach_lock:
            found = _attached.get(executor)
            if found is None or not found._dispatcher.usable():
                # Whether plaintext will do was decided where the executor was made.
                found = _attached[executor] = DaskExecutor(cluster=address, insecure=True)
    return found if options == _DEFAULTS else found._with(options)


def _within(executor: str) -> DaskExecutor:
    """Return the executor for calls of the calls of an executor, in this worker process."""
    from distributed import get_client, get_worker

    from daskexec._remote import EndPlugin, has_initializer
    from daskexec._security import registered

    worker = get_worker()
    with _attach_lock:
        found = _attached.get(executor)
        if found is None or not found._dispatcher.usable():
            for key, (old, _) in list(_lingering.items()):
                if not old._dispatcher.usable():  # its worker has ended: an executor of threads
                    _lingering.pop(key, None)
            found = DaskExecutor(cluster=registered(get_client))
            found._dispatcher.act_for(executor, has_initializer(executor))
            _attached[executor] = found
            end = EndPlugin(weakref.WeakMethod(found._dispatcher.end_with_worker))
            worker.loop.add_callback(worker.plugin_add, end, f"daskexec-nested-{executor}")
        if executor not in _lingering:
            loop = worker.loop
            loop.add_callback(loop.call_later, _LINGER, _let_go, loop, executor)
        _lingering[executor] = found, monotonic() + _LINGER
    return found


def _let_go(loop: Any, executor: str) -> None:
    """Keep an executor no longer, unless it was used of late; on the worker's event loop.

    Takes no lock, since who has it may wait for this loop.
    """
    kept = _lingering.get(executor)
    if kept is None:
        return
    left = kept[1] - monotonic()
    if left > 0:
        loop.call_later(left, _let_go, loop, executor)
    else:
        _lingering.pop(executor, None)  # its pending calls are finished


# --- arguments -----------------------------------------------------------------------------------


def _check_context(mp_context: Any) -> None:
    if mp_context is not None and not hasattr(mp_context, "get_start_method"):
        raise TypeError(
            f"mp_context must be a multiprocessing context, not {type(mp_context).__name__}"
        )


def _usable_cores() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
