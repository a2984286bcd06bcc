"""The table of keys for others: a JSON Schema for editors, and the tables of a README. Floor 1.

``python -m daskexec.config.schema`` writes both into ``cluster_configs/``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daskexec.config.keys import CLASSES, KINDS, OLD_NAMES, TOP, Key, KindKeys
from daskexec.config.model import QUEUES
from daskexec.config.names import shipped
from daskexec.config.values import TYPES

__all__ = ["json_schema", "readme", "schema_text", "write"]

_MARK = "<!-- from here on written by: python -m daskexec.config.schema -->"


def json_schema() -> dict[str, Any]:
    """Return what the loader takes, as JSON Schema, draft 2020-12.

    It knows less than the loader: no walltimes, no sizes, nothing of Dask's own files.
    """
    by_kind = ("cluster_kwargs", "scale", "adapt_kwargs")  # said below
    inner: dict[str, dict[str, Any]] = {name: {} for name in by_kind}
    names = {"kind": {"enum": list(KINDS)}, "cluster_class": {"enum": list(CLASSES)}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cluster config of daskexec",
        **_mapping(TOP, {**inner, **names, "jobqueue": {"type": "object"}}),
        "anyOf": [{"required": [name]} for name in ("kind", "cluster_class", "jobqueue")],
        "allOf": [_of_kind(kind, keys) for kind, keys in KINDS.items()],
        "$defs": {
            **{name: _or_null([type_.schema]) for name, type_ in TYPES.items()},
            **_shared(),
        },
    }


def _of_kind(kind: str, keys: KindKeys) -> dict[str, Any]:
    """Return what holds where the file names that kind, by either way."""
    classes = [name for name, of in CLASSES.items() if of == kind]
    named = [{"properties": {"kind": {"const": kind}}, "required": ["kind"]}]
    if classes:
        named.append(
            {"properties": {"cluster_class": {"enum": classes}}, "required": ["cluster_class"]}
        )
    names = {**OLD_NAMES.get(kind, {}), **({"name": "job_name"} if kind in QUEUES else {})}
    old = {name: _old(name, new, keys) for name, new in names.items()}
    then: dict[str, Any] = {"cluster_kwargs": _or_null([_mapping(keys.cluster, {}, old)])}
    for name, section in (("scale", keys.scale), ("adapt_kwargs", keys.adapt)):
        then[name] = _or_null([_mapping(section, {})]) if section else {"type": "null"}
    return {"if": {"anyOf": named}, "then": {"properties": then}}


def _mapping(
    keys: tuple[Key, ...], own: dict[str, Any], old: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a closed mapping. Editors offer names with underscores; hyphens are valid too."""
    values = {key.name: own[key.name] if key.name in own else _value(key) for key in keys}
    values |= old or {}
    docs = {key.name: {"description": key.doc} for key in keys}
    return {
        "type": "object",
        "properties": {name: {**docs.get(name, {}), **one} for name, one in values.items()},
        "patternProperties": {
            f"^{name.replace('_', '[-_]')}$": one for name, one in values.items() if "_" in name
        },
        "additionalProperties": False,
    }


def _old(name: str, new: str, keys: KindKeys) -> dict[str, Any]:
    key = next(key for key in keys.cluster if key.name == new)
    return {**_value(key), "deprecated": True, "description": f"Other name of {new}."}


def _value(key: Key) -> dict[str, Any]:
    if key.type in TYPES or _is_shared(key):
        return {"$ref": f"#/$defs/{key.name if _is_shared(key) else key.type}"}
    return _or_null([_form(type_, key) for type_ in key.type.split("|")])


def _is_shared(key: Key) -> bool:
    return _SHARED.get(key.name) == key


def _shared() -> dict[str, Any]:
    """Return the mappings that are the same for several kinds, said once."""
    return {name: _or_null([_mapping(key.keys, {})]) for name, key in _SHARED.items()}


# The options of the scheduler are told in each kind of queue.
_SHARED = {key.name: key for key in KINDS["slurm"].cluster if key.type == "mapping"}


def _or_null(forms: list[dict[str, Any]]) -> dict[str, Any]:
    if len(forms) == 1 and "anyOf" in forms[0]:
        forms = forms[0]["anyOf"]
    return {"anyOf": [*forms, {"type": "null"}]}


def _form(type_: str, key: Key) -> dict[str, Any]:
    if type_ == "choice":
        return {"enum": list(key.choices)}
    if type_ == "mapping":
        return _mapping(key.keys, {})
    if type_ == "mappings":
        return {"type": "array", "items": _mapping(key.keys, {})}
    return {"$ref": f"#/$defs/{type_}"}


def schema_text() -> str:
    """Return the text of ``schema.json``."""
    return _lines(json_schema(), "") + "\n"


def _lines(value: Any, indent: str) -> str:
    """Return JSON that is indented where it would not fit a line."""
    short = json.dumps(value)
    if len(short) + len(indent) < 99 or not isinstance(value, (dict, list)):
        return short
    if isinstance(value, list):
        parts = [_lines(one, indent + " ") for one in value]
    else:
        parts = [f"{json.dumps(name)}: {_lines(one, indent + ' ')}" for name, one in value.items()]
    left, right = "[]" if isinstance(value, list) else "{}"
    inner = f",\n{indent} ".join(parts)
    return f"{left}\n{indent} {inner}\n{indent}{right}"


# -- for people -----------------------------------------------------------------------------------


def readme(before: str) -> str:
    """Return a README with the tables of keys in the place of those that it has."""
    head = before.partition(_MARK)[0]
    lines = [head + _MARK, "", "## Every key", "", "At the top of the file:", ""]
    lines += _table(TOP)
    lines += ["", "### `client_kwargs`, of every kind", ""]
    lines += _table(next(key.keys for key in TOP if key.name == "client_kwargs"))
    common = _common()
    lines += ["", "### `cluster_kwargs`, of every queue", ""]
    lines += ["But for what its own table says, and where a queue has no such thing.", ""]
    lines += _table(common)
    lines += ["", "`scale`:", "", *_table(KINDS["slurm"].scale)]
    lines += ["", "`adapt_kwargs`:", "", *_table(KINDS["slurm"].adapt)]
    for kind, keys in KINDS.items():
        lines += ["", f"### `{kind}`: {keys.doc}", ""]
        if kind in QUEUES:
            names = [key.name for key in keys.cluster]
            lacks = [key.name for key in common if key.name not in names]
            own = tuple(key for key in keys.cluster if key not in common)
            lines += _table(own) if own else ["Those of every queue."]
            if lacks:
                lines += ["", f"It has no {', '.join(f'`{name}`' for name in lacks)}."]
            continue
        lines += [*_table(keys.cluster), ""]
        if keys.fixed:
            lines += [f"No `scale` and no `adapt_kwargs`: {keys.fixed}."]
        else:
            lines += ["`scale`:", "", *_table(keys.scale), ""]
            lines += ["`adapt_kwargs`:", "", *_table(keys.adapt)]
    return "\n".join(lines) + "\n"


def _common() -> tuple[Key, ...]:
    """Return the keys that at least four queues share."""
    counts: dict[Key, int] = {}
    for kind in QUEUES:
        for key in KINDS[kind].cluster:
            counts[key] = counts.get(key, 0) + 1
    return tuple(key for key, count in counts.items() if count > 3 or key.name == "account")


def _table(keys: tuple[Key, ...], prefix: str = "") -> list[str]:
    lines = [] if prefix else ["| key | value | what for, and its unit |", "|---|---|---|"]
    for key in keys:
        lines.append(f"| `{prefix}{key.name}` | {_said(key)} | {key.doc} |")
        if prefix or key.name != "client_kwargs":
            lines += _table(key.keys, f"{prefix}{key.name}.") if key.keys else []
    return lines


def _said(key: Key) -> str:
    said = []
    for type_ in key.type.split("|"):
        if type_ == "choice":
            said.append(", ".join(f"`{one}`" for one in key.choices) or "a name")
        else:
            known = {"mapping": "keys below", "mappings": "list of these"}
            said.append(known.get(type_) or TYPES[type_].said)
    return " or ".join(said)


def write(folder: Path) -> None:
    """Write ``schema.json`` and the tables of ``README.md`` into a folder."""
    (folder / "schema.json").write_text(schema_text())
    path = folder / "README.md"
    path.write_text(readme(path.read_text()))


if __name__ == "__main__":
    write(shipped())
