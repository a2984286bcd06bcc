"""Clusters in Kubernetes: what is passed to ``KubeCluster``. Nothing here runs in Kubernetes.

`StandIn` takes the place of dask-kubernetes' class; that the real one takes what is passed is
checked against its signature, where it is installed.
"""

from __future__ import annotations

import inspect
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import pytest
from daskexec_testing.services import require

from daskexec import ClusterStartFailed, ClusterUnreachable, ConfigError, PackageMissing
from daskexec.config import ClusterConfig
from daskexec.kinds import kubernetes, open_cluster


class StandIn:
    """In place of ``dask_kubernetes.operator.KubeCluster``: remembers what it is told."""

    made: ClassVar[list[StandIn]] = []
    refuses: ClassVar[dict[str, Exception]] = {}

    scheduler_address = "tcp://scheduler:8786"
    namespace = "science"
    status = types.SimpleNamespace(name="running")

    def __init__(self, **options: Any) -> None:
        self.said: list[Any] = []
        self.options, self.name = options, options["name"]
        self.made.append(self)
        self._say("make")

    def _say(self, what: str, *more: Any) -> None:
        self.said.append((what, *more) if more else what)
        if what in self.refuses:
            raise self.refuses[what]

    def scale(self, n: int) -> None:
        self._say("scale", n)

    def adapt(self, minimum: int | None = None, maximum: int | None = None) -> None:
        self._say("adapt", minimum, maximum)

    def close(self) -> None:
        self._say("close")


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[StandIn]:
    package, operator = types.ModuleType("dask_kubernetes"), types.ModuleType("operator")
    operator.KubeCluster = StandIn  # type: ignore[attr-defined]
    package.operator = operator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_kubernetes", package)
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", operator)
    (tmp_path / "kubeconfig").touch()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    StandIn.made, StandIn.refuses = [], {}
    return StandIn


def config(kwargs: dict[str, Any] | None = None, **more: Any) -> ClusterConfig:
    return ClusterConfig("k8s", "kubernetes", cluster_kwargs=kwargs or {}, **more)


def test_what_is_passed(kube: type[StandIn]) -> None:
    """The keys of the config go to the class; it prints nothing, and has a name of its own."""
    running = open_cluster(config({"image": "ours:1", "namespace": "n"}, scale={"workers": 3}))
    (made,) = kube.made
    name = made.options.pop("name")
    assert name.startswith("daskexec-")
    assert made.options == {
        "image": "ours:1",
        "namespace": "n",
        "n_workers": 3,
        "quiet": True,
        "worker_command": ["dask", "worker"],
    }
    assert running.address == "tcp://scheduler:8786"
    running.close()
    running.close()
    assert made.said == ["make", ("scale", 3), "close"]


def test_size(kube: type[StandIn]) -> None:
    """Sizes are asked for in threads and passed on in workers, of as many threads as CPUs."""
    resources = {"limits": {"cpu": "1500m", "memory": "2G"}}
    running = open_cluster(config({"resources": resources}), 5)
    running.scale(2)
    assert kube.made[0].said == ["make", ("scale", 3), ("scale", 1)]


@pytest.mark.parametrize(
    ("adapt", "workers", "told"),
    [
        ({"minimum": 0, "maximum": 9}, None, ("adapt", 0, 9)),
        ({"minimum": 2, "maximum": 9}, 4, ("adapt", 2, 4)),
        ({"minimum": 6}, 4, ("adapt", 4, 4)),
    ],
)
def test_adapt(
    kube: type[StandIn], adapt: dict[str, int], workers: int | None, told: tuple[Any, ...]
) -> None:
    """An adaptive cluster has its bounds, and no more workers than were asked for."""
    open_cluster(config(adapt=adapt), workers)
    assert kube.made[0].said == ["make", told]


def test_trouble(kube: type[StandIn]) -> None:
    """Missing workers: where to look; a closed cluster is the end."""
    running = open_cluster(config({"name": "mine"}, scale={"workers": 2}))
    final, known = running.trouble()
    assert not final
    assert "2 workers asked for" in known
    assert "kubectl get pods -n science -l dask.org/cluster-name=mine" in known
    kube.made[0].status = types.SimpleNamespace(name="closed")
    assert running.trouble() == (True, "the Kubernetes cluster mine of Dask is closed")


class SchedulerStartupError(Exception):
    """Named as the one of dask-kubernetes."""


class ConnectError(Exception):
    """Named as the one of httpx."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            SchedulerStartupError("no", "logs:", "a\nOut of fuel"),
            ClusterStartFailed,
            "Out of fuel",
        ),
        (ConnectError("All attempts failed"), ClusterUnreachable, "All attempts failed"),
        (ValueError("Unable to find valid credentials"), ClusterStartFailed, "no login of yours"),
        (TimeoutError("is the Operator running?"), ClusterStartFailed, "Operator running"),
    ],
)
def test_what_kubernetes_refuses(
    kube: type[StandIn], error: Exception, kind: type[Exception], words: str
) -> None:
    """What dask-kubernetes raises comes in words of ours, and with its own."""
    kube.refuses["make"] = error
    with pytest.raises(kind, match=words):
        open_cluster(config())


def test_a_size_that_is_refused(kube: type[StandIn]) -> None:
    """A cluster that cannot get its workers is not left behind."""
    kube.refuses["scale"] = RuntimeError("exceeded quota: pods=3")
    with pytest.raises(ClusterStartFailed, match="exceeded quota: pods=3"):
        open_cluster(config())
    assert kube.made[0].said == ["make", ("scale", 1), "close"]


def test_no_kubeconfig(kube: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeconfig nothing is tried, and the error says where it was looked for."""
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    with pytest.raises(ClusterUnreachable, match=r"/nowhere/config \(as KUBECONFIG says\)"):
        open_cluster(config())
    assert not kube.made


def test_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dask-kubernetes the error says how to install it."""
    monkeypatch.setitem(sys.modules, "dask_kubernetes", None)
    with pytest.raises(PackageMissing, match=r"pip install 'daskexec\[kubernetes\]'"):
        open_cluster(config())


@pytest.mark.parametrize(
    ("kwargs", "more", "words"),
    [
        ({"imag": "x"}, {}, "'imag' is no key of kind kubernetes .did you mean 'image'"),
        ({}, {"scale": {"jobs": 2}}, "scaled by workers"),
        ({}, {"adapt": {"maximum_jobs": 2}}, "'minimum' and 'maximum' workers only"),
    ],
)
def test_configs_that_cannot_be_right(
    kube: type[StandIn], kwargs: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    """What is wrong in a config is found before anything is started."""
    with pytest.raises(ConfigError, match=words):
        open_cluster(config(kwargs, **more))
    assert not kube.made


def real() -> Any:
    try:
        from dask_kubernetes import operator
    except ImportError as exc:
        require("kubernetes", f"dask-kubernetes is not installed: {exc}")
    return operator


def test_the_real_signature() -> None:
    """The real class takes every key of ours, and what its methods are called with."""
    cluster = real().KubeCluster
    taken = inspect.signature(cluster).parameters
    assert {*kubernetes.KEYS, "n_workers", "quiet"} <= set(taken)
    inspect.signature(cluster.scale).bind(None, 3)
    inspect.signature(cluster.adapt).bind(None, minimum=0, maximum=3)
    inspect.signature(cluster.close).bind(None)


def test_the_real_create_mode() -> None:
    """The names of create_mode are those of the real package."""
    real()
    mode = kubernetes._create_mode(config(), "connect_only")
    assert mode.name == "CONNECT_ONLY"
    with pytest.raises(ConfigError, match="must be one of CREATE_ONLY"):
        kubernetes._create_mode(config(), "never")


def test_the_real_class_without_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a kubeconfig names an API that is not there, the real package's error is ours."""
    real()
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: x,"
        " clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}],"
        " users: [{name: u, user: {}}], contexts: [{name: x, context: {cluster: c, user: u}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with pytest.raises(ClusterUnreachable, match="API of the Kubernetes cluster does not answer"):
        open_cluster(config())
