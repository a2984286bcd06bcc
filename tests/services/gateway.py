"""A real dask-gateway server on loopback, whose clusters are processes of this machine.

``python tests/services/gateway.py FOLDER PORT`` serves until it is stopped: the gateway at
http://127.0.0.1:PORT, its proxy to the schedulers at PORT + 1, the password is "test". It needs
the packages dask-gateway-server[local] and distributed, and nothing else: the wheel of
dask-gateway-server brings its proxy along. Clusters take these options:

- ``worker_cores``: threads of a worker, 1 or 2;
- ``scheduler``: ``"fails"`` ends at once, ``"hangs"`` never listens, ``"refused"`` is not started
  at all; else a real one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PASSWORD = "test"

MOST_WORKERS = 3
"""Workers that a cluster may have: the gateway cuts down what asks for more."""

CONFIG = """
import sys
from dask_gateway_server.options import Integer, Options, Select

folder, port, python = {folder!r}, {port}, {python!r}
dask = [python, "-m", "dask"]
hang = [python, "-c", "import time; time.sleep(600)"]


def chosen(options):
    if options.scheduler == "refused":
        raise ValueError("your group may have no more clusters")
    commands = {{"works": [*dask, "scheduler"], "fails": ["false"], "hangs": hang}}
    return {{
        "worker_cores": options.worker_cores,
        "scheduler_cmd": commands[options.scheduler],
    }}


c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = {password!r}
c.DaskGateway.address = "127.0.0.1:0"
c.Proxy.address = f"127.0.0.1:{{port}}"
c.Proxy.tcp_address = f"127.0.0.1:{{port + 1}}"
c.UnsafeLocalBackend.clusters_directory = folder + "/clusters"
c.UnsafeLocalBackend.cluster_options = Options(
    Integer("worker_cores", default=1, min=1, max=2),
    Select("scheduler", ["works", "fails", "hangs", "refused"], default="works"),
    handler=chosen,
)
# Distributed no longer has the scripts dask-scheduler and dask-worker, which are the defaults.
c.ClusterConfig.worker_cmd = [*dask, "worker"]
c.ClusterConfig.worker_memory = "500 M"
c.ClusterConfig.scheduler_memory = "500 M"
c.ClusterConfig.cluster_max_workers = {most}
# What changes is seen within a second; the defaults are up to half a minute.
c.ClusterConfig.adaptive_period = 0.3
c.UnsafeLocalBackend.cluster_heartbeat_period = 1
c.UnsafeLocalBackend.cluster_heartbeat_timeout = 60
c.UnsafeLocalBackend.cluster_status_period = 0.5
c.UnsafeLocalBackend.worker_status_period = 0.5
c.UnsafeLocalBackend.sigint_timeout = 2
"""


def main(folder: str, port: str) -> None:
    """Become the server."""
    path = Path(folder, "gateway_config.py")
    Path(folder, "clusters").mkdir(parents=True, exist_ok=True)
    path.write_text(
        CONFIG.format(
            folder=folder,
            port=int(port),
            python=sys.executable,
            password=PASSWORD,
            most=MOST_WORKERS,
        )
    )
    command = [sys.executable, "-m", "dask_gateway_server", "-f", str(path)]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
