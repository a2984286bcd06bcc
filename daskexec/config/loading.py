"""From a file to a checked `ClusterConfig`, by the table of `daskexec.config.keys`. Floor 1.

All that is wrong with a file is told at once, each with its line.
"""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from daskexec.config import derived
from daskexec.config.document import Item, Problems, read
from daskexec.config.keys import CLASSES, KINDS, OLD_NAMES, TOP, Key, KindKeys
from daskexec.config.model import QUEUES, ClusterConfig, Kind
from daskexec.config.names import find_config, suggest
from daskexec.config.values import TYPES
from daskexec.errors import ConfigError, ExecutorWarning

__all__ = ["load", "peek"]

_EXAMPLES = {"kind": "local", "cluster_class": "distributed.LocalCluster"}
_TOP = {key.name: key for key in TOP}

# Settings of Dask that run code, or send a client somewhere else than the config says.
_CODE = ("preload", "preload-argv", "routes", "security-loader", "scheduler-address")


def load(name: str) -> ClusterConfig:
    """Load the config of that name, or at that path; as `daskexec.load_config`."""
    path = find_config(name)
    if path is None:
        raise ConfigError(f"no cluster config is called {name!r}: {suggest(name)}")
    problems = Problems(str(path))
    top = read(path, problems)
    config = _Reader(path, top, problems).config()
    problems.check()
    assert config is not None  # or there was a problem
    return config


def peek(path: Path) -> tuple[str, str]:
    """Return kind and description of a file, without a check of the rest; "" where unknown.

    Raises
    ------
    ConfigError
        It is no YAML, or no mapping.
    """
    problems = Problems(str(path))
    reader = _Reader(path, read(path), problems)
    problems.check()
    kind = reader.kind()
    description = reader.given.get("description")
    return kind or "", description.text if description else ""


@dataclass
class _Reader:
    path: Path
    top: Item
    problems: Problems
    given: dict[str, Item] = field(default_factory=dict)
    block: dict[str, Item] = field(default_factory=dict)  # of the cluster, by today's names

    def __post_init__(self) -> None:
        if not isinstance(self.top.value, dict):
            self._say(self.top, "a config is lines 'key: value', such as 'kind: local'")
            return
        self.given = self._normal(self.top)

    # -- the whole ----------------------------------------------------------------------------

    def config(self) -> ClusterConfig | None:
        """Return the config; None, with the problems noted, if it cannot be one."""
        if not isinstance(self.top.value, dict):
            return None
        kind = self.kind()
        if kind is None:
            self._strangers(self.given, TOP, "a config")
            return None
        keys = KINDS[kind]
        self._strangers(self.given, TOP, "a config", keys)
        self.block = self._block(kind)
        kwargs = self._cluster(kind, keys)
        scale = self._section("scale", keys.scale, kind)
        adapt = self._section("adapt_kwargs", keys.adapt, kind)
        walltime = None
        if kind in QUEUES:
            line = self._line("cluster_kwargs", "jobqueue")
            lines = {name: item.line for name, item in self.block.items()}
            walltime = derived.complete(kind, kwargs, self.problems, line, lines)
            if adapt:
                adapt.setdefault("wait_count", derived.WAIT_COUNT)
        self._check_size(kind, kwargs, scale, adapt)
        self._check_required(kind)
        start = self._value("start_timeout")
        return ClusterConfig(
            # It is a part of command lines of jobs.
            name=re.sub(r"[^\w.+-]+", "-", self.path.stem),
            kind=cast(Kind, kind),
            source=str(self.path),
            description=self._value("description") or "",
            cluster_kwargs=kwargs,
            client_kwargs=self._section("client_kwargs", _TOP["client_kwargs"].keys, kind),
            dask_config=self._dask_config(),
            scale=scale,
            adapt=adapt,
            start_timeout=keys.start_timeout if start is None else start,
            insecure=bool(self._value("insecure")),
            walltime=walltime,
        )

    def kind(self) -> str | None:
        """Return the kind that the file names, by one of its three ways to do so."""
        if not isinstance(self.top.value, dict):
            return None
        named = self.given.get("kind")
        classed = self.given.get("cluster_class")
        kinds = get_args(Kind)
        for name, item in (("kind", named), ("cluster_class", classed)):
            if item is not None and isinstance(item.value, (dict, list)):
                self._say(item, f"{name} must be one value, such as {name}: {_EXAMPLES[name]}")
                return None
        if named is not None and named.text not in kinds:
            self._say(named, f"kind: {_choice(named.text, kinds)}")
            return None
        if classed is not None and classed.text not in CLASSES:
            self._say(classed, f"cluster_class: {_choice(classed.text, CLASSES)}")
            return None
        kind = named.text if named else CLASSES[classed.text] if classed else None
        if named and classed and CLASSES[classed.text] != kind:
            self._say(
                classed, f"{classed.text} is of kind {CLASSES[classed.text]}, not {kind}: keep one"
            )
        if kind is None:
            kind = self._pasted_kind()
        return kind

    def _pasted_kind(self) -> str | None:
        pasted = self.given.get("jobqueue")
        if pasted is None:
            strange = [name for name in self.given if name not in _TOP]
            if any(_meant(name, ["kind", "cluster_class"]) for name in strange):
                return None  # it was misspelt, which is told as what it is
            self.problems.add(
                self.top.line,
                f"kind is missing: say which of {', '.join(get_args(Kind))} it is",
            )
            return None
        blocks = list(pasted.value) if isinstance(pasted.value, dict) else []
        if len(blocks) == 1 and blocks[0] in QUEUES:
            return str(blocks[0])
        said = f"it has {', '.join(blocks)}" if blocks else "it has none"
        self._say(
            pasted,
            f"jobqueue must have one block, named as one of {', '.join(QUEUES)}; {said}. With "
            f"several, or with another name, say which queue it is by 'kind: slurm'",
        )
        return None

    # -- the cluster's own keys ----------------------------------------------------------------

    def _cluster(self, kind: str, keys: KindKeys) -> dict[str, Any]:
        known = {key.name: key for key in keys.cluster}
        block = dict(self.block)
        for name, instead in keys.elsewhere.items():
            if name in block:
                self._say(block.pop(name), f"{name} is not for {kind}: {instead}")
        self._strangers(block, keys.cluster, f"kind {kind}")
        return self._values(block, known, "")

    def _block(self, kind: str) -> dict[str, Item]:
        """Return what the cluster is given, by the names of today."""
        own, pasted = self.given.get("cluster_kwargs"), self.given.get("jobqueue")
        if pasted is not None:
            if own is not None:
                self._say(own, "cluster_kwargs and jobqueue say the same: keep one of them")
            if kind not in QUEUES:
                self._say(pasted, f"jobqueue is for queues, and this is of kind {kind}")
                return {}
            own = self._pasted_block(pasted, kind)
        if own is None or own.value is None:
            return {}
        if not isinstance(own.value, dict):
            self._say(own, "cluster_kwargs must be a mapping: lines 'key: value', indented")
            return {}
        return self._renamed(self._normal(own), kind)

    def _pasted_block(self, pasted: Item, kind: str) -> Item | None:
        blocks = pasted.value if isinstance(pasted.value, dict) else {}
        if kind in blocks:
            return cast(Item, blocks[kind])
        if len(blocks) == 1:  # a section of a site's own name
            return cast(Item, next(iter(blocks.values())))
        self._say(pasted, f"jobqueue has no block for {kind}, but {', '.join(blocks) or 'none'}")
        return None

    def _renamed(self, block: dict[str, Item], kind: str) -> dict[str, Item]:
        """Give old names of keys their new ones; what is null or empty counts as not there."""
        names = {**OLD_NAMES.get(kind, {}), **({"name": "job_name"} if kind in QUEUES else {})}
        for old, new in names.items():
            item = block.pop(old, None)
            if item is None or item.void():
                continue
            if new in block and not block[new].void():
                self._say(item, f"{old} is another name of {new}, which is there too: keep that")
                continue
            block[new] = item
            if old != "name":
                self._warn(
                    item, f"{old.replace('_', '-')} is an old name, of {new}; it was taken as that"
                )
        return block

    def _check_required(self, kind: str) -> None:
        for needing, name, question in (
            ("scheduler", "address", "where does the scheduler listen?"),
            ("ssh", "hosts", "on which hosts do the workers run?"),
        ):
            if kind == needing and (name not in self.block or self.block[name].void()):
                line = self._line("cluster_kwargs", "kind", "cluster_class")
                self.problems.add(line, f"{name} is missing: {question}")

    def _check_size(
        self, kind: str, kwargs: dict[str, Any], scale: dict[str, Any], adapt: dict[str, Any]
    ) -> None:
        if scale and adapt:
            self._say(
                self.given["adapt_kwargs"],
                "scale and adapt_kwargs cannot both be: is the size fixed, or does it follow?",
            )
        if scale and "n_workers" in kwargs:
            self._say(self.given["scale"], "scale and n_workers say the same: keep one of them")
        for least, most in (("minimum_jobs", "maximum_jobs"), ("minimum", "maximum")):
            if (adapt.get(least) or 0) > (adapt.get(most) or float("inf")):
                self._say(
                    self.given["adapt_kwargs"],
                    f"{least} is {adapt[least]}, more than {most}, {adapt[most]}",
                )
        processes = derived.processes(kind, kwargs) if kind in QUEUES else 1
        if adapt and processes > 1:
            self._warn(
                self.given["adapt_kwargs"],
                f"with processes: {processes} and adapt_kwargs, a job is ended when one "
                f"of its workers is idle, and started again soon: processes: 1 does not have this",
            )

    # -- sections -----------------------------------------------------------------------------

    def _section(self, name: str, keys: tuple[Key, ...], kind: str) -> dict[str, Any]:
        item = self.given.get(name)
        if item is None or item.void():
            return {}
        if not keys:
            self._say(item, f"{name} is not for kind {kind}: {KINDS[kind].fixed}")
            return {}
        if not isinstance(item.value, dict):
            self._say(item, f"{name} must be a mapping: lines 'key: value' below it, indented")
            return {}
        given = self._normal(item)
        known = {key.name: key for key in keys}
        for wrong, right in (("workers", "jobs"), ("minimum", "minimum_jobs"),
                             ("maximum", "maximum_jobs"), ("n", "jobs")):  # fmt: skip
            if wrong in given and wrong not in known and right in known:
                self._say(given.pop(wrong), f"{name} of a queue is in jobs: write {right}")
        self._strangers(given, keys, name)
        return self._values(given, known, f"{name}.")

    def _values(self, given: dict[str, Item], known: dict[str, Key], where: str) -> dict[str, Any]:
        """Check each value by its type; leave out what says nothing."""
        return {
            name: self._checked(known[name], item, f"{where}{name}")
            for name, item in given.items()
            if name in known and (known[name].null or not item.void())
        }

    def _checked(self, key: Key, item: Item, where: str) -> Any:
        value = item.value
        if key.null and value is None:
            return None
        shape = "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else ""
        shape = shape or "scalar"
        types = key.type.split("|")
        fitting = [one for one in types if _shape(one) == shape]
        if not fitting and shape == "scalar":
            fitting = [one for one in types if one in ("words", "homes")]  # one needs no list
        if not fitting:
            wanted = " or ".join(dict.fromkeys(_shape(one) for one in types))
            said = {"scalar": "one value", "list": "a list", "mapping": "a mapping"}
            wanted = " or ".join(said[one] for one in wanted.split(" or "))
            self._say(item, f"{where} must be {wanted}, not {said[shape]}")
            return None
        return self._of_type(fitting[0], key, item, where)

    def _of_type(self, type_: str, key: Key, item: Item, where: str) -> Any:
        if type_ == "mapping":
            given = self._normal(item)
            self._strangers(given, key.keys, where)
            return self._values(given, {one.name: one for one in key.keys}, f"{where}.")
        if type_ == "mappings":
            return [
                self._checked(Key(key.name, "mapping", key.doc, keys=key.keys), one, where)
                for one in item.value
            ]
        if type_ == "choice":
            if item.text not in key.choices:
                self._say(item, f"{where}: {_choice(item.text, key.choices)}")
            return item.text
        try:
            return TYPES[type_].check(item)
        except ValueError as exc:
            self._say(item, f"{where} {exc}" if type_ != "walltime" else f"{where}: {exc}")
            return None

    def _dask_config(self) -> dict[str, Any]:
        settings: dict[str, tuple[Any, Item]] = {}
        for name in ("dask_config", "distributed"):
            item = self.given.get(name)
            if item is None or item.value is None:
                continue
            if not isinstance(item.value, dict):
                self._say(item, f"{name} must be a mapping: lines 'name: value', indented")
                continue
            _flatten(item, "distributed" if name == "distributed" else "", settings)
        for name, (_, item) in settings.items():
            code = next((part for part in name.replace("_", "-").split(".") if part in _CODE), "")
            if code:
                self._say(
                    item,
                    f"{name} is not taken from a cluster config: it would run code, or lead "
                    f"elsewhere. Set it in Dask's own configuration if it must be",
                )
            else:
                close = derived.unknown_setting(name)
                if close is not None:
                    self._say(item, f"Dask has no setting {name}{close}")
        return {name: value for name, (value, _) in settings.items()}

    # -- tools --------------------------------------------------------------------------------

    def _normal(self, item: Item) -> dict[str, Item]:
        """Return a mapping's items by their names with underscores."""
        found: dict[str, Item] = {}
        for key, value in item.value.items():
            name = key.replace("-", "_")
            if name in found:
                self._say(value, f"{key!r} is there twice: in line {found[name].line} too")
            found[name] = value
        return found

    def _strangers(
        self,
        given: Iterable[str],
        keys: tuple[Key, ...],
        where: str,
        inner: KindKeys | None = None,
    ) -> None:
        """Note each key that is not known here, with the closest one that is."""
        known = [key.name for key in keys]
        items = cast("dict[str, Item]", given)
        for name in items:
            if name not in known:
                self._say(
                    items[name], f"{where} has no key {name!r}{_closest(name, known, inner)}"
                )

    def _value(self, name: str) -> Any:
        item = self.given.get(name)
        return None if item is None or item.void() else self._checked(_TOP[name], item, name)

    def _line(self, *names: str) -> int:
        """Return the line of the first of these sections that is there."""
        return next((self.given[n].line for n in names if n in self.given), self.top.line)

    def _say(self, item: Item, message: str) -> None:
        self.problems.add(item.line, message)

    def _warn(self, item: Item, message: str) -> None:
        """Warn at the line of the program that named the config, however deep it is."""
        frame, depth = sys._getframe(), 1
        while frame.f_back and str(frame.f_globals.get("__name__")).startswith("daskexec."):
            frame, depth = frame.f_back, depth + 1
        told = f"{self.path}, line {item.line}: {message}"
        warnings.warn(told, ExecutorWarning, stacklevel=depth)


def _shape(type_: str) -> str:
    return {"mapping": "mapping", "mappings": "list", "choice": "scalar"}.get(type_) or TYPES[
        type_
    ].shape


def _flatten(item: Item, prefix: str, into: dict[str, tuple[Any, Item]]) -> None:
    """Turn nested settings into dotted names; an empty mapping is a value."""
    for key, value in item.value.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value.value, dict) and value.value:
            _flatten(value, name, into)
        else:
            into[name] = (value.plain(), value)


def _meant(name: str, known: list[str]) -> list[str]:
    """Return the one that was probably meant, in a list, or none."""
    return difflib.get_close_matches(name.strip().lower(), known, n=1)


def _choice(text: str, known: Iterable[str]) -> str:
    names = list(known)
    close = _meant(text, names)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"must be one of {', '.join(names)}, not {text!r}{meant}"


def _closest(name: str, known: list[str], inner: KindKeys | None) -> str:
    close = _meant(name, known)
    if close and (inner is None or close[0] == name):
        return f"; did you mean {close[0]!r}?"
    if inner is not None:
        for section, keys in (
            ("cluster_kwargs", inner.cluster),
            ("adapt_kwargs", inner.adapt),
            ("scale", inner.scale),
        ):
            if name in [key.name for key in keys]:
                return f": it belongs into {section}"
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(known)}"
