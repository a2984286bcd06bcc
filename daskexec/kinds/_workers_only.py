"""Checks of the configs of clusters that are sized by workers: gateways and Kubernetes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from daskexec.config import ClusterConfig
from daskexec.errors import ConfigError

__all__ = ["check", "closest", "wrong"]


def check(config: ClusterConfig, keys: Iterable[str], what: str, of: str) -> None:
    """Refuse keys of ``cluster_kwargs`` that are not known, and sizes in anything but workers.

    Parameters
    ----------
    config : ClusterConfig
    keys : iterable of str
        What ``cluster_kwargs`` may hold.
    what : str
        Begins the sentences on its size, such as ``a gateway``.
    of : str
        Ends those on its keys.

    Raises
    ------
    ConfigError
        Says what is wrong.
    """
    for key in config.cluster_kwargs:
        if key not in keys:
            raise wrong(config, f"{key!r} is no key of {of}{closest(key, keys)}")
    for key in config.adapt:
        if key not in ("minimum", "maximum"):
            raise wrong(
                config, f"{what} adapts by 'minimum' and 'maximum' workers only, not {key!r}"
            )
    if config.scale and list(config.scale) != ["workers"]:
        raise wrong(config, f"{what} is scaled by workers: scale: {{workers: 4}}")


def wrong(config: ClusterConfig, message: str) -> ConfigError:
    """Return the error, with where the config came from."""
    source = config.source or config.name
    return ConfigError(f"{source}: {message}", source)


def closest(name: object, known: Iterable[object]) -> str:
    """Return a hint at the closest of what is known; nothing if none is close."""
    near = difflib.get_close_matches(str(name), [str(k) for k in known], 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
