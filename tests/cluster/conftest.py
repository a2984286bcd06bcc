"""Fixtures of the tests on clusters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from daskexec_testing.leaks import sharing
from daskexec_testing.processes import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers of one thread each, ``w0`` and ``w1``, in other processes.

    Shared by the tests of a module, so none may stop it; their nannies replace workers that die.
    """
    with sharing():
        context = running_cluster(tmp_path_factory.mktemp("cluster"))
        running = context.__enter__()
    yield running
    context.__exit__(None, None, None)
