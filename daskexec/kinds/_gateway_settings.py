"""What a cluster config says of a gateway: checked, and with the login made."""

from __future__ import annotations

import getpass
import importlib.util
import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from daskexec.config import ClusterConfig
from daskexec.errors import PackageMissing
from daskexec.kinds._workers_only import check, wrong

__all__ = ["AUTH_KEYS", "KEYS", "checked"]

#: What ``cluster_kwargs`` may hold. ``options`` is a shorter name for ``cluster_options``;
#: ``cluster_name`` names a cluster that runs already, which is then used and left running.
KEYS = (
    "address", "proxy_address", "public_address", "auth", "cluster_options", "options",
    "cluster_name", "shutdown_on_close",
)  # fmt: skip

#: What ``auth`` may hold beside its ``type``, for each type. No other types: a dotted name of a
#: class, which dask-gateway itself would take, is code and not data.
AUTH_KEYS: dict[str, tuple[str, ...]] = {
    "basic": ("username", "password"),
    "kerberos": (),
    "jupyterhub": ("api_token",),
}


def checked(config: ClusterConfig) -> dict[str, Any]:
    """Return the settings, checked, with ``auth`` made and names that are left out filled in."""
    import dask
    from dask_gateway.utils import format_template

    given = dict(config.cluster_kwargs)
    check(config, KEYS, "a gateway", of="a gateway")
    options = given.pop("options", None)
    given.setdefault("cluster_options", options or {})
    if not isinstance(given["cluster_options"], Mapping):
        raise wrong(config, "cluster_options must be a mapping of the gateway's own options")
    address = given.get("address") or format_template(dask.config.get("gateway.address", None))
    if not address:
        raise wrong(config, "address is missing: the URL of the gateway, http(s)://...")
    given["address"] = str(address).rstrip("/")
    _check_plain(config, given["address"])
    given["auth"] = _auth(config, given.get("auth"))
    return given


def _check_plain(config: ClusterConfig, address: str) -> None:
    """Refuse to send a login over the network for all to read, unless that was asked for."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise wrong(config, f"address must be a URL, http(s)://host:port, not {address!r}")
    if url.scheme == "https" or config.insecure or url.hostname == "localhost":
        return
    try:
        if ipaddress.ip_address(url.hostname).is_loopback:
            return
    except ValueError:
        pass  # a name
    raise wrong(
        config,
        f"{address} is not encrypted: the login and the keys of the cluster would cross the "
        f"network for all to read. Use https://, or say 'insecure: true' if that is meant",
    )


def _auth(config: ClusterConfig, given: Any) -> Any:
    """Make dask-gateway's object for the login."""
    import dask
    from dask_gateway import auth as known
    from dask_gateway.utils import format_template

    if given is None:  # as dask-gateway's own configuration says
        kwargs = dask.config.get("gateway.auth.kwargs", None) or {}
        given = {key: format_template(value) for key, value in kwargs.items()}
        given["type"] = dask.config.get("gateway.auth.type", "basic")
    given = {"type": given} if isinstance(given, str) else dict(given)
    kind = given.pop("type", "basic")
    given = {**(given.pop("kwargs", None) or {}), **given}
    if kind not in AUTH_KEYS:
        raise wrong(config, f"auth type must be one of {', '.join(AUTH_KEYS)}, not {kind!r}")
    for key in given:
        if key not in AUTH_KEYS[kind]:
            raise wrong(config, f"auth of type {kind} has no key {key!r}")
    if kind == "kerberos":
        if importlib.util.find_spec("kerberos") is None:
            raise PackageMissing(
                "auth type kerberos needs the package kerberos: pip install pykerberos", "kerberos"
            )
        return known.KerberosAuth()
    if kind == "jupyterhub":
        try:
            return known.JupyterHubAuth(**given)
        except ValueError as exc:
            raise wrong(config, str(exc)) from None
    return known.BasicAuth(
        username=str(given.get("username") or getpass.getuser()),
        password=str(given.get("password") or ""),
    )
