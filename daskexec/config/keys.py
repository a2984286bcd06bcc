"""The table of all that a cluster config may say. Floor 1.

One line a key: its name, its type (of `daskexec.config.values.TYPES`; several where it may take
several shapes), and what it is for, with its unit. The loader's checks, the JSON Schema for
editors and the tables in ``cluster_configs/README.md`` are all made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daskexec.config.model import QUEUES

__all__ = ["CLASSES", "KINDS", "OLD_NAMES", "TOP", "Key", "KindKeys"]


@dataclass(frozen=True)
class Key:
    """A key of a config.

    Attributes
    ----------
    name : str
        With underscores; hyphens will do as well.
    type : str
        Of `TYPES`, "choice", "mapping" (of `keys`), or "mappings" (a list of such); several
        with "|" between them.
    doc : str
        One line for people, with the unit.
    choices : tuple of str
        All that a "choice" can be.
    keys : tuple of Key
        All that a "mapping" can hold.
    null : bool
        Whether null says something; elsewhere it is as if the key were left out.
    """

    name: str
    type: str
    doc: str
    choices: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    null: bool = False


@dataclass(frozen=True)
class KindKeys:
    """What a config of a kind may say.

    Attributes
    ----------
    doc : str
        What it starts.
    cluster : tuple of Key
        Of ``cluster_kwargs``.
    scale, adapt : tuple of Key
        Of ``scale`` and ``adapt_kwargs``; none where it can have none.
    fixed : str
        Why there is no ``scale`` or ``adapt_kwargs``, and what to do instead.
    start_timeout : float
        Seconds, where the file says nothing.
    elsewhere : mapping of str to str
        Keys that Dask's class takes, and that are refused: what to write instead.
    """

    doc: str
    cluster: tuple[Key, ...]
    scale: tuple[Key, ...] = ()
    adapt: tuple[Key, ...] = ()
    fixed: str = ""
    start_timeout: float = 900.0
    elsewhere: Mapping[str, str] = field(default_factory=dict)


_CLIENT = (
    Key("timeout", "seconds", "How long the scheduler may take to answer. Seconds."),
    Key("name", "text", "Name of the client on the dashboard."),
    Key("heartbeat_interval", "duration", "Time between two signs of life. Seconds."),
    Key("direct_to_workers", "flag", "Whether results come from the workers directly."),
    Key("connection_limit", "count", "Most connections that are open at a time."),
)

TOP = (
    Key("description", "text", "One line for people: what `daskexec clusters` shows."),
    Key("kind", "choice", "What is started: one of the kinds below."),
    Key("cluster_class", "choice", "The same, by the name of Dask's class."),
    Key("cluster_kwargs", "mapping", "For the cluster: the keys of its kind, below."),
    Key("scale", "mapping", "How large the cluster is; not with adapt_kwargs."),
    Key("adapt_kwargs", "mapping", "Between which bounds it follows the work; not with scale."),
    Key("client_kwargs", "mapping", "For the connection to the scheduler.", keys=_CLIENT),
    Key("dask_config", "free", "Dask's configuration: dotted names to values."),
    Key("start_timeout", "seconds", "How long the first worker may take to come. Seconds."),
    Key("insecure", "flag", "No TLS, where it is the default: all may read and run calls."),
    Key("jobqueue", "free", "dask-jobqueue's own file, pasted, in place of the keys above."),
    Key("distributed", "free", "distributed's own file, pasted, in place of dask_config."),
)

_TLS = Key(
    "security", "mapping", "For TLS, which an address with tls:// needs.",
    keys=(
        Key("tls_ca_file", "home", "Certificate of who signed the scheduler's. File, PEM."),
        Key("tls_client_cert", "home", "Certificate of the client. File, PEM."),
        Key("tls_client_key", "home", "Its key. File, PEM."),
        Key("tls_ciphers", "text", "Ciphers that may be used, as OpenSSL has them."),
        Key("require_encryption", "flag", "Whether to refuse what is not encrypted."),
    ),
)  # fmt: skip

_SCHEDULER_OPTIONS = Key(
    "scheduler_options", "mapping", "For the scheduler.",
    keys=(
        Key("host", "text", "Address or name that it listens at and is told to the workers."),
        Key("interface", "text", "Network interface that it listens on, such as ib0."),
        Key("port", "port", "TCP port that it listens at; 0: any."),
        Key("dashboard", "flag", "Whether to serve the dashboard."),
        Key("dashboard_address", "text", "Where to: :8787, or host:8787."),
        Key("http_prefix", "text", "Path that the dashboard's pages are under."),
        Key("contact_address", "text", "Address that workers are told, where it is another."),
        Key("idle_timeout", "duration", "Ends without work after so long. Seconds."),
        Key("worker_ttl", "duration", "Silence after which a worker counts as lost. Seconds."),
        Key("allowed_failures", "whole", "Deaths of workers that a task may survive."),
    ),
)  # fmt: skip

# --- queues --------------------------------------------------------------------------------------

_JOB = (
    Key("cores", "count", "Cores of a job: threads of all its workers together."),
    Key("memory", "size", "Memory of a job. Bytes: 64GiB."),
    Key("processes", "count", "Worker processes that a job is cut into; 1 if left out."),
    Key("queue", "text", "Queue or partition that jobs are submitted to."),
    Key("account", "text", "Account that the time is charged to."),
    Key("project", "text", "Project that the time is charged to."),
    Key("walltime", "walltime", "How long a job may run, quoted: \"02:00:00\". Hours:min:s."),
    Key("interface", "text", "Network interface of scheduler and workers, such as ib0."),
    Key("local_directory", "there", "Where workers spill to; $TMPDIR is the job's own."),
    Key("log_directory", "path", "Where the output of jobs goes; is made if it is not there."),
    Key("shared_temp_directory", "home", "Where keys for TLS lie; all nodes must see it."),
    Key("death_timeout", "duration", "How long workers look for their scheduler. Seconds."),
    Key("python", "there", "Python of the workers; that of this process if left out."),
    Key("job_name", "text", "Name of the jobs in the queue."),
    Key("job_script_prologue", "words", "Lines of shell that run before the worker."),
    Key("job_extra_directives", "words", "More directives for the queue, without #SBATCH, #PBS."),
    Key("job_directives_skip", "words", "Directives with one of these texts are left out."),
    Key("worker_extra_args", "words", "More arguments of dask worker."),
    Key("worker_command", "text", "Module that is the worker; distributed.cli.dask_worker."),
    Key("nanny", "flag", "Whether a process watches each worker and starts it anew."),
    Key("shebang", "text", "First line of the job script."),
    Key("config_name", "text", "Section of dask's jobqueue.yaml that fills what is left out."),
    _SCHEDULER_OPTIONS,
)  # fmt: skip
_BY_NAME = {key.name: key for key in _JOB}

_SPEC = Key("resource_spec", "text", "What a job asks for, in the queue's own words.")


def _job(*own: Key, without: str = "") -> tuple[Key, ...]:
    """Return the keys of all jobs, but for some, with those of one queue."""
    mine = {key.name: key for key in own}
    left = {name: key for name, key in _BY_NAME.items() if name not in without.split()}
    return tuple({**left, **mine}.values())


_JOBS = (Key("jobs", "count", "Jobs that are in the queue or run, all the time. Jobs."),)
_FOLLOW = (
    Key("interval", "duration", "Time between two looks at the work. Seconds."),
    Key("wait_count", "count", "Looks that find a worker idle before it goes. Number."),
    Key("target_duration", "duration", "In how long the work is to be done. Seconds."),
)
_ADAPT_JOBS = (
    Key("minimum_jobs", "whole", "Fewest jobs, also without work. Jobs."),
    Key("maximum_jobs", "count", "Most jobs. Jobs."),
    *_FOLLOW,
)
_WORKERS = (Key("workers", "count", "Workers, all the time. Workers."),)
_ADAPT_WORKERS = (
    Key("minimum", "whole", "Fewest workers, also without work. Workers."),
    Key("maximum", "count", "Most workers. Workers."),
)

_NOT_FOR_QUEUES = {
    "n_workers": "how large the cluster is, is said by scale: {jobs: 4}",
    "protocol": "TLS is the default; insecure: true, at the top of the file, switches it off",
    "security": "TLS is the default; insecure: true, at the top of the file, switches it off",
    "dashboard_address": "write scheduler_options: {dashboard_address: ...}",
    "host": "write scheduler_options: {host: ...}",
}

# --- all -----------------------------------------------------------------------------------------

_RESOURCES = Key("resources", "free", "What a worker offers, such as {GPU: 1}. Any unit.")
_SPILL = Key("local_directory", "home", "Where workers spill to.")

_LOCAL = (
    Key("n_workers", "count", "Worker processes; as many as cores if left out."),
    Key("threads_per_worker", "count", "Calls that a worker runs at a time. Threads."),
    Key("memory_limit", "limit", "Memory of a worker, near which it spills. Bytes; 0: none."),
    Key("host", "text", "Address to listen at; 127.0.0.1 if left out."),
    Key("scheduler_port", "port", "TCP port of the scheduler; 0: any."),
    Key("dashboard_address", "text", "Where to serve the dashboard: 127.0.0.1:8787."),
    Key("silence_logs", "whole", "Level of Python's logging below which nothing is logged."),
    Key("name", "text", "Name of the cluster."),
    Key(
        "security", "flag", "TLS, with certificates made for the run; for machines of many users."
    ),
    Key("protocol", "choice", "What connections are.", ("tcp://", "tls://")),
    _SPILL,
    _RESOURCES,
)

_SSH_CONNECT = (
    Key("username", "text", "Who logs in there."),
    Key("port", "port", "TCP port of sshd there."),
    Key("client_keys", "homes", "Files of private keys to log in with."),
    Key(
        "known_hosts",
        "home",
        "File of known host keys; null, with insecure: true: any key will do.",
        null=True,
    ),
    Key(
        "config",
        "homes",
        "Files in ssh_config's format; ~/.ssh/config if left out; []: none.",
        null=True,
    ),
    Key("password", "secret", "Password: ${NAME} of a variable only."),
    Key("passphrase", "secret", "Passphrase of the private keys: ${NAME} of a variable only."),
    Key("agent_path", "home", "Socket of the ssh agent."),
    Key("tunnel", "text", "Host that is gone through: [user@]host[:port]."),
    Key("host_key_alias", "text", "Name that the host's key is known by."),
    Key("preferred_auth", "words", "Ways to log in, the best first: publickey, password."),
    Key("gss_host", "text", "Name of the host for Kerberos."),
)

_SSH_WORKER = (
    Key("n_workers", "count", "Worker processes on each host; 1 if left out."),
    Key("nthreads", "count", "Calls that a worker runs at a time. Threads."),
    Key("memory_limit", "limit", "Memory of a worker, near which it spills. Bytes; 0: none."),
    Key("local_directory", "there", "Folder there in which the scratch folder is made."),
    Key("interface", "text", "Network interface of the workers, such as eth0."),
    Key("host", "text", "Address that workers listen at."),
    Key("worker_port", "text", "TCP port, or range as 9000:9100, that workers listen at."),
    Key("death_timeout", "duration", "How long workers look for their scheduler. Seconds."),
    Key("lifetime", "duration", "After how long a worker leaves. Seconds."),
    Key("lifetime_stagger", "duration", "Give or take how long. Seconds."),
    _RESOURCES,
)

KINDS: dict[str, KindKeys] = {
    "local": KindKeys(
        "Worker processes on this machine.", _LOCAL, _WORKERS, (*_ADAPT_WORKERS, *_FOLLOW),
        start_timeout=120.0,
    ),
    "threads": KindKeys(
        "Workers that are threads of this process.",
        tuple(key for key in _LOCAL
              if key.name not in ("n_workers", "host", "security", "protocol")),
        fixed="its size is threads_per_worker, in cluster_kwargs",
        start_timeout=60.0,
    ),
    "scheduler": KindKeys(
        "A Dask scheduler that runs already.",
        (Key("address", "address", "Where it listens: tcp://host:8786, tls://host:8786."), _TLS),
        fixed="how many workers a scheduler that runs already has, is not ours to say",
    ),
    "ssh": KindKeys(
        "Workers on hosts that ssh reaches.",
        (
            Key("hosts", "words", "Hosts, each of which runs workers; named twice: used twice."),
            Key("connect_options", "mapping|mappings", "For ssh; or a list, one a host.",
                keys=_SSH_CONNECT),
            Key("connect_timeout", "seconds", "How long a host may take to answer. Seconds."),
            Key("worker_options", "mapping", "For the workers.", keys=_SSH_WORKER),
            Key("scheduler", "choice", "Where the scheduler is: in this process, or on the first "
                "host.", ("local", "first")),
            Key("scheduler_options", "mapping", "For the scheduler.", keys=(
                Key("host", "text", "Address that it listens at."),
                Key("interface", "text", "Network interface that it listens on."),
                Key("port", "port", "TCP port that it listens at; 0: any."),
            )),
            Key("remote_python", "there|words", "Python there; or a list, one a host."),
            Key("prologue", "words", "Lines of shell that run there before Python."),
            Key("environment", "texts", "Environment variables there."),
        ),
        fixed="the hosts, and n_workers in worker_options, are its size",
        start_timeout=120.0,
    ),
    "slurm": KindKeys(
        "Jobs of Slurm.",
        _job(
            Key("job_cpu", "count", "Cores to ask for, where they are not `cores`."),
            Key("job_mem", "text", "Memory to ask for, where it is not `memory`: 64G."),
            without="project",
        ),
        _JOBS, _ADAPT_JOBS, elsewhere=_NOT_FOR_QUEUES,
    ),
    "pbs": KindKeys(
        "Jobs of PBS.", _job(_SPEC, without="project"), _JOBS, _ADAPT_JOBS,
        elsewhere=_NOT_FOR_QUEUES,
    ),
    "sge": KindKeys(
        "Jobs of Grid Engine.", _job(_SPEC, without="account"), _JOBS, _ADAPT_JOBS,
        elsewhere=_NOT_FOR_QUEUES,
    ),
    "lsf": KindKeys(
        "Jobs of LSF.",
        _job(
            Key("ncpus", "count", "Cores to ask for, where they are not `cores`."),
            Key("mem", "count", "Memory to ask for, where it is not `memory`. Bytes."),
            Key("lsf_units", "text", "Unit of the queue's memory limits: kb, mb, gb, tb."),
            Key("use_stdin", "flag", "Whether the script goes to bsub by its input."),
            Key("walltime", "walltime", "How long a job may run, quoted: \"02:00\". Hours:min."),
            without="account",
        ),
        _JOBS, _ADAPT_JOBS, elsewhere=_NOT_FOR_QUEUES,
    ),
    "oar": KindKeys(
        "Jobs of OAR.",
        _job(
            _SPEC,
            Key("memory_per_core_property_name", "text",
                "Property that has a node's memory a core; not_applicable: there is none."),
            without="account",
        ),
        _JOBS, _ADAPT_JOBS, elsewhere=_NOT_FOR_QUEUES,
    ),
    "htcondor": KindKeys(
        "Jobs of HTCondor.",
        _job(
            Key("disk", "size", "Disk of a job. Bytes: 10GB."),
            Key("job_extra_directives", "texts", "More lines of the submit file."),
            Key("submit_command_extra", "words", "More arguments of condor_submit."),
            Key("cancel_command_extra", "words", "More arguments of condor_rm."),
            without="account project queue walltime",
        ),
        _JOBS, _ADAPT_JOBS, elsewhere=_NOT_FOR_QUEUES,
    ),
    "moab": KindKeys(
        "Jobs of Moab.", _job(_SPEC, without="project"), _JOBS, _ADAPT_JOBS,
        elsewhere=_NOT_FOR_QUEUES,
    ),
    "kubernetes": KindKeys(
        "Pods of Kubernetes, by Dask's operator.",
        (
            Key("name", "text", "Name of the cluster."),
            Key("namespace", "text", "Namespace that its pods are in."),
            Key("image", "text", "Container image of scheduler and workers."),
            Key("resources", "free", "What a pod requests and is limited to."),
            Key("env", "texts|lists", "Environment variables of scheduler and workers."),
            Key("worker_command", "words", "Command that starts a worker."),
            Key("custom_cluster_spec", "home|free", "The cluster's whole spec, or its file."),
            Key("scheduler_service_type", "choice", "How the scheduler is reached.",
                ("ClusterIP", "NodePort", "LoadBalancer")),
            Key("scheduler_forward_port", "port", "TCP port here that leads to the scheduler."),
            Key("port_forward_cluster_ip", "flag", "Whether to go through kubectl's tunnel."),
            Key("create_mode", "choice", "Whether it may, or must, be there already.",
                ("CREATE_ONLY", "CREATE_OR_CONNECT", "CONNECT_ONLY")),
            Key("shutdown_on_close", "flag", "Whether the cluster ends with the executor."),
            Key("idle_timeout", "whole", "Ends without work after so long. Seconds."),
            Key("resource_timeout", "whole", "How long a pod may take to come up. Seconds."),
        ),
        _WORKERS, _ADAPT_WORKERS,
        elsewhere={"n_workers": "how large the cluster is, is said by scale: {workers: 4}"},
    ),
    "gateway": KindKeys(
        "A cluster that a dask-gateway server starts.",
        (
            Key("address", "url", "The gateway: https://host:port."),
            Key("proxy_address", "url", "Its proxy for schedulers, where that is another."),
            Key("public_address", "url", "Address for links to the dashboard."),
            Key("auth", "choice|mapping", "How to log in.", ("basic", "kerberos", "jupyterhub"),
                (
                    Key("type", "choice", "How.", ("basic", "kerberos", "jupyterhub")),
                    Key("username", "text", "Who, with basic."),
                    Key("password", "secret", "Password, with basic: ${NAME} only."),
                    Key("api_token", "secret", "Token, with jupyterhub: ${NAME} only."),
                )),
            Key("cluster_options", "free", "What this gateway lets its users choose."),
            Key("options", "free", "The same."),
            Key("cluster_name", "text", "A cluster that runs already, to be used and left."),
            Key("shutdown_on_close", "flag", "Whether the cluster ends with the executor."),
        ),
        _WORKERS, _ADAPT_WORKERS,
    ),
}  # fmt: skip

#: Dask's classes, and the kinds that they are.
CLASSES = {
    "distributed.LocalCluster": "local",
    "dask.distributed.LocalCluster": "local",
    "distributed.SSHCluster": "ssh",
    "dask.distributed.SSHCluster": "ssh",
    "dask_jobqueue.SLURMCluster": "slurm",
    "dask_jobqueue.PBSCluster": "pbs",
    "dask_jobqueue.SGECluster": "sge",
    "dask_jobqueue.LSFCluster": "lsf",
    "dask_jobqueue.OARCluster": "oar",
    "dask_jobqueue.HTCondorCluster": "htcondor",
    "dask_jobqueue.MoabCluster": "moab",
    "dask_kubernetes.operator.KubeCluster": "kubernetes",
    "dask_gateway.GatewayCluster": "gateway",
}

#: Old names of dask-jobqueue's keys. ``name`` is no old one: the file has it for the job's name.
OLD_NAMES: dict[str, dict[str, str]] = {
    kind: {
        "job_extra": "job_extra_directives",
        "env_extra": "job_script_prologue",
        "extra": "worker_extra_args",
        "header_skip": "job_directives_skip",
        **({"project": "account"} if kind in ("slurm", "pbs", "moab") else {}),
    }
    for kind in QUEUES
}
