"""The door to the kinds of clusters."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from daskexec import ClusterStartFailed, PackageMissing
from daskexec.config import ClusterConfig
from daskexec.config.keys import KINDS
from daskexec.kinds import _gateway_settings, kubernetes, needs, open_cluster


def test_modules_take_what_the_table_says() -> None:
    """The keys that a config file may have for a kind are those that its module knows."""
    assert {key.name for key in KINDS["gateway"].cluster} == set(_gateway_settings.KEYS)
    assert {key.name for key in KINDS["kubernetes"].cluster} == set(kubernetes.KEYS)
    (auth,) = (key for key in KINDS["gateway"].cluster if key.name == "auth")
    known = {"type"}.union(*_gateway_settings.AUTH_KEYS.values())
    assert {key.name for key in auth.keys} == known
    assert set(_gateway_settings.AUTH_KEYS) == set(auth.choices)


def test_no_secret_is_shown() -> None:
    """What a config says for a login is not in what is printed of it, as in a traceback."""
    config = ClusterConfig("g", "gateway", cluster_kwargs={"auth": {"password": "open sesame"}})
    assert "sesame" not in f"{config} {config!r}"


def test_a_missing_package_is_named() -> None:
    """What is missing is named, with the command that installs it."""
    with pytest.raises(PackageMissing) as caught:
        needs("no_such_package.inside", extra="hpc", kind="slurm")
    assert isinstance(caught.value, ModuleNotFoundError)
    assert isinstance(caught.value, ClusterStartFailed)
    assert caught.value.name == "no_such_package"
    assert str(caught.value) == (
        "a cluster of kind 'slurm' needs the package no_such_package, and it is not installed "
        "here: pip install 'daskexec[hpc]'"
    )


def test_the_error_can_be_pickled() -> None:
    """It comes through a pickle as it was."""
    error = pickle.loads(pickle.dumps(PackageMissing("no x here", "x")))
    assert (type(error), str(error), error.name) == (PackageMissing, "no x here", "x")


def test_a_package_that_a_package_misses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a package is there and lacks one of its own, both are named."""
    (tmp_path / "half_there.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"no_such_package \(half_there"):
        needs("half_there", extra="ssh", kind="ssh")
    assert "half_there" not in sys.modules


def test_a_package_that_is_there_is_returned() -> None:
    """What is installed is imported and returned."""
    assert needs("json.decoder", extra="hpc", kind="slurm") is sys.modules["json.decoder"]


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("slurm", "dask_jobqueue", "hpc"),
        ("ssh", "asyncssh", "ssh"),
        ("gateway", "dask_gateway", "gateway"),
    ],
)
def test_every_kind_says_so_alike(
    kind: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the kind, its package missing is the same error, before anything is started."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PackageMissing, match=rf"pip install 'daskexec\[{extra}\]'") as caught:
        open_cluster(ClusterConfig(name="mine", kind=kind), None)
    assert caught.value.name == package
