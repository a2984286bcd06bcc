"""The table of keys: what is made of it, and what it says of Dask's own classes."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from daskexec.config import QUEUES
from daskexec.config.keys import CLASSES, KINDS, OLD_NAMES, TOP, Key
from daskexec.config.names import shipped
from daskexec.config.schema import json_schema, readme, schema_text
from daskexec.config.values import TYPES

CONFIGS = Path(__file__).parent / "configs"
RIGHT = [*sorted(shipped().glob("*.yaml")), *sorted(CONFIGS.glob("*/*.yaml"))]
SLURM: dict[str, Any] = {"kind": "slurm", "cluster_kwargs": {"cores": 2, "memory": "4GiB"}}


def valid(config: dict[str, Any]) -> bool:
    checker = jsonschema.Draft202012Validator(json_schema())
    return bool(checker.is_valid(config))


def test_what_is_shipped_is_made_of_the_table() -> None:
    """schema.json and README.md are those that python -m daskexec.config.schema writes."""
    assert (shipped() / "schema.json").read_text() == schema_text()
    text = (shipped() / "README.md").read_text()
    assert text == readme(text)
    assert json.loads(schema_text()) == json_schema()


def test_the_schema_is_one() -> None:
    """The schema is right by the schema of schemas."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_schema_takes_what_is_right(path: Path) -> None:
    """Every config that the loader takes without a word is right for an editor too."""
    assert valid(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "slrum"},
        {"kind": None},
        {"descripton": "x"},
        {"start_timeout": []},
        {"scale": {"workers": 2}},
        {"scale": {"jobs": 0}},
        {"adapt_kwargs": {"minimum": 0}},
        {"cluster_kwargs": {"quue": "x"}},
        {"cluster_kwargs": {"cores": 0}},
        {"cluster_kwargs": {"cores": "many"}},
        {"cluster_kwargs": {"walltime": 172800}},
        {"cluster_kwargs": {"job_extra_directives": {"a": "b"}}},
        {"cluster_kwargs": {"scheduler_options": {"dashbord": True}}},
        {"cluster_kwargs": {"project": {}}},
        {"kind": "ssh", "cluster_kwargs": {}, "scale": {"workers": 2}},
        {"kind": "ssh", "cluster_kwargs": {"connect_options": {"password": "secret"}}},
        {"kind": "gateway", "cluster_kwargs": {"auth": "mine"}},
        {"client-kwargs": {"tmeout": 1}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_wrong(change: dict[str, Any]) -> None:
    """What the loader would refuse, an editor underlines, where a schema can say it."""
    assert valid(SLURM)
    assert not valid({**SLURM, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"scale": None},
        {"scale": {"jobs": "${JOBS:-4}"}},
        {"cluster_kwargs": {"job-extra-directives": "-x"}},
        {"cluster_kwargs": {"job-extra_directives": ["-x", 1]}},
        {"cluster_kwargs": {"name": "my-job", "env-extra": ["x"]}},
        {"cluster-kwargs": {}},
        {"start-timeout": "15m"},
    ],
    ids=str,
)
def test_the_schema_takes_what_the_loader_does(change: dict[str, Any]) -> None:
    """Hyphens, nulls, variables and single words are right for an editor too."""
    assert valid({**SLURM, **change})


def _all_keys(keys: tuple[Key, ...]) -> list[Key]:
    return [one for key in keys for one in (key, *_all_keys(key.keys))]


def test_the_table_is_whole() -> None:
    """Each key has a known type, a line of its own, its choices, and no twin."""
    used: set[str] = set()
    for keys in (TOP, *(section for kind in KINDS.values() for section in _sections(kind))):
        assert len({key.name for key in keys}) == len(keys)
        for key in _all_keys(keys):
            assert key.doc.endswith(".")
            assert key.name.isidentifier()
            assert key.name == key.name.lower()
            for type_ in key.type.split("|"):
                assert type_ in TYPES or type_ in ("choice", "mapping", "mappings")
            used |= set(key.type.split("|"))
    assert set(TYPES) <= used
    assert set(CLASSES.values()) <= set(KINDS)


def _sections(kind: Any) -> tuple[tuple[Key, ...], ...]:
    return (kind.cluster, kind.scale, kind.adapt)


# -- what others say ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QUEUES)
def test_all_keys_of_dask_s_own_file_are_known(kind: str) -> None:
    """Each key that jobqueue.yaml of dask-jobqueue has for a queue is known, or an old name."""
    import dask_jobqueue

    text = (Path(dask_jobqueue.__file__).parent / "jobqueue.yaml").read_text()
    theirs = {key.replace("-", "_") for key in yaml.safe_load(text)["jobqueue"][kind]}
    assert theirs <= {key.name for key in KINDS[kind].cluster} | {"name", *OLD_NAMES[kind]}


@pytest.mark.parametrize("name", [name for name in CLASSES if name.startswith("dask_jobqueue.")])
def test_queues_take_what_the_table_says(name: str) -> None:
    """Each key of a queue is an argument of dask-jobqueue's classes, and none is an old name."""
    import dask_jobqueue

    cluster = getattr(dask_jobqueue, name.partition(".")[2])
    taken = _arguments(cluster) | _arguments(cluster.job_cls)
    names = {key.name for key in KINDS[CLASSES[name]].cluster}
    assert names <= taken
    assert not names & set(OLD_NAMES[CLASSES[name]])


@pytest.mark.parametrize("kind", ["local", "threads"])
def test_local_clusters_take_what_the_table_says(kind: str) -> None:
    """Each key of a cluster on this machine is an argument of LocalCluster, or of its workers."""
    from distributed import LocalCluster, Worker

    names = {key.name for key in KINDS[kind].cluster}
    assert names <= _arguments(LocalCluster) | _arguments(Worker)


@pytest.mark.parametrize("kind", [*QUEUES, "local"])
def test_what_adapts_takes_what_the_table_says(kind: str) -> None:
    """Each key of adapt_kwargs is an argument of what Dask does it by."""
    from dask_jobqueue import JobQueueCluster
    from distributed.deploy.adaptive import Adaptive

    taken = _arguments(Adaptive) | set(inspect.signature(JobQueueCluster.adapt).parameters)
    assert {key.name for key in KINDS[kind].adapt} <= taken


def test_schedulers_take_what_the_table_says() -> None:
    """Each key of scheduler_options is an argument of Dask's scheduler."""
    from distributed import Scheduler

    options = next(key for key in KINDS["slurm"].cluster if key.name == "scheduler_options")
    assert {key.name for key in options.keys} <= _arguments(Scheduler)


def test_clients_take_what_the_table_says() -> None:
    """Each key of client_kwargs is an argument of Dask's client."""
    from distributed import Client

    options = next(key for key in TOP if key.name == "client_kwargs")
    assert {key.name for key in options.keys} <= _arguments(Client)


def _arguments(cls: type) -> set[str]:
    """The arguments of a class and of those that it hands its own on to."""
    return {name for one in cls.__mro__ for name in inspect.signature(one.__init__).parameters}


def test_ssh_takes_what_the_table_says() -> None:
    """The keys of kind ssh, and those within them, are those that its module knows."""
    from daskexec.kinds import ssh_hosts

    keys = {key.name: key for key in KINDS["ssh"].cluster}
    assert set(keys) == set(ssh_hosts._KEYS)
    for name, known in (
        ("connect_options", ssh_hosts._CONNECT_KEYS),
        ("worker_options", ssh_hosts._WORKER_KEYS),
        ("scheduler_options", ssh_hosts._SCHEDULER_KEYS),
    ):
        assert {key.name for key in keys[name].keys} == set(known)
