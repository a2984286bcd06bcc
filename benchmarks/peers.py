"""The executors that are compared: an adapter of a few lines for each.

Every adapter starts ``width`` workers of one thread each, with the peer's own defaults else:
what a user gets who reads the first page of its manual.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

__all__ = ["PEERS", "Adapter", "Peer"]


@dataclass
class Adapter:
    """A started executor.

    Attributes
    ----------
    submit : callable
        ``submit(fn, *args)`` returns something like a future.
    map : callable
        ``map(fn, items)`` returns a list of results.
    gather : callable
        Takes a list of what `submit` returned; returns the list of the results.
    scatter : callable, optional
        Sends a value to every worker once; what it returns can be an argument.
    """

    submit: Callable[..., Any]
    map: Callable[..., list[Any]]
    gather: Callable[[list[Any]], list[Any]] = lambda futures: [f.result() for f in futures]
    scatter: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Peer:
    """An executor to compare with.

    Attributes
    ----------
    name : str
        On the command line.
    title : str
        In tables.
    module : str
        What must be installed.
    open : callable
        ``open(width, address)`` is a context manager of an `Adapter`. The address of a
        scheduler is for those on Dask only: they start their own cluster when it is None.
    slow : bool
        Does about a thousand tiny calls a second: is given fewer of them.
    chunks : bool
        Its ``map`` takes ``chunksize``, which a user can tune.
    dask : bool
        Takes an address.
    """

    name: str
    title: str
    module: str
    open: Callable[[int, str | None], AbstractContextManager[Adapter]]
    slow: bool = False
    chunks: bool = False
    dask: bool = False

    def missing(self) -> str:
        """Say that it is not installed; "" when it is. Imports nothing: MPI would start."""
        found = importlib.util.find_spec(self.module.partition(".")[0])
        return "" if found else f"{self.module} is not installed"


def _adapted(executor: Any) -> Adapter:
    return Adapter(
        submit=executor.submit,
        map=lambda fn, items, **options: list(executor.map(fn, items, **options)),
    )


@contextmanager
def _daskexec(width: int, address: str | None) -> Iterator[Adapter]:
    from daskexec import DaskExecutor

    with DaskExecutor(width if address is None else None, cluster=address) as executor:
        yield _adapted(executor)


@contextmanager
def _processes(width: int, address: str | None) -> Iterator[Adapter]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(width) as executor:
        yield _adapted(executor)


@contextmanager
def _loky(width: int, address: str | None) -> Iterator[Adapter]:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(width) as executor:
        yield _adapted(executor)


@contextmanager
def dask_client(width: int, address: str | None) -> Iterator[Any]:
    """A ``distributed.Client``, of an own ``LocalCluster`` when the address is None."""
    from distributed import Client, LocalCluster

    if address is not None:
        with Client(address) as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=width, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _client_executor(width: int, address: str | None) -> Iterator[Adapter]:
    with (
        dask_client(width, address) as client,
        client.get_executor(pure=False) as executor,
    ):
        yield _adapted(executor)


@contextmanager
def _client(width: int, address: str | None) -> Iterator[Adapter]:
    with dask_client(width, address) as client:

        def map_and_gather(fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
            results: list[Any] = client.gather(client.map(fn, list(items), pure=False))
            return results

        yield Adapter(
            submit=partial(client.submit, pure=False),
            map=map_and_gather,
            gather=client.gather,
            scatter=partial(client.scatter, broadcast=True),
        )


@contextmanager
def _mpi(width: int, address: str | None) -> Iterator[Adapter]:
    # As root, and with more processes than cores, as in a container. The workers are spawned
    # by this process (MPI_Comm_spawn), so no mpiexec is needed.
    os.environ.setdefault("OMPI_MCA_rmaps_base_oversubscribe", "1")
    for layer in ("oob", "btl"):  # else it waits for ever where there is only the loopback
        os.environ.setdefault(f"OMPI_MCA_{layer}_tcp_if_include", "lo")
    if os.geteuid() == 0:
        os.environ["OMPI_ALLOW_RUN_AS_ROOT"] = os.environ["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(width) as executor:
        yield _adapted(executor)


@contextmanager
def _ipyparallel(width: int, address: str | None) -> Iterator[Adapter]:
    import logging

    import ipyparallel

    with ipyparallel.Cluster(n=width, log_level=logging.ERROR) as client:
        client.wait_for_engines(width)
        yield _adapted(client.executor())


@contextmanager
def _parsl(width: int, address: str | None) -> Iterator[Adapter]:
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    htex = HighThroughputExecutor(
        address="127.0.0.1",
        max_workers_per_node=width,
        cores_per_worker=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    config = Config(executors=[htex], run_dir=os.getcwd(), strategy="none", usage_tracking=0)
    with ParslPoolExecutor(config=config) as executor:
        yield _adapted(executor)


@contextmanager
def _executorlib(width: int, address: str | None) -> Iterator[Adapter]:
    from executorlib import SingleNodeExecutor

    # Without block_allocation each call gets a process of its own.
    with SingleNodeExecutor(max_workers=width, block_allocation=True) as executor:
        yield _adapted(executor)


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("daskexec", "DaskExecutor", "daskexec", _daskexec, dask=True),
        Peer("processes", "ProcessPoolExecutor", "concurrent.futures", _processes, chunks=True),
        Peer("loky", "loky", "loky", _loky, chunks=True),
        Peer(
            "clientexecutor",
            "ClientExecutor (Dask)",
            "distributed",
            _client_executor,
            slow=True,
            dask=True,
        ),
        Peer("client", "Client (Dask)", "distributed", _client, slow=True, dask=True),
        Peer("mpi4py", "mpi4py.futures", "mpi4py", _mpi, chunks=True),
        Peer("ipyparallel", "ipyparallel", "ipyparallel", _ipyparallel, slow=True),
        Peer("parsl", "Parsl", "parsl", _parsl, slow=True),
        Peer("executorlib", "executorlib", "executorlib", _executorlib),
    )
}
