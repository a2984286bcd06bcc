"""`daskexec.config`: what a config file may say, and how it is told what is wrong with it."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskexec import ClusterConfig, ConfigError, ExecutorWarning, get_executor, load_config
from daskexec.config import QUEUES, find_config, list_configs
from daskexec.config.derived import leaving
from daskexec.config.document import fill
from daskexec.config.keys import KINDS, OLD_NAMES
from daskexec.config.names import shipped
from daskexec.config.values import walltime_seconds

ROOT = Path(__file__).parents[2]
SITES = sorted(path.name for path in (Path(__file__).parent / "configs" / "ours").glob("*.yaml"))

SLURM = "kind: slurm\ncluster_kwargs:\n  cores: 2\n  memory: 4GiB\n"

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No config of whoever runs the tests counts."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("DASKEXEC_CONFIG_DIR", raising=False)
    with dask.config.set({"jobqueue": {}}):
        yield


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mysite.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def wrong(path: Path) -> list[str]:
    """What is said to be wrong with a file, a line each, without the path."""
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.source == str(path)
    return [line.removeprefix(f"{path}") for line in str(caught.value).splitlines()]


# -- what comes with daskexec -----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(shipped().glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_shipped_is_right(path: Path) -> None:
    """Each config that comes with daskexec loads without a warning, and says what it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_config(path)
    assert config.description
    assert path.read_text().startswith("# yaml-language-server: $schema=./schema.json\n")


def test_what_is_to_be_edited_is_marked() -> None:
    """All but what works as it is has marked lines, and a mark is never in a comment's line."""
    for path in shipped().glob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if "<- edit" in line]
        assert bool(lines) != (path.stem in ("local", "threads"))
        assert all("  # <- edit" in line and not line.lstrip().startswith("#") for line in lines)


def test_every_kind_is_shipped() -> None:
    """There is a config of each kind, called as the kind."""
    assert {load_config(path).kind for path in shipped().glob("*.yaml")} == set(KINDS)
    assert {path.stem for path in shipped().glob("*.yaml")} >= set(KINDS)


@pytest.mark.parametrize("name", SITES)
@pytest.mark.filterwarnings("ignore::daskexec.ExecutorWarning")
def test_a_site_in_both_forms(name: str) -> None:
    """What sites have in dask's own file says the same as it does in ours."""
    folder = Path(__file__).parent / "configs"
    assert load_config(folder / "ours" / name) == load_config(folder / "pasted" / name)


# -- names --------------------------------------------------------------------------------------


def test_the_order_of_the_folders(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$DASKEXEC_CONFIG_DIR goes before ~/.config/daskexec, and that before what is shipped."""
    assert find_config("slurm") == shipped() / "slurm.yaml"
    home = write(SLURM, "home/.config/daskexec/slurm.yml")
    assert find_config("slurm") == home
    named = write(SLURM, "named/slurm.yaml")
    monkeypatch.setenv("DASKEXEC_CONFIG_DIR", str(tmp_path / "named"))
    assert find_config("slurm") == named
    found = {one.name: one for one in list_configs()}["slurm"]
    assert found.path == named
    assert found.shadows == (home, shipped() / "slurm.yaml")


def test_all_names_are_listed_once(write: Write) -> None:
    """All names are listed, in order, and a README or a hidden file is none."""
    write(SLURM, "home/.config/daskexec/mysite.yaml")
    write("", "home/.config/daskexec/README.md")
    write(SLURM, "home/.config/daskexec/.hidden.yaml")
    names = [found.name for found in list_configs()]
    assert names == sorted({*names})
    assert set(names) == {path.stem for path in shipped().glob("*.yaml")} | {"mysite"}


def test_a_path_is_a_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends as a file, or has a slash in it, is a path; the name is that of the file."""
    path = write(SLURM, "home/mysite.yaml")
    monkeypatch.chdir(path.parent)
    for name in ("mysite.yaml", "./mysite.yaml", "~/mysite.yaml", str(path), path):
        assert load_config(name).name == "mysite"
    path.rename(path.with_suffix(".conf"))
    assert load_config(Path("mysite.conf")).name == "mysite"
    with pytest.raises(ConfigError, match=f"there is no file {path.parent}/nosuch.yaml"):
        load_config("nosuch.yaml")


def test_a_name_fits_a_command_line(write: Write) -> None:
    """A file may be called anything; the name of its cluster is one word."""
    assert load_config(write(SLURM, "my site; v1.2.yaml")).name == "my-site-v1.2"


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    """Who asks for what is not there is told what was probably meant, and what there is."""
    with pytest.raises(ConfigError, match=r"did you mean 'slurm'\? There are gateway, htcondor"):
        load_config("slrum")


def test_executors_by_the_names_of_configs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """get_executor knows names and paths of configs, and suggests them; so does the variable."""
    with pytest.raises(ValueError, match=r"Did you mean 'slurm'.*the cluster configs 'gateway'"):
        get_executor("slrum")
    path = write("kind: threads\ncluster_kwargs: {threads_per_worker: 2}\n")
    monkeypatch.setenv("DASKEXEC_EXECUTOR", str(path))
    with get_executor() as executor:
        assert executor.submit(pow, 2, 10).result(60) == 1024
    monkeypatch.setenv("DASKEXEC_EXECUTOR", str(write("kind: slurmm\n", "bad.yaml")))
    with pytest.raises(ConfigError, match="did you mean slurm"):
        get_executor()


# -- YAML -----------------------------------------------------------------------------------------


def test_anchors_and_merges(write: Write) -> None:
    """YAML's own way to say a thing once works, and what stands there goes before it."""
    path = write(
        "kind: slurm\ncluster_kwargs:\n  <<: {cores: 2, memory: 1GiB}\n  cores: 3\n"
        "client_kwargs: &wait {timeout: 5s}\n"
    )
    kwargs = load_config(path).cluster_kwargs
    assert (kwargs["cores"], kwargs["memory"]) == (3, "1GiB")


def test_all_that_is_wrong_is_told_at_once(write: Write) -> None:
    """One run tells all problems, in the order of the lines."""
    path = write(
        "kind: slurm\ndescripton: x\nwalltime: '1'\ncluster_kwargs:\n  cores: 0\n  memory: 64\n"
        "  walltime: 48:00:00\n  quue: compute\n  account: ${NO_SUCH_ACCOUNT}\n"
        "  log_directory: $NO_SUCH_SCRATCH/logs\n  protocol: tls://\n"
        "  job-script-prologue:\n    - export A: b\n  scheduler_options: {dashbord: true}\n"
        "scale: {jobs: 4}\nadapt_kwargs: {minimum: 5, maximum_jobs: 2}\n"
    )
    said = wrong(path)
    begins = [line.split(": ", 1)[0] for line in said]
    numbers = (2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 16)
    assert begins == [f", line {n}" for n in numbers]
    for line, words in zip(
        said,
        (
            "did you mean 'description'?",
            "it belongs into cluster_kwargs",
            "1 or more, not 0",
            "64 is 64 bytes: add the unit, such as 64GiB",
            'reads it as the number 172800: quote it, "48:00:00"',
            "did you mean 'queue'?",
            "the environment variable NO_SUCH_ACCOUNT is not set",
            "$NO_SUCH_SCRATCH is not set",
            "TLS is the default",
            "must be quoted",
            "did you mean 'dashboard'?",
            "",
            "",
        ),
        strict=True,
    ):
        assert words in line


# -- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster_kwargs: {}", "line 1: kind is missing"),
        ("kind: slrum", "did you mean slurm"),
        ("cluster_class: os.system", "cluster_class: must be one of distributed.LocalCluster"),
        ("kind: pbs\ncluster_class: dask_jobqueue.SLURMCluster", "of kind slurm, not pbs"),
        ("kind: slurm\ncluster_kwargs: 3", "line 2: cluster_kwargs must be a mapping"),
        ("kind: slurm\ncluster_kwargs: {memory: 1GB}", "line 2: cores is missing"),
        ("kind: slurm", "line 1: memory is missing"),
        ("kind: htcondor\ncluster_kwargs: {cores: 1, memory: 1GB}", "disk is missing"),
        ("kind: scheduler", "address is missing"),
        ("kind: scheduler\ncluster_kwargs: {address: h}", "must be an address such as tcp://"),
        ("kind: scheduler\ncluster_kwargs: {address: 'tcp://h'}", "no complete address"),
        ("kind: scheduler\ncluster_kwargs: {address: null}", "line 2: address is missing"),
        ("kind: ssh", "hosts is missing"),
        ("kind: ssh\ncluster_kwargs: {hosts: []}", "hosts is missing"),
        ("kind: ssh\nscale: {workers: 2}", "line 2: scale is not for kind ssh: the hosts"),
        ("kind: ssh\nadapt_kwargs: {maximum: 2}", "adapt_kwargs is not for kind ssh: the hosts"),
        ("kind: scheduler\nscale: {workers: 2}", "scale is not for kind scheduler"),
        ("kind: threads\nadapt_kwargs: {maximum: 2}", "its size is threads_per_worker"),
        ("kind: gateway\nadapt_kwargs: {interval: 2}", "adapt_kwargs has no key 'interval'"),
        ("kind: gateway\nscale: {jobs: 2}", "scale has no key 'jobs'; there are workers"),
        ("kind: gateway\ncluster_kwargs: {auth: os.system}", "must be one of basic, kerberos"),
        (
            "kind: gateway\ncluster_kwargs: {auth: {password: x}}",
            "auth.password is a secret, and those do not belong in a file",
        ),
        ("kind: local\nscale: 3", "scale must be a mapping"),
        ("kind: local\nscale: {workers: 3}\ncluster_kwargs: {n_workers: 2}", "say the same"),
        ("kind: local\nadapt_kwargs: {minimum: 3, maximum: 2}", "more than maximum, 2"),
        ("kind: local\ncluster_kwargs: {n_workers: [2]}", "n_workers must be one value, not a"),
        ("kind: local\ncluster_kwargs: {memory_limit: lots}", "must be a number of bytes"),
        ("kind: local\nstart_timeout: soon", "start_timeout must be seconds, or a duration"),
        ("kind: local\nstart_timeout: 1:30", "start_timeout must be seconds, or a duration"),
        ("kind: local\ninsecure: maybe", "insecure must be true or false"),
        ("kind: local\nclient_kwargs: {tmeout: 3}", "did you mean 'timeout'"),
        ("kind: local\ndask_config: {distributed.sheduler.x: 3}", "mean distributed.scheduler"),
        ("kind: local\ndask_config: {distributed.comm.timeouts.tcp.x: 3}", "is a single value"),
        ("kind: local\ndask_config: {distributed: {worker: {preload: [x]}}}", "would run code"),
        ("kind: local\ndask_config: {scheduler-address: 'tcp://x:1'}", "lead elsewhere"),
        ("kind: local\njobqueue: {slurm: {}}", "jobqueue is for queues"),
        ("jobqueue: {slurm: {}, pbs: {}}", "it has slurm, pbs"),
        ("jobqueue: {mysite: {}}", "say which queue it is by 'kind: slurm'"),
        ("jobqueue: {slurm: {}}\ncluster_kwargs: {}", "line 2: cluster_kwargs and jobqueue say"),
        ("kind: slurm\njobqueue: {pbs: {}, sge: {}}", "no block for slurm, but pbs, sge"),
        ("kind: local\ndescription: ${A:?b}", r"${A:?b} is neither ${NAME} nor"),
    ],
)
def test_what_cannot_be_right(write: Write, text: str, said: str) -> None:
    """Each rule that is broken is told in words that say what to do."""
    assert said in "\n".join(wrong(write(text)))


@pytest.mark.parametrize("kind", [kind for kind in QUEUES if kind != "htcondor"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("48:00:00", 'quote it, "48:00:00"'),
        ("12:30", 'quote it, "12:30"'),
        ("60", "must be a string: quote it"),
        ("'an hour'", "is no time that"),
        ("'00:00:00'", "is no time that"),
        ("'-1:00:00'", "is no time that"),
        ("'1:2:3:4:5'", "is no time that"),
    ],
)
def test_a_walltime_that_is_none(write: Write, kind: str, value: str, said: str) -> None:
    """A walltime that is not quoted, or that the queue would not understand, is told."""
    text = f"kind: {kind}\ncluster_kwargs:\n  cores: 2\n  memory: 1GB\n  walltime: {value}\n"
    (line,) = wrong(write(text))
    assert line.startswith(", line 5: walltime: ")
    assert said in line


@pytest.mark.parametrize(
    ("kind", "text", "seconds"),
    [
        ("slurm", "90", 5400),
        ("slurm", "90:30", 5430),
        ("slurm", "02:00:00", 7200),
        ("slurm", "1-12", 129600),
        ("slurm", "1-12:30", 131400),
        ("slurm", "2-00:00:01", 172801),
        ("slurm", "UNLIMITED", None),
        ("pbs", "3600", 3600),
        ("sge", "3600", 3600),
        ("pbs", "10:30", 630),
        ("moab", "1:00:00:00", 86400),
        ("oar", "2", 7200),
        ("oar", "2:30", 9000),
        ("lsf", "01:30", 5400),
        ("lsf", "90", 5400),
        ("lsf", "01:30/host", 5400),
    ],
)
def test_walltimes_as_queues_take_them(kind: str, text: str, seconds: float | None) -> None:
    """The same text is another time for another queue."""
    assert walltime_seconds(kind, text) == seconds


def test_values_as_they_are_written(write: Write) -> None:
    """What YAML would read as a number or as true is the text that stands there."""
    text = SLURM + "  account: 0123\n  queue: on\n  worker-extra-args: [--nthreads, 010, no]\n"
    kwargs = load_config(write(text)).cluster_kwargs
    assert (kwargs["account"], kwargs["queue"]) == ("0123", "on")
    assert kwargs["worker_extra_args"][:3] == ["--nthreads", "010", "no"]


def test_variables(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """${} is filled in, numbers too; an empty one counts as left out; $ is left to the shell."""
    monkeypatch.setenv("MY_CORES", "7")
    monkeypatch.setenv("MY_LOGS", "logs")
    monkeypatch.delenv("MY_ACCOUNT", raising=False)
    text = (
        "kind: slurm\ncluster_kwargs:\n  cores: ${MY_CORES}\n  memory: ${MY_MEMORY:-4}GiB\n"
        "  account: ${MY_ACCOUNT:-}\n  local_directory: $TMPDIR/x\n  log_directory: ~/$MY_LOGS\n"
        "  job_script_prologue: 'echo $${HOME} $USER'\n  walltime: ${MY_TIME:-48:00:00}\n"
        "  nanny: ${MY_NANNY:-false}\ndescription: 5 ${ and a $\n"
    )
    config = load_config(write(text))
    kwargs = config.cluster_kwargs
    assert kwargs["cores"] == 7
    assert kwargs["memory"] == "4GiB"
    assert "account" not in kwargs
    assert kwargs["local_directory"] == "$TMPDIR/x"
    assert kwargs["log_directory"] == f"{os.environ['HOME']}/logs"
    assert kwargs["job_script_prologue"] == ["echo ${HOME} $USER"]
    assert kwargs["nanny"] is False
    assert config.walltime == 48 * 3600
    assert config.description == "5 ${ and a $"


def test_settings_of_dask(write: Write) -> None:
    """Nested settings and dotted names are the same; those of open mappings are any."""
    text = (
        "kind: local\ndask_config:\n  distributed.comm.timeouts.tcp: 60s\n"
        "  distributed: {worker: {memory: {spill: 0.5}}, nanny: {environ: {MY_NAME: 1}}}\n"
        "  other.package: 1\ndistributed: {logging: {distributed: info}}\n"
    )
    assert load_config(write(text)).dask_config == {
        "distributed.comm.timeouts.tcp": "60s",
        "distributed.worker.memory.spill": 0.5,
        "distributed.nanny.environ.MY_NAME": 1,
        "other.package": 1,
        "distributed.logging.distributed": "info",
    }


def test_settings_of_dask_are_in_force_on_workers(write: Write) -> None:
    """What dask_config says holds where the cluster is started, and not any more after that."""
    name = "distributed.worker.memory.spill"
    text = f"kind: local\nscale: {{workers: 1}}\ndask_config: {{{name}: 0.123}}\n"
    with get_executor(str(write(text))) as executor:
        assert executor.submit(dask.config.get, name).result(60) == 0.123
        assert dask.config.get(name, None) != 0.123
        assert executor._max_workers == 1  # type: ignore[attr-defined]


def test_ssh(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of ssh: a list for the hosts, secrets from the environment, null for no check."""
    monkeypatch.setenv("MY_PASSPHRASE", "secret")
    text = (
        "kind: ssh\ncluster_kwargs:\n  hosts: [a, b]\n  connect_options:\n"
        "    - {client_keys: ~/key, passphrase: '${MY_PASSPHRASE}', known_hosts: null}\n"
        "    - {port: 2222, config: []}\n"
    )
    first, second = load_config(write(text)).cluster_kwargs["connect_options"]
    home = os.environ["HOME"]
    assert first == {"client_keys": [f"{home}/key"], "passphrase": "secret", "known_hosts": None}
    assert second == {"port": 2222, "config": []}


def test_times_and_flags_of_the_whole(write: Write) -> None:
    """start_timeout is seconds, whatever unit it is written in; insecure is as it is said."""
    config = load_config(write(SLURM + "start_timeout: 15m\ninsecure: true\nscale: {jobs: 2}\n"))
    assert (config.start_timeout, config.insecure, config.scale) == (900.0, True, {"jobs": 2})


# -- what is left out -----------------------------------------------------------------------------


def test_what_is_left_out_for_a_queue(write: Write) -> None:
    """One process a job, no requeueing, and workers that leave in time; nothing is null."""
    config = load_config(write(SLURM + "  queue: null\n  account: ''\n  walltime: '02:00:00'\n"))
    assert config.cluster_kwargs == {
        "cores": 2,
        "memory": "4GiB",
        "walltime": "02:00:00",
        "processes": 1,
        "death_timeout": 120,
        "job_extra_directives": ["--no-requeue"],
        "worker_extra_args": ["--lifetime", "6600s", "--lifetime-stagger", "150s"],
    }


@pytest.mark.parametrize(
    "given",
    ["[--lifetime, 1h]", "['--lifetime 1h --x']", "[--lifetime=1h]"],
)
def test_what_is_said_is_left(write: Write, given: str) -> None:
    """A lifetime, and what Slurm is to do with lost jobs, are as the file says."""
    text = SLURM + f"  worker_extra_args: {given}\n  job_extra_directives: [--requeue]\n"
    kwargs = load_config(write(text)).cluster_kwargs
    assert kwargs["worker_extra_args"] == yaml.safe_load(given)
    assert kwargs["job_extra_directives"] == ["--requeue"]


def test_a_stagger_is_no_lifetime(write: Write) -> None:
    """A stagger alone does not keep the lifetime from being added."""
    kwargs = load_config(write(SLURM + "  worker_extra_args: [--lifetime-stagger, 9s]\n"))
    assert kwargs.cluster_kwargs["worker_extra_args"] == [
        "--lifetime-stagger", "9s", "--lifetime", "1650s",
    ]  # fmt: skip


def test_tls(write: Write) -> None:
    """Files for TLS are looked for at home."""
    text = "kind: scheduler\ncluster_kwargs:\n  address: tls://h:1\n  security:\n"
    kwargs = load_config(write(text + "    tls-ca-file: ~/ca.pem\n")).cluster_kwargs
    home = os.environ["HOME"]
    assert kwargs == {"address": "tls://h:1", "security": {"tls_ca_file": f"{home}/ca.pem"}}


@given(st.integers(1, 10**8))
def test_workers_leave_in_time(walltime: int) -> None:
    """Whatever the walltime: a worker lives, and leaves before the end at the latest."""
    lifetime, stagger = leaving(walltime)
    assert lifetime >= 1
    assert stagger >= 0
    assert lifetime + stagger <= walltime
    if walltime >= 60:
        assert walltime - 600 <= lifetime <= walltime - 20
        assert stagger <= lifetime / 8


def test_dask_s_own_files_fill_in_the_rest(tmp_path: Path, write: Write) -> None:
    """~/.config/dask/jobqueue.yaml counts for what is left out, and is added to where we add."""
    write(
        "jobqueue:\n  slurm:\n    cores: 3\n    memory: 5GB\n    account: theirs\n"
        "    processes: 3\n    death-timeout: 77\n    walltime: '04:00:00'\n"
        "    job-extra: ['-C theirs']\n    worker-extra-args: [--theirs]\n",
        "home/.config/dask/jobqueue.yaml",
    )
    path = write("kind: slurm\ncluster_kwargs: {queue: ours, account: null}\n")
    code = (
        "import json, sys, warnings\n"
        "from dask_jobqueue.slurm import SLURMJob\n"
        "from daskexec import load_config\n"
        f"config = load_config({str(path)!r})\n"
        "warnings.simplefilter('ignore')\n"
        "job = SLURMJob('tls://here:1', name='w', **config.cluster_kwargs)\n"
        "print(sorted(config.cluster_kwargs), config.walltime)\n"
        "print(job.job_script())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    names, _, script = ran.stdout.partition("\n")
    assert names == "['job_extra_directives', 'queue', 'worker_extra_args'] 14400.0"
    for line in ("-A theirs", "-p ours", "--cpus-per-task=3", "-C theirs", "--no-requeue"):
        assert f"#SBATCH {line}\n" in script
    for words in ("--nworkers 3", "--death-timeout 77", "--theirs --lifetime 13800s"):
        assert words in script


def test_a_file_of_dask_s_with_a_walltime_that_is_a_number(write: Write) -> None:
    """A walltime that is not quoted in Dask's own configuration is told too."""
    with dask.config.set({"jobqueue.slurm.walltime": 172800}):
        (line,) = wrong(write(SLURM))
    assert "it must be quoted there" in line


# -- old names, and what is risky -------------------------------------------------------------


@pytest.mark.parametrize("kind", QUEUES)
def test_old_names(write: Write, kind: str) -> None:
    """Each old name is taken for the new one, with a warning that names both and the line."""
    for old, new in OLD_NAMES[kind].items():
        text = f"kind: {kind}\ncluster_kwargs:\n  cores: 1\n  memory: 1GB\n  disk: 1GB\n"
        text = text if kind == "htcondor" else text.replace("  disk: 1GB\n", "")
        value = "{a: b}" if (kind, new) == ("htcondor", "job_extra_directives") else "x1"
        path = write(text + f"  {old.replace('_', '-')}: {value}\n")
        with pytest.warns(ExecutorWarning, match=rf"line [56]: {old.replace('_', '-')} is an old"):
            one = load_config(path)
        assert one == load_config(write(text + f"  {new}: {value}\n"))
        (line,) = wrong(write(text + f"  {old}: {value}\n  {new}: {value}\n"))
        assert f"{old} is another name of {new}, which is there too" in line


def test_old_names_that_say_nothing(write: Write) -> None:
    """Dask's own file has all old names with null: no word is lost about that."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_config(write(SLURM + "  env-extra: null\n  extra: []\n  project: null\n"))


def test_several_processes_that_adapt(write: Write) -> None:
    """processes > 1 with adapt_kwargs is a warning, alone it is none."""
    text = SLURM + "  processes: 2\nadapt_kwargs: {maximum_jobs: 3}\n"
    with pytest.warns(ExecutorWarning, match="line 6: with processes: 2 and adapt_k") as caught:
        config = load_config(write(text))
    assert caught[0].filename == __file__  # and not some line of daskexec
    assert config.adapt == {"maximum_jobs": 3, "wait_count": 12}
    path = write(text.replace("  processes: 2\n", ""))
    theirs = dask.config.set({"jobqueue.slurm.processes": 4})
    with theirs, pytest.warns(ExecutorWarning, match="with processes: 4"):
        assert "processes" not in load_config(path).cluster_kwargs


# -- any config -----------------------------------------------------------------------------------

_TEXT = st.text(string.ascii_letters + string.digits + " =:./-_,#{}[]'\"", min_size=1).filter(
    lambda text: text.strip() == text
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": _TEXT,
    "there": _TEXT,
    "count": st.integers(1, 10**6),
    "whole": st.integers(0, 10**6),
    "flag": st.booleans(),
    "size": st.integers(1, 999).map(lambda number: f"{number}GiB"),
    "duration": st.integers(1, 999) | st.integers(1, 999).map(lambda number: f"{number}m"),
    "words": st.lists(_TEXT, min_size=1, max_size=3),
    "texts": st.dictionaries(_TEXT, _TEXT, min_size=1, max_size=3),
}


def _of(kind: str, more: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Any cluster_kwargs of a queue, of keys whose values are as they are written."""
    fixed: dict[str, st.SearchStrategy[Any]] = {
        "cores": st.integers(1, 256),
        "memory": _VALUES["size"],
        **({"disk": _VALUES["size"]} if kind == "htcondor" else {}),
    }
    given = {
        key.name: _VALUES[key.type]
        for key in KINDS[kind].cluster
        if key.type in _VALUES and key.name not in fixed and key.name not in ("config_name", *more)
    }
    return st.fixed_dictionaries(fixed, optional=given)


_QUEUE_AND_KEYS = st.sampled_from(QUEUES).flatmap(lambda kind: st.tuples(st.just(kind), _of(kind)))
_FIXTURES = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=40,
    deadline=None,
)


@_FIXTURES
@given(_QUEUE_AND_KEYS, st.randoms(use_true_random=False))
def test_any_config_in_any_form(
    write: Write, drawn: tuple[str, dict[str, Any]], random: Any
) -> None:
    """Our form and dask's, with hyphens or underscores, give the same, and what was said."""
    kind, kwargs = drawn
    forms = [
        {"kind": kind, "cluster_kwargs": kwargs},
        {"kind": kind, "cluster-kwargs": {key.replace("_", "-"): v for key, v in kwargs.items()}},
        {"jobqueue": {kind: {_either(key, random): value for key, value in kwargs.items()}}},
        {"kind": kind, "jobqueue": {"my-site": kwargs}},
    ]
    loaded = [load_config(write(yaml.safe_dump(form, sort_keys=False))) for form in forms]
    assert all(config == loaded[0] for config in loaded)
    found = dict(loaded[0].cluster_kwargs)
    for key in ("worker_extra_args", "job_extra_directives"):
        if key in kwargs and isinstance(kwargs[key], list):
            assert found.pop(key)[: len(kwargs[key])] == kwargs[key]
    for key, value in kwargs.items():
        assert key in ("worker_extra_args", "job_extra_directives") or found[key] == value
    assert isinstance(loaded[0], ClusterConfig)


def _either(key: str, random: Any) -> str:
    return "".join(random.choice("-_") if letter in "-_" else letter for letter in key)


@_FIXTURES
@given(_QUEUE_AND_KEYS, st.data())
def test_any_slip_is_found(
    write: Write, drawn: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    """A key with a letter too few is an error with its line and a key that is like it."""
    kind, kwargs = drawn
    known = {key.name for key in KINDS[kind].cluster} | {"name", *OLD_NAMES[kind]}
    known |= set(KINDS[kind].elsewhere)
    key = data.draw(st.sampled_from(sorted(key for key in kwargs if len(key) > 4)))
    at = data.draw(st.integers(1, len(key) - 1))
    slip = key[:at] + key[at + 1 :]
    if slip in known:
        return
    spoilt = {slip if name == key else name: value for name, value in kwargs.items()}
    text = yaml.safe_dump({"kind": kind, "cluster_kwargs": spoilt}, sort_keys=False, width=10**6)
    number = 1 + next(n for n, line in enumerate(text.splitlines()) if f"  {slip}:" in line)
    said = [line for line in wrong(write(text)) if f"has no key {slip!r}" in line]
    assert len(said) == 1
    assert said[0].startswith(f", line {number}: kind {kind} ")
    assert "did you mean" in said[0]


@given(st.text(st.characters(exclude_characters="$")), st.text(), st.text())
def test_filling_in(text: str, value: str, default: str) -> None:
    """What has no variable stays; a set one gives its value, others the default."""
    assert fill(text, {"A": value}) == text
    assert fill(f"{text}${{A}}{text}", {"A": value}) == f"{text}{value}{text}"
    if "}" not in default:
        assert fill(f"{text}${{A:-{default}}}", {"A": value}) == text + (value or default)
        assert fill(f"${{A:-{default}}}", {}) == default
    assert fill(f"$${{A}}{text}$A", {"A": value}) == f"${{A}}{text}$A"


def test_settings_leave_the_defaults_of_dask_as_they_are() -> None:
    """Also where ``distributed``, which brings its own defaults, was not imported before."""
    program = (
        "import sys, dask\n"
        "from daskexec import ClusterConfig\n"
        "name = 'distributed.scheduler.allowed-failures'\n"
        "config = ClusterConfig(name='x', kind='local', dask_config={name: 77})\n"
        "assert 'distributed' not in sys.modules\n"
        "with config.in_force():\n"
        "    assert dask.config.get(name) == 77\n"
        "print(dask.config.get(name), dask.config.get('distributed.worker.memory.target'))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["3", "0.6"], ran.stderr
