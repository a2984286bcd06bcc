"""Connecting to a scheduler safely, and saying what is wrong when that fails. Floor 5.

Role: which certificates are used; plaintext is refused where others can listen; what Dask's
configuration would do to a client without being asked is not done; an error says whether it
was the address, the certificate, the CA, or TLS where there is none. Everything here runs in
the caller's thread but for one attempt to connect, which has a thread and a loop of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import os
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from daskexec.errors import (
    ClusterUnreachable,
    ConfigError,
    ExecutorWarning,
    InsecureConnection,
    PackageMissing,
)

__all__ = [
    "connected",
    "is_loopback",
    "keys_of",
    "only_what_was_asked_for",
    "refuse_plaintext",
    "registered",
    "security_from",
    "temporary_security",
    "warn_insecure",
]

#: Says "yes" for addresses that a program does not name itself (``DASKEXEC_EXECUTOR``).
ENVIRONMENT_VARIABLE = "DASKEXEC_INSECURE"

_PLAIN = ("tcp", "ws", "ucx")
_NETWORKED = ("tcp", "tls", "ws", "wss")

_CERTIFICATES = (
    "tls_ca_file, tls_client_cert and tls_client_key: as security: of a cluster config of kind "
    "scheduler, or in Dask's configuration (distributed.comm.tls.ca-file, .client.cert and "
    ".client.key)"
)

_Made = TypeVar("_Made")
#: Times that a client is made at most until one has registered.
_ATTEMPTS = 5

_said: set[str] = set()
_said_lock = threading.Lock()  # guards _said


def _warn_once(message: str) -> None:
    with _said_lock:
        if message in _said:
            return
        _said.add(message)
    # Not warnings.warn: no line of this file explains anything to its reader.
    warnings.warn_explicit(message, ExecutorWarning, "daskexec", 0)


# --- plaintext ----------------------------------------------------------------------------------


def _split(address: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address; the port is 0 where it has none."""
    scheme, _, rest = address.partition("://")
    parts = urlsplit(f"//{rest}")
    return scheme, parts.hostname or "", parts.port or 0


def is_loopback(host: str) -> bool:
    """Tell whether all that a host name or address stands for is this machine's loopback."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)


def refuse_plaintext(address: str, insecure: bool) -> None:
    """Refuse to speak plaintext with another machine, unless that was asked for.

    Raises
    ------
    InsecureConnection
        It would be plaintext, to an address that is not loopback.
    ClusterUnreachable
        No host has that name.
    """
    scheme, host, _ = _split(address)
    if scheme not in _PLAIN:
        return
    try:
        if is_loopback(host):
            return
    except OSError as exc:
        raise ClusterUnreachable(
            f"no Dask scheduler answered at {address}: no host is called {host!r} ({exc.strerror})"
        ) from None
    if insecure or os.environ.get(ENVIRONMENT_VARIABLE, "").lower() in ("1", "true", "yes"):
        warn_insecure(address)
        return
    raise InsecureConnection(
        f"{address} is another machine's and not encrypted: whoever is on the network between can "
        f"read what is sent, and run code as you by changing it. Two ways out: run the scheduler "
        f"with TLS and connect to tls://...; or, on a network that you trust, say so with "
        f"insecure=True (insecure: true in a cluster config, --insecure on the command line, or "
        f"{ENVIRONMENT_VARIABLE}=1)"
    )


def warn_insecure(address: str) -> None:
    """Warn once that the connections of a cluster at `address` are plaintext, if others hear."""
    with contextlib.suppress(OSError):
        if is_loopback(_split(address)[1]):
            return
    _warn_once(
        f"the connection to {address} is not encrypted, as asked for: whoever reaches its network "
        f"can read and change what is sent, and run code as the users of the cluster"
    )


# --- certificates -------------------------------------------------------------------------------


def security_from(keys: Mapping[str, Any] | None, source: str = "") -> Any:
    """Return the ``distributed.Security`` of a config's ``security:``.

    Parameters
    ----------
    keys : mapping, optional
        ``tls_ca_file``, ``tls_client_cert``, ``tls_client_key``, ``tls_ciphers``,
        ``require_encryption``. None: what Dask's own configuration says.
    source : str
        Path of the config, for messages.

    Raises
    ------
    ConfigError
        A key is unknown, or a file cannot be read.
    """
    from distributed.security import Security

    if keys is None:
        return Security()
    files = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    options = {}
    for key, value in keys.items():
        if key not in (*files, "tls_ciphers", "require_encryption"):
            raise ConfigError(
                f"{source}: security has no key {key!r}; there are {', '.join(files)}, "
                f"tls_ciphers and require_encryption",
                source,
            )
        options[key] = value
        if key in files:
            options[key] = path = str(Path(os.path.expandvars(str(value))).expanduser())
            if not os.access(path, os.R_OK):
                why = "cannot be read" if os.path.exists(path) else "does not exist"
                raise ConfigError(f"{source}: security: {key}: {path} {why}", source)
    return Security(**options)


def temporary_security() -> Any:
    """Return a ``distributed.Security`` with certificates made now, in memory only.

    Raises
    ------
    PackageMissing
        ``cryptography`` is not installed.
    """
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError:
        raise PackageMissing(
            "TLS with certificates made for the run needs the package cryptography, and it is "
            "not installed here: pip install 'daskexec[tls]'",
            "cryptography",
        ) from None


def keys_of(security: Any) -> dict[str, Any] | None:
    """Return what ``Security(**keys)`` makes the same of, as JSON can carry it."""
    if security is None:
        return None
    names = [name for name in security.__slots__ if name.startswith("tls_")]
    keys = {name: getattr(security, name) for name in names if not name.endswith("_version")}
    return {**keys, "require_encryption": security.require_encryption}


def _arguments(address: str, security: Any) -> dict[str, Any]:
    """Return what Dask needs to connect; fail where certificates are missing or unusable."""
    encrypted = address.startswith(("tls://", "wss://"))
    try:
        arguments: dict[str, Any] = security.get_connection_args("client")
    except (OSError, ssl.SSLError) as exc:
        file = f" {exc.filename}" if getattr(exc, "filename", None) else ""
        raise ClusterUnreachable(
            f"no connection to {address} was tried: the certificates for it cannot be "
            f"loaded ({exc}{file}). Check {_CERTIFICATES}"
        ) from None
    if encrypted and arguments.get("ssl_context") is None:
        raise ClusterUnreachable(
            f"no connection to {address} was tried: TLS needs a CA and a certificate of your own. "
            f"Name {_CERTIFICATES}"
        )
    if not encrypted and security.require_encryption:
        raise ClusterUnreachable(
            f"no connection to {address} was tried: encryption is required "
            f"(require_encryption, or distributed.comm.require-encryption of Dask's "
            f"configuration), and this address has none. A scheduler with TLS is at tls://..."
        )
    return arguments


# --- connecting ---------------------------------------------------------------------------------


def connected(address: str, timeout: Any, security: Any = None, **options: Any) -> Any:
    """Return a ``distributed.Client`` that is connected to the scheduler at `address`.

    Parameters
    ----------
    address : str
    timeout : float or str
        Seconds, or as Dask writes them (``"60s"``), in which it must answer.
    security : distributed.Security, optional
        By default what Dask's configuration says.
    **options
        For the client.

    Raises
    ------
    ClusterUnreachable
        Nobody answered, or the two did not agree on TLS; says which, as far as can be told.
    """
    from dask.utils import parse_timedelta
    from distributed import Client

    security = security_from(None) if security is None else security
    seconds = float(parse_timedelta(timeout, default="seconds") or 10)
    if address.partition("://")[0] in _NETWORKED:
        # Not the client's own attempt: one that failed waits 20 s for its end.
        _try(address, seconds, _arguments(address, security))
    try:
        with only_what_was_asked_for("distributed.client.security-loader"):
            return registered(
                lambda: Client(
                    address, timeout=timeout, security=security, set_as_default=False, **options
                )
            )
    except OSError as exc:
        raise _unreachable(address, seconds, exc) from None  # 40 lines of Dask's say no more


def registered(make: Callable[[], _Made]) -> _Made:
    """Return what `make` makes: a client of Dask that has registered with its scheduler.

    The scheduler tells all clients of each task that one of them cancels. A client takes the first
    message for the scheduler's answer, and for that alone: if it comes together with such news its
    constructor raises AssertionError. Then another one is made.
    """
    for _ in range(_ATTEMPTS - 1):
        before = _default_client()
        try:
            return make()
        except AssertionError:
            half = _default_client()
            if half is not None and half is not before:  # and would stay that, though of no use
                half.close()
    return make()


def _default_client() -> Any:
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def _try(address: str, seconds: float, arguments: dict[str, Any]) -> None:
    """Connect and let go again."""
    from distributed.comm.core import connect

    async def attempt() -> None:
        async def both_ways() -> None:
            comm = await connect(address, timeout=seconds, **arguments)
            comm.abort()

        # Dask waits without an end for what is said first, once the port has answered.
        await asyncio.wait_for(both_ways(), seconds + 1)

    # The caller's thread may run a loop already.
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(attempt()))
        except BaseException as exc:
            done.set_exception(exc)

    threading.Thread(target=run, name="daskexec connect", daemon=True).start()
    try:
        done.result(seconds + 5)
    except (OSError, ValueError, TimeoutError, asyncio.TimeoutError) as exc:
        raise _unreachable(address, seconds, exc) from None


def _unreachable(address: str, seconds: float, error: BaseException) -> ClusterUnreachable:
    """Tell which of the things that can be wrong it was."""
    scheme, host, port = _split(address)
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return ClusterUnreachable(
            f"the scheduler at {address} was not trusted: its certificate is not signed by the "
            f"CA in tls_ca_file ({error.__cause__.verify_message}). Use the CA of that "
            f"cluster; if you do, somebody else answers at this address"
        )
    spoken = "" if isinstance(error, TimeoutError) else _spoken_at(host, port)
    if scheme in ("tls", "wss") and spoken == "plain":
        return ClusterUnreachable(
            f"the scheduler at {address} does not speak TLS: either it was started without (then "
            f"tcp://{host}:{port} with insecure=True is what it takes), or this is the wrong port"
        )
    if scheme in ("tls", "wss") and spoken == "tls":
        return ClusterUnreachable(
            f"the scheduler at {address} refused your certificate ({_line(error)}): it is not "
            f"signed by that cluster's CA, or has expired. Check tls_client_cert and "
            f"tls_client_key"
        )
    if spoken == "tls":
        return ClusterUnreachable(
            f"the scheduler at {address} speaks TLS only: connect to tls://{host}:{port}, with "
            f"{_CERTIFICATES}"
        )
    return ClusterUnreachable(
        f"no Dask scheduler answered at {address} within {seconds:g} s ({_line(error)}). Is it "
        f"running, and can it be reached from {os.uname().nodename}?"
    )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reply'}"


def _spoken_at(host: str, port: int) -> str:
    """Return "tls" or "plain" for what a port takes; "" where that cannot be told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said to it
    try:
        with socket.create_connection((host, port), timeout=2) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLError as exc:
        if "ALERT" in (exc.reason or ""):
            return "tls"
        return "plain" if exc.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE") else ""
    except (OSError, ValueError):
        return ""
    return "tls"


# --- what Dask's configuration would do by itself -----------------------------------------------


@contextlib.contextmanager
def only_what_was_asked_for(*more: str) -> Iterator[None]:
    """Make a client in the body without running what Dask's configuration tells it to.

    ``distributed.client.preload`` runs code. A warning says, once, that it was set and not
    obeyed; also where one of `more` was set: ``distributed.client.security-loader``, which calls
    any function, or ``scheduler-address``, which leads to another scheduler than was asked for.
    """
    import dask.config

    for key in (_PRELOAD, *more):
        value = dask.config.get(key, None)
        if value:
            instead = _NOT_OBEYED[key]
            _warn_once(f"{key} = {value!r} of Dask's configuration is not obeyed: {instead}")
    if dask.config.get(_PRELOAD, None):
        with dask.config.set({_PRELOAD: []}):
            yield
    else:
        yield


_PRELOAD = "distributed.client.preload"
_NOT_OBEYED = {
    "scheduler-address": "to use that scheduler pass its address as cluster=",
    _PRELOAD: "it runs code; to have it pass a Client of your own as cluster=",
    "distributed.client.security-loader": (
        "it calls code; to have it pass a Client of your own as cluster=, or name the "
        "certificates in a cluster config"
    ),
}
