"""From what the user names as the cluster to a line that a dispatcher can use. Floor 7.

The one place where it is decided what belongs to the executor, and so is ended with it, and
what belongs to the user, and so is left alone.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from daskexec import _kept
from daskexec._board import BOARDS, Board, path_in
from daskexec._checks import scheduler_address
from daskexec._kept import KeptCluster
from daskexec._lean import be_eager
from daskexec._link import SpawnerLink
from daskexec.config import ClusterConfig, load_config

if TYPE_CHECKING:
    from daskexec._messages import Line
    from daskexec._parcel import Parcel
    from daskexec.kinds import RunningCluster

__all__ = [
    "CONNECT_TIMEOUT",
    "Connect",
    "Ended",
    "Opened",
    "inherited",
    "open_client",
    "own",
    "resolve",
    "shared",
    "threads_of",
]

#: Seconds in which a scheduler must answer.
CONNECT_TIMEOUT = 10.0

#: Allocations between two garbage collections while ``distributed`` is imported.
_SELDOM = 1_000_000

Connect: TypeAlias = "Callable[[Callable[[Any], None]], Line]"

#: Kinds that need no process of their own: nothing of them could be left.
_IN_PROCESS = ("threads", "scheduler")


def resolve(cluster: Any) -> Any:
    """Return what the user names as the cluster, with a config's name or file loaded.

    Raises
    ------
    TypeError, ValueError
        It can be no cluster; nothing was started.
    ConfigError
        The config of that name cannot be right, or there is none.
    """
    if cluster is None or isinstance(cluster, (ClusterConfig, KeptCluster, Ended)):
        return cluster
    if isinstance(cluster, str):
        return scheduler_address(cluster) or load_config(cluster)
    if isinstance(cluster, os.PathLike):
        return load_config(cluster)
    _check_object(cluster)
    return cluster


def _check_object(cluster: Any) -> None:
    if not (_is_client(cluster) or hasattr(cluster, "scheduler_address")):
        raise TypeError(
            f"cluster must be None, an address, the name or path of a cluster config, a Dask "
            f"Client or a Dask cluster, not {type(cluster).__name__}"
        )
    if cluster.asynchronous and not _is_client(cluster):
        raise TypeError(
            f"the {type(cluster).__name__} given as cluster is asynchronous: pass a connected "
            f"Client of it, Client(cluster, asynchronous=True)"
        )
    status = str(getattr(cluster.status, "name", cluster.status))
    if status not in ("running", "connecting", "newly-created", "created", "starting"):
        raise ValueError(f"the Dask {type(cluster).__name__} given as cluster is {status}")


def _is_client(cluster: Any) -> bool:
    return hasattr(cluster, "scheduler_comm") and hasattr(cluster, "submit")


def own(executor: str, n_workers: int, options: dict[str, Any]) -> Connect:
    """Start a cluster on this machine for this executor alone, when connected.

    The process that forks its workers starts now, so that it imports ``distributed`` while
    this one does.
    """
    link = SpawnerLink()

    def connect(report: Callable[[Any], None]) -> Line:
        try:
            with _few_collections():
                from distributed import Client

                from daskexec._backend import DaskBackend
                from daskexec._local import ForkCluster
                from daskexec._security import only_what_was_asked_for
        except BaseException:
            link.close()
            raise
        cluster = ForkCluster(link, n_workers, **options)
        try:
            board = Board(path_in(cluster.boards, executor), create=True)
            with only_what_was_asked_for("scheduler-address"):
                client = Client(cluster, set_as_default=False)
        except BaseException:
            cluster.close()
            raise

        def close() -> None:
            cluster.retire()
            with contextlib.suppress(Exception):
                _close_at_once(client)
            cluster.close()
            board.close()

        from daskexec._messages import Line

        send_at_once(client)
        cluster.answer_at_once(client.id)
        coming = n_workers * options["threads_per_worker"]
        backend = DaskBackend(client, executor, report, direct=True, coming=coming, once=False)
        return Line(
            backend,
            close,
            board=board,
            death_of=cluster.death_of,
            recycle=cluster.recycle,
            kill=cluster.kill,
            signal_workers=cluster.signal_workers,
            trouble=cluster.trouble,
        )

    return connect


def send_at_once(client: Any) -> None:
    """Have a client of ours send each message at once: Dask's waits 10 ms after the last one.

    So a call that comes right after a result does not wait for the message that gives the
    result back. What comes while a message is on its way still goes together.
    """
    be_eager(client.scheduler_comm)


def _close_at_once(client: Any) -> None:
    """Close a client without a farewell to its scheduler, which ends too: that takes 10 ms."""
    comm = client.scheduler_comm
    if client.status == "running" and comm is not None:
        client.status = "closing"  # or it would connect anew
        client.loop.add_callback(comm.abort)
    client.close()


def _close_quietly(client: Any) -> None:
    """Close a client; where it has lost its scheduler, without Dask's word on its giving up.

    Dask logs a traceback when the attempt to connect anew is cancelled, and that it has tried in
    vain, for longer than it has, when it sees that the client is closing. The futures carry the
    loss already.
    """

    from asyncio import CancelledError

    def matters(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        cancelled = kind is not None and issubclass(kind, CancelledError)
        return not (cancelled or str(record.msg).startswith("Failed to reconnect"))

    logger = logging.getLogger("distributed.client")
    logger.addFilter(matters)
    try:
        client.close()
    finally:
        logger.removeFilter(matters)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Import without the garbage collector going over the ever growing heap again and again.

    That takes a sixth of the time of ``import distributed``. The thresholds are left alone
    where somebody else has set them meanwhile, and a ``gc.disable()`` of the user's stays.
    """
    before = gc.get_threshold()
    ours = (_SELDOM, *before[1:])
    if not 0 < before[0] < _SELDOM or "distributed" in sys.modules:
        yield
        return
    gc.set_threshold(*ours)
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # now all objects count as old, and no collection looks at them soon
        if gc.get_threshold() == ours:
            gc.set_threshold(*before)


@dataclass
class Opened:
    """A connected client, and what belongs to it.

    Attributes
    ----------
    client : distributed.Client
    close : callable
        Ends what was opened for the executor, nothing else.
    trouble : callable, optional
        As of `daskexec.kinds.RunningCluster`, where the cluster was started from a config.
    start_timeout : float, optional
        Seconds to wait for a worker, where the cluster's config says so.
    last_words : callable, optional
        Why the scheduler is gone, where the cluster was started from a config and may know.
    fate : callable, optional
        As of `daskexec.kinds.RunningCluster`.
    kept : KeptCluster, optional
        The cluster, where a keeper has it: it can be left.
    """

    client: Any
    close: Callable[[], None]
    trouble: Callable[[], tuple[bool, str]] | None = None
    start_timeout: float | None = None
    last_words: Callable[[], str] | None = None
    fate: Callable[[str], str] | None = None
    kept: KeptCluster | None = None


def shared(executor: str, opened: Opened) -> Connect:
    """Use a client that is connected already."""

    def connect(report: Callable[[Any], None]) -> Line:
        from daskexec._backend import DaskBackend
        from daskexec._messages import Line

        client, kept = opened.client, opened.kept
        own = kept if kept is not None and kept.boards else None
        # The client may be one of another executor's own cluster, of this process or not.
        cluster = getattr(client, "cluster", None)
        lender = cluster if hasattr(cluster, "boards") else None
        folder = own.boards if own is not None else _boards_of(client)
        board = Board(path_in(folder, executor), create=True) if folder else None
        direct = True if own else None
        backend = DaskBackend(client, executor, report, direct, once=board is None)

        if own is not None:
            own.answer_at_once(client.id)

        def close() -> None:
            opened.close()
            if board is not None:
                if kept is not None and kept.left:
                    board.close()  # somebody else goes on with it
                else:
                    board.remove()

        return Line(
            backend,
            close,
            board=board,
            death_of=own.death_of if own else lender.death_of if lender else None,
            recycle=own.recycle if own else None,
            kill=own.kill if own else None,
            signal_workers=own.signal_workers if own else None,
            trouble=opened.trouble,
            last_words=opened.last_words,
            fate=opened.fate,
        )

    return connect


def _boards_of(client: Any) -> str:
    """Return where the boards of a client's cluster are, if they are on this machine; or ""."""
    import asyncio

    asked = client.scheduler.get_metadata(keys=[BOARDS], default=None)
    try:
        told = asyncio.run_coroutine_threadsafe(asked, client.loop.asyncio_loop).result(10)
        host, folder = told
        return folder if host == os.uname().nodename and os.access(folder, os.W_OK) else ""
    except Exception:  # there are none, or the connection is lost: others will say so
        return ""


def open_client(
    cluster: Any, timeout: float, max_workers: int | None, insecure: bool = False
) -> Opened:
    """Connect to what `resolve` returned; start it first if it is a config.

    Raises
    ------
    ClusterUnreachable
        Nobody answered at the address within `timeout` seconds, or not in TLS.
    InsecureConnection
        It would be plaintext to another machine, and not `insecure`.
    ClusterStartFailed
        What the config says could not be started.
    """
    if _is_client(cluster):
        return Opened(cluster, _nothing)
    if isinstance(cluster, KeptCluster):
        return _connect(cluster.config, cluster, timeout)
    if isinstance(cluster, ClusterConfig):
        if insecure:
            cluster = replace(cluster, insecure=True)
        return _open_config(cluster, timeout, max_workers)
    from distributed import Client

    from daskexec._security import connected, only_what_was_asked_for, refuse_plaintext

    if isinstance(cluster, str):
        refuse_plaintext(cluster, insecure)
        client = connected(cluster, timeout)
    else:
        with only_what_was_asked_for():
            client = Client(cluster, set_as_default=False)
    send_at_once(client)
    return Opened(client, lambda: _close_quietly(client))


def _open_config(config: ClusterConfig, timeout: float, max_workers: int | None) -> Opened:
    if config.kind in _IN_PROCESS:
        from daskexec.kinds import open_cluster

        return _connect(config, open_cluster(config, max_workers), timeout)
    kept = _kept.start(config, max_workers)
    try:
        with _few_collections():
            import distributed  # noqa: F401  # while the keeper does so too
        kept.wait_until_open()
    except BaseException:
        kept.close()
        raise
    return _connect(config, kept, timeout)


def _connect(config: ClusterConfig, running: RunningCluster, timeout: float) -> Opened:
    from daskexec._security import connected

    try:
        options = {"timeout": timeout, **config.client_kwargs}
        with config.in_force():
            client = connected(running.address, security=running.security, **options)
    except BaseException:
        running.close()
        raise
    send_at_once(client)

    def close() -> None:
        try:
            _close_quietly(client)
        finally:
            running.close()

    return Opened(
        client,
        close,
        running.trouble,
        config.start_timeout,
        last_words=getattr(running, "last_words", None),
        fate=running.fate,
        kept=running if isinstance(running, KeptCluster) else None,
    )


def inherited(parcel: Parcel, client: Any, running: Any) -> Connect:
    """Use a client, which stays open, for calls that another process has left."""

    def connect(report: Callable[[Any], None]) -> Line:
        from daskexec._backend import DaskBackend
        from daskexec._messages import Line

        folder = getattr(running, "boards", "")
        backend = DaskBackend(client, parcel.executor, report, inherits=True, once=not folder)
        if not folder:
            return Line(backend, _nothing, trouble=running.trouble, fate=running.fate)
        held = {task.slot for task in parcel.tasks}
        board = Board(path_in(folder, parcel.executor), held=held)
        return Line(
            backend,
            board.remove,
            board=board,
            death_of=running.death_of,
            recycle=running.recycle,
            kill=running.kill,
            trouble=running.trouble,
            fate=running.fate,
        )

    return connect


@dataclass(frozen=True)
class Ended:
    """Stands for a cluster that was left and has ended: calls are refused."""

    reason: str

    def connect(self, report: Callable[[Any], None]) -> Line:
        """Say so."""
        raise BrokenExecutor(self.reason)


def threads_of(client: Any) -> int:
    """Return how many worker threads a client's cluster has."""
    if client.asynchronous:  # it cannot be waited for here: what it was last told
        return int(client.scheduler_info().get("total_threads", 0))
    return sum(client.nthreads().values())


def _nothing() -> None:
    """What the user started is not ours to end."""
