"""The commands for cluster configs: what is on stdout, what on stderr, and the exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner, Result

from daskexec import load_config
from daskexec.cli import cli
from daskexec.cli.clusters import place, size
from daskexec.config import list_configs
from daskexec.config.names import shipped

ROOT = Path(__file__).parents[2]
SLURM = "kind: slurm\ncluster_kwargs: {cores: 2, memory: 4GiB, walltime: '02:00:00'}\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with no config in it, whoever runs the tests; its folder for configs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("DASKEXEC_CONFIG_DIR", raising=False)
    folder = tmp_path / ".config" / "daskexec"
    folder.mkdir(parents=True)
    with dask.config.set({"jobqueue": {}}):
        yield folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "daskexec", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )


# -- clusters -------------------------------------------------------------------------------------


def test_clusters_as_lines(home: Path) -> None:
    """Where stdout is no terminal: a line each, with tabs; what hides another says so."""
    (home / "slurm.yaml").write_text(SLURM + "description: ours\n")
    result = call("clusters")
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == [found.name for found in list_configs()]
    found = {line[0]: line[1:] for line in lines}
    hidden = str(shipped() / "slurm.yaml")
    assert found["slurm"] == ["slurm", "ours", str(home / "slurm.yaml"), hidden]
    assert found["pbs"] == ["pbs", "Jobs of PBS", str(shipped() / "pbs.yaml"), ""]


def test_clusters_as_json(home: Path) -> None:
    """--json has the same; a broken file is in it with what is wrong, and hides nothing else."""
    (home / "broken.yaml").write_text("kind: [\n")
    (home / "unset.yaml").write_text("kind: pbs\ndescription: ${NO_SUCH_VARIABLE}\n")
    rows = {row["name"]: row for row in json.loads(call("clusters", "--json").stdout)}
    assert list(rows) == [found.name for found in list_configs()]
    assert rows["broken"]["kind"] == ""
    assert "broken.yaml, line 2" in rows["broken"]["error"]
    assert (rows["unset"]["kind"], rows["unset"]["error"]) == ("pbs", "")
    assert rows["gateway"]["shadows"] == []


def test_clusters_as_a_table(home: Path) -> None:
    """On a terminal: a table that fits it."""
    (home / "slurm.yaml").write_text(SLURM + "description: '[bold]ours'\n")
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    command = [sys.executable, "-m", "daskexec", "clusters"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=env) as running:
        os.close(theirs)
        text = b""
        while True:
            try:
                some = os.read(ours, 1 << 16)
            except OSError:  # the end of a terminal
                break
            if not some:
                break
            text += some
        assert running.wait(30) == 0
    os.close(ours)
    lines = text.decode().splitlines()
    assert lines[0].split()[:3] == ["name", "kind", "what,"]
    assert max(map(len, lines)) <= 80
    assert any("[bold]" in line for line in lines)
    assert any("hides /" in line for line in lines)


# -- config ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in sorted(shipped().glob("*.yaml"))])
def test_config_prints_what_can_be_used(home: Path, name: str) -> None:
    """What is printed is the file, comments and all, and another name for the same cluster."""
    text = call("config", name).stdout
    first, rest = text.split("\n", 1)
    assert first == f"# yaml-language-server: $schema={shipped() / 'schema.json'}"
    assert rest == (shipped() / f"{name}.yaml").read_text().split("\n", 1)[1]
    (home / "mine.yaml").write_text(text)
    mine, theirs = load_config("mine"), load_config(name)
    assert (mine.name, theirs.name) == ("mine", name)
    assert mine.cluster_kwargs == theirs.cluster_kwargs


def test_config_of_another_file(tmp_path: Path) -> None:
    """A file is printed as it is, whatever is wrong with it."""
    path = tmp_path / "x.yaml"
    path.write_text("# mine\nkind: [\n")
    assert call("config", path).stdout == "# mine\nkind: [\n"


@pytest.mark.parametrize("command", ["config", "check"])
def test_an_unknown_name(command: str) -> None:
    """A name that is not there: exit status 1, the closest one, nothing on stdout."""
    result = call(command, "slrum")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "did you mean 'slurm'?" in result.stderr
    assert call(command).exit_code == 2


# -- check ----------------------------------------------------------------------------------------


def test_check_of_what_is_wrong(tmp_path: Path) -> None:
    """All that is wrong, with the lines; exit status 1; no traceback, nothing on stdout."""
    path = tmp_path / "bad.yaml"
    path.write_text(SLURM.replace("cores: 2", "core: 2") + "scal: {jobs: 2}\n")
    result = process("check", str(path))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"Error: {path}, line 2: kind slurm has no key 'core'; did you mean 'cores'?",
        f"{path}, line 2: cores is missing: how much has a job of it, such as 16?",
        f"{path}, line 3: a config has no key 'scal'; did you mean 'scale'?",
    ]


def test_check_of_what_is_right() -> None:
    """What the config would do, in a few lines; exit status 0."""
    result = process("check", "local")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        f"config: {shipped() / 'local.yaml'}",
        "kind: local (Worker processes on this machine)",
        "size: a worker for each core",
        "where: this machine",
        "first worker: waited for 120 s at most",
    ]
    assert result.stderr == ""


def test_check_tells_warnings(tmp_path: Path) -> None:
    """An old name is a line on stderr, without a line of source code."""
    path = tmp_path / "old.yaml"
    path.write_text(SLURM.replace("cores", "env-extra: [a], cores"))
    result = process("check", str(path))
    assert f"Warning: {path}, line 2: env-extra is an old name" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_check_of_a_queue(home: Path) -> None:
    """For a queue, the job script that would be submitted is there too."""
    (home / "mysite.yaml").write_text(SLURM + "adapt_kwargs: {maximum_jobs: 4}\n")
    result = process("check", "mysite")
    assert result.returncode == 0, result.stderr
    head, _, script = result.stdout.partition("job script:\n\n")
    assert "size: 0 to 4 jobs, as there is work; each job 2 cores, 4GiB\n" in head
    assert "walltime: 7200 s\n" in head
    assert script.startswith("#!/usr/bin/env bash\n")
    assert "\n#SBATCH --no-requeue\n" in script
    assert "--lifetime 6600s" in script


@pytest.mark.parametrize(
    ("text", "sized", "placed"),
    [
        ("kind: local\nscale: {workers: 1}", "1 worker", "this machine"),
        ("kind: local\ncluster_kwargs: {n_workers: 3}", "3 workers", "this machine"),
        ("kind: local\nadapt_kwargs: {minimum: 1}", "1 to as many as the work asks for, as there "
         "is work", "this machine"),
        ("kind: threads", "4 threads", "this process"),
        ("kind: scheduler\ncluster_kwargs: {address: 'h:1'}",
         "that of the cluster that runs there", "tcp://h:1"),
        ("kind: ssh\ncluster_kwargs: {hosts: [a, b]}", "2 hosts, 1 worker on each", "a, b"),
        ("kind: pbs\ncluster_kwargs: {cores: 1, memory: 4GB}\nscale: {jobs: 9}",
         "9 jobs; each job 1 core, 4GB", ""),
        ("kind: pbs\ncluster_kwargs: {cores: 1, memory: 4GB}", "1 job; each job 1 core, 4GB", ""),
        ("kind: gateway\ncluster_kwargs: {address: 'https://g'}\nscale: {workers: 2}", "2 workers",
         "https://g"),
        ("kind: kubernetes\ncluster_kwargs: {namespace: me}", "1 worker", "namespace me"),
    ],
)  # fmt: skip
def test_size_and_place(tmp_path: Path, text: str, sized: str, placed: str) -> None:
    """How large and where each kind is, in words."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    config = load_config(path)
    assert (size(config), place(config)) == (sized, placed)
