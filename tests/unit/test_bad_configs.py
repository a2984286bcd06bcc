"""Configs that cannot be right, made by the hundred: each is told in one clear line.

They are made from the table of keys (each key of each kind is misspelt, misplaced, and given what
it cannot be), and from what YAML does to the unwary. Every one must give a `ConfigError` of one
line that names the file, the line, the key and, where there is one, the key or value that was
probably meant; and start nothing: `DaskExecutor` is given the file, and no process comes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import pytest

from daskexec import ConfigError, DaskExecutor, _kept, kinds
from daskexec.config import QUEUES
from daskexec.config.keys import KINDS, OLD_NAMES, TOP, Key


@dataclass(frozen=True)
class Bad:
    """A config, and what must be said of it: the line, and words, one of them the key."""

    name: str
    text: str | bytes
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


#: What each kind needs to be right.
NEEDED: dict[str, list[str]] = {
    "scheduler": ["address: tcp://127.0.0.1:8786"],
    "ssh": ["hosts: [node]"],
    "htcondor": ["cores: 1", "memory: 1GiB", "disk: 1GiB"],
    **{kind: ["cores: 1", "memory: 1GiB"] for kind in QUEUES if kind != "htcondor"},
    "gateway": ["address: http://gateway:8000"],
}

#: What a value of a type cannot be, in YAML, and what is said of it.
WRONG: dict[str, list[tuple[str, str]]] = {
    "text": [("[a, b]", "one value"), ("{a: b}", "one value")],
    "there": [("[a, b]", "one value")],
    "home": [("[a, b]", "one value")],
    "path": [("{a: b}", "one value"), ("$NO_SUCH_VARIABLE/x", "not set")],
    "count": [
        ("0", "1 or more"),
        ("-1", "1 or more"),
        ("no", "1 or more"),
        ("many", "1 or more"),
        ("1.5", "1 or more"),
        ("1:30", "reads 1:30 as 90"),
        ("010", "reads 010 as 8"),
        ("[1]", "one value"),
        ("2024-13-45", "quote it"),
    ],
    "whole": [("-1", "0 or more"), ("yes", "0 or more"), ("1e3", "0 or more")],
    "port": [("99999", "at most 65535"), ("-1", "0 or more"), ("http", "0 or more")],
    "flag": [("maybe", "true or false"), ("1", "true or false"), ("'no'", "true or false")],
    "size": [("lots", "number of bytes"), ("64", "add the unit"), (".inf", "number of bytes")],
    "limit": [("lots", "number of bytes"), ("4", "add the unit"), ("true", "number of bytes")],
    "duration": [("1:30:00", "a duration"), ("soon", "a duration"), ("-5", "a duration")],
    "seconds": [("1:30", "a duration"), ("yes", "a duration"), (".nan", "a duration")],
    "walltime": [("10:00:00", 'quote it, "10:00:00"'), ("3600", "quote it")],
    "secret": [("hunter2", "environment variable")],
    "address": [("host", "such as tcp://")],
    "url": [("gateway", "such as https://")],
    "words": [("[{a: b}]", "list of texts")],
    "homes": [("[[a]]", "list of texts")],
    "texts": [("[a]", "a mapping"), ("{a: {b: c}}", "mapping of texts")],
    "lists": [("a", "a list")],
    "free": [("3", "mapping")],
    "mapping": [("3", "mapping"), ("[a]", "mapping")],
    "mappings": [("3", "")],
    "choice": [("zzz", "must be one of")],
}


def _file(kind: str, section: str, line: str, needed: bool = True) -> tuple[str, int]:
    """A config of a kind with one more line in a section; and the number of that line."""
    own = NEEDED.get(kind, []) if needed else []
    replaced = line.partition(":")[0]
    if section:
        own = [one for one in own if one.partition(":")[0] != replaced]
    lines = [f"kind: {kind}", *(["cluster_kwargs:"] if own or section == "cluster_kwargs" else [])]
    lines += [f"  {one}" for one in own]
    if not section:
        lines.insert(1, line)
        return "\n".join(lines) + "\n", 2
    if section != "cluster_kwargs":
        lines.append(f"{section}:")
    lines.append(f"  {line}")
    return "\n".join(lines) + "\n", len(lines)


def _sections(kind: str) -> list[tuple[str, tuple[Key, ...]]]:
    keys = KINDS[kind]
    client = next(key.keys for key in TOP if key.name == "client_kwargs")
    top = tuple(key for key in TOP if key.type not in ("free", "mapping", "choice"))
    found = [("", top), ("cluster_kwargs", keys.cluster), ("scale", keys.scale)]
    return [*found, ("adapt_kwargs", keys.adapt), ("client_kwargs", client)]


def _slips() -> Iterator[Bad]:
    """Each key of each kind with two letters the wrong way round, and one in capitals."""
    for kind in KINDS:
        for section, keys in _sections(kind):
            known = {key.name for key in keys} | {"name", *OLD_NAMES.get(kind, {})}
            for key in keys:
                name = key.name
                at = next((i for i in range(1, len(name) - 1) if name[i] != name[i + 1]), 0)
                slip = name[:at] + name[at + 1] + name[at] + name[at + 2 :] if at else name
                for wrong in (slip, name.title()):
                    if wrong in known or wrong in KINDS[kind].elsewhere:
                        continue
                    text, line = _file(kind, section, f"{wrong}: 1")
                    words = (f"has no key {wrong!r}", "did you mean")
                    yield Bad(f"{kind} {section}.{wrong}", text, line, words)


def _misplaced() -> Iterator[Bad]:
    """Keys of the cluster at the top."""
    for kind, keys in KINDS.items():
        top = {key.name for key in TOP}
        for key in keys.cluster:
            if key.name not in top:
                text, line = _file(kind, "", f"{key.name}: 1")
                yield Bad(
                    f"{kind} {key.name}", text, line, (key.name, "belongs into cluster_kwargs")
                )


def _mistyped() -> Iterator[Bad]:
    """Each key of each kind with what it cannot be."""
    for kind in KINDS:
        for section, keys in _sections(kind):
            for key in keys:
                types = key.type.split("|")
                if len(types) > 1:  # what is wrong for one of them may be right for another
                    continue
                for value, said in WRONG[key.type]:
                    if section == "client_kwargs" and kind != "local":
                        continue  # the same for all
                    text, line = _file(kind, section, f"{key.name}: {value}")
                    yield Bad(f"{kind} {key.name}: {value}", text, line, (key.name, said))


LOCAL = "kind: local\n"
JOB = "kind: slurm\ncluster_kwargs:\n  cores: 2\n  memory: 4GiB\n"
LAUGHS = "".join(f"  {b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh"))

TRAPS = [
    # What YAML reads as something else.
    Bad("sexagesimal", JOB + "  walltime: 10:00:00\n", 5, ("walltime", 'it, "10:00:00"')),
    Bad("no", "kind: no\n", 1, ("kind", "not 'no'")),
    Bad("octal", LOCAL + "scale: {workers: 010}\n", 2, ("workers", "as 8")),
    Bad("grouped", LOCAL + "scale: {workers: 1_000}\n", 2, ("workers", "as 1000")),
    Bad("hexadecimal", LOCAL + "scale: {workers: 0x10}\n", 2, ("workers", "as 16")),
    Bad("a number beyond all", LOCAL + f"scale: {{workers: {'9' * 5000}}}\n", 2, ("workers",)),
    Bad("a date that is none", LOCAL + "start_timeout: 2024-13-45\n", 2, ("start_timeout",)),
    Bad("equals", LOCAL + "description: =\n", 2, ("description", "quote it")),
    # What would be code.
    *(
        Bad(tag, f"{LOCAL}description: {tag} x\n", 2, ("description", tag, "plain data"))
        for tag in ("!!python/name:os.system", "!!binary", "!mine", "!!int")
    ),
    Bad(
        "a call",
        "kind: !!python/object/apply:os.system ['touch sprung']\n",
        1,
        ("kind", "!!python/object/apply:os.system", "plain data"),
    ),
    Bad(
        "an object",
        LOCAL + "cluster_kwargs: !!python/object:os.Thing {n_workers: 2}\n",
        2,
        ("cluster_kwargs", "plain data"),
    ),
    Bad("a set", LOCAL + "cluster_kwargs: !!set {n_workers}\n", 2, ("cluster_kwargs", "!!set")),
    Bad("a class", "cluster_class: os.system\n", 1, ("cluster_class", "must be one of")),
    Bad(
        "a preload",
        LOCAL + "dask_config: {distributed.worker.preload: [x]}\n",
        2,
        ("distributed.worker.preload", "run code"),
    ),
    # What would never end, or fill the memory.
    Bad("deep lists", LOCAL + "dask_config: " + "[" * 100_000, 2, ("dask_config", "50 levels")),
    Bad(
        "deep mappings", LOCAL + "dask_config: " + "{a: " * 9_999, 2, ("dask_config", "50 levels")
    ),
    Bad(
        "deep lines",
        LOCAL + "dask_config:\n" + "".join(" " * i + "a:\n" for i in range(1, 200)),
        51,
        ("dask_config", "50 levels"),
    ),
    Bad(
        "a million laughs",
        LOCAL + "dask_config:\n  a: &a [x]\n" + LAUGHS,
        3,
        ("dask_config", "10000 values"),
    ),
    Bad("a circle", LOCAL + "cluster_kwargs: &a {resources: *a}\n", 2, ("alias",)),
    Bad("a megabyte", LOCAL + "#" * (1 << 20), 0, ("1048576 bytes",)),
    # What is no YAML.
    Bad("a tab", LOCAL + "cluster_kwargs:\n\tn_workers: 2\n", 3, ("n_workers", "tabs")),
    Bad("twice", LOCAL + LOCAL, 2, ("kind", "line 1 too")),
    Bad(
        "twice by two names",
        LOCAL + "start-timeout: 3\nstart_timeout: 3\n",
        3,
        ("start_timeout", "line 2 too"),
    ),
    Bad("two documents", LOCAL + "---\n" + LOCAL, 2, ("another document",)),
    Bad("a colon", LOCAL + "description: a: b\n", 2, ("description", "must be quoted")),
    Bad("indented", LOCAL + "  insecure: true\n", 2, ("insecure", "one column")),
    Bad("not closed", LOCAL + "scale: {workers: 2\n", 3, ("begins in line 2",)),
    Bad("not quoted to the end", LOCAL + "description: 'a\n", 3, ("begins in line 2",)),
    Bad("an at", LOCAL + "description: @me\n", 2, ("description: @me", "quoted")),
    Bad("a star", LOCAL + "description: *me\n", 2, ("description: *me", "quoted")),
    Bad("a list as key", LOCAL + "[a]: b\n", 2, ("must be a word",)),
    Bad("merging nothing", LOCAL + "<<: 3\n", 2, ("<<: 3", "merging")),
    Bad("equals for colon", "kind=local\n", 1, ("kind: local",)),
    Bad("a blank that is none", "kind: local\n\u00a0scale: {}\n", 2, ("mean 'scale'",)),
    # What is no text, or says nothing.
    Bad("empty", "", 1, ("says nothing", "kind: local")),
    Bad("a comment", "# kind: local\n", 1, ("says nothing",)),
    Bad("null", "~\n", 1, ("kind: local",)),
    Bad("a list", "- kind: local\n", 1, ("kind: local",)),
    Bad("a word", "local\n", 1, ("kind: local",)),
    Bad("a list of kinds", "kind: [local]\n", 1, ("kind must be one value",)),
    Bad("no kind", "scale: {workers: 2}\n", 1, ("kind is missing", "slurm")),
    Bad("capitals", "Kind: local\n", 1, ("mean 'kind'",)),
    Bad("capitals again", "kind: SLURM\n", 1, ("not 'SLURM'", "mean slurm")),
    Bad("Latin 1", (LOCAL + "description: Zürich\n").encode("latin-1"), 2, ("UTF-8", "0xfc")),
    Bad("UTF-16", LOCAL.encode("utf-16"), 1, ("UTF-16",)),
    Bad("gzip", b"\x1f\x8b\x08\x00kind: local", 1, ("UTF-8",)),
    Bad("a zero byte", LOCAL + "description: a\0b\n", 2, ("#x0000",)),
    Bad("a bell", LOCAL + "description: a\a\n", 2, ("#x0007",)),
    Bad("a mark of byte order", "\ufeffkind: local\nbogus: 1\n", 2, ("no key 'bogus'",)),
    Bad("ends of lines of Windows", "kind: local\r\nbogus: 1\r\n", 2, ("no key 'bogus'",)),
]

MADE = [*_slips(), *_misplaced(), *_mistyped()]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No config of whoever runs the tests counts, and nothing can be started."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("XDG_CONFIG_HOME", "DASKEXEC_CONFIG_DIR", "NO_SUCH_VARIABLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(_kept, "start", started)
    monkeypatch.setattr(kinds, "open_cluster", started)
    with dask.config.set({"jobqueue": {}}):
        yield


def _check(bad: Bad, folder: Path) -> None:
    path = folder / "mysite.yaml"
    path.write_bytes(bad.text if isinstance(bad.text, bytes) else bad.text.encode())
    with pytest.raises(ConfigError) as caught:
        DaskExecutor(cluster=path)
    assert caught.value.source == str(path)
    (said,) = str(caught.value).splitlines()
    assert len(said) < len(str(path)) + 900
    assert said.startswith(str(path))
    told = re.match(r", line (\d+)[ ,:]", said.removeprefix(str(path)))
    assert (int(told[1]) if told else 0) == bad.line, said
    for word in bad.words:
        assert word in said


@pytest.mark.parametrize("bad", TRAPS, ids=str)
def test_traps(bad: Bad, tmp_path: Path) -> None:
    """What YAML and its writers do is told with file, line, key and what to do."""
    _check(bad, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mysite.yaml"]  # no code was run


@pytest.mark.parametrize("kind", KINDS)
def test_made_from_the_table(kind: str, tmp_path: Path) -> None:
    """Every key of the kind, misspelt, misplaced or of the wrong type: file, line, key, remedy."""
    made = [bad for bad in MADE if bad.name.startswith(f"{kind} ")]
    assert len(made) > 20
    wrong = []
    for bad in made:
        try:
            _check(bad, tmp_path)
        except (AssertionError, ValueError) as error:
            wrong.append(f"{bad}: {error}")
    assert not wrong, "\n\n".join(wrong)
