"""`daskexec._checks`: arguments of every door, checked alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskexec import DaskExecutor, SerialExecutor
from daskexec._checks import check_chunksize, check_count, scheduler_address
from daskexec.clusters import resolve


@given(st.sampled_from(["tcp", "tls", "ucx"]), st.from_regex(r"[a-z0-9.\-]+", fullmatch=True),
       st.integers(0, 65535))  # fmt: skip
def test_addresses(scheme: str, host: str, port: int) -> None:
    """Host and port are an address, with a scheme or without, and the same a second time."""
    address = f"{scheme}://{host}:{port}"
    assert scheduler_address(address) == address
    assert scheduler_address(f"{host}:{port}") == f"tcp://{host}:{port}"


@given(st.from_regex(r"[a-z0-9_./\-]+", fullmatch=True))
def test_names_are_no_addresses(name: str) -> None:
    """A name or a path is no address, and no error."""
    assert scheduler_address(name) is None


def test_both_doors_take_the_same_addresses() -> None:
    """DaskExecutor(cluster=...) takes and refuses the addresses that get_executor does."""
    assert resolve("scheduler:8786") == "tcp://scheduler:8786"
    assert resolve("tls://scheduler:8786") == "tls://scheduler:8786"
    with pytest.raises(ValueError, match="no complete address"):
        DaskExecutor(cluster="tcp://scheduler")
    with pytest.raises(ValueError, match="Dask has no http:// addresses"):
        DaskExecutor(cluster="http://scheduler:8786")


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError)]
)
def test_counts(value: Any, error: type[Exception]) -> None:
    """What is no whole number over 0 is refused by name, by every executor."""
    for check in (
        lambda: check_count("max_workers", value),
        lambda: SerialExecutor(value),
        lambda: DaskExecutor(value),
        lambda: DaskExecutor(threads_per_worker=value),
    ):
        with pytest.raises(error, match=r"max_workers|threads_per_worker"):
            check()
    check_count("max_workers", 1)
    check_count("max_workers", None)


@pytest.mark.parametrize(
    ("chunksize", "buffersize", "error"),
    [(0, None, ValueError), (None, 0, ValueError), (1, "2", TypeError), (-1, 1, ValueError)],
)
def test_sizes_of_maps(chunksize: Any, buffersize: Any, error: type[Exception]) -> None:
    """Sizes that map cannot take are refused."""
    with pytest.raises(error):
        check_chunksize(chunksize, buffersize)
    check_chunksize(None, None)
    check_chunksize(1, 1)
