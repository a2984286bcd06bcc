#!/usr/bin/env bash
# A real Slurm on this machine: a controller and two virtual nodes, n1 and n2, on loopback.
#
#   slurm.sh up BASE [PORT]   configure and start it below the folder BASE, wait until it is idle
#   slurm.sh node BASE NAME   start the daemon of one node (again)
#   slurm.sh down BASE        cancel every job and stop all daemons
#
# Needs root, and Debian's slurm-wlm and munge. Everything of it is in BASE, the secret key of
# its own munged too; export SLURM_CONF=BASE/slurm.conf to use it. PORT (default 26817) and the
# two above it are used. Partitions: debug (the default one), and shut, in which no job starts.
set -euo pipefail

ACTION=${1:?up, node or down} BASE=${2:?the folder to keep everything in} PORT=${3:-26817}
CPUS=4 MEMORY=4000
HOST=$(hostname -s)
export SLURM_CONF=$BASE/slurm.conf

. "$(dirname "${BASH_SOURCE[0]}")/daemons.sh"

configure() {
    mkdir -p "$BASE"/{state,log,run,munge}
    chmod 755 "$BASE"
    cat >"$BASE/slurm.conf" <<CONF
ClusterName=daskexec
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$BASE/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort=$PORT
SlurmctldPidFile=$BASE/run/slurmctld.pid
SlurmctldLogFile=$BASE/log/slurmctld.log
StateSaveLocation=$BASE/state
SlurmdPidFile=$BASE/run/slurmd.%n.pid
SlurmdLogFile=$BASE/log/slurmd.%n.log
SlurmdSpoolDir=$BASE/spool.%n
# No cgroups, no accounting: so no sacct, and squeue knows ended jobs for MinJobAge seconds.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=2
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=60
# The nodes may have more cores than the machine.
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY State=UNKNOWN
NodeName=n2 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 2)) CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY State=UNKNOWN
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=01:00:00 DefaultTime=00:10:00 State=UP
PartitionName=shut Nodes=n[1-2] Default=NO MaxTime=01:00:00 State=DOWN
CONF
}

start() {
    # A host name that does not resolve makes slurmctld refuse to start.
    getent hosts "$HOST" >/dev/null || echo "127.0.0.1 $HOST" >>/etc/hosts
    if ! alive "$BASE/run/munged.pid"; then
        [ -s "$BASE/munge/key" ] || dd if=/dev/urandom of="$BASE/munge/key" bs=1024 count=1 status=none
        chmod 400 "$BASE/munge/key"
        munged --force --socket="$BASE/munge/socket" --key-file="$BASE/munge/key" \
            --pid-file="$BASE/run/munged.pid" --log-file="$BASE/log/munged.log" \
            --seed-file="$BASE/munge/seed"
    fi
    alive "$BASE/run/slurmctld.pid" || slurmctld
    node n1
    node n2
    for i in $(seq 300); do
        [ "$(sinfo -h -N -p debug -t idle -o %N 2>/dev/null | sort -u | wc -l)" = 2 ] && return 0
        [ $((i % 20)) = 0 ] && scontrol update NodeName="n[1-2]" State=RESUME 2>/dev/null || true
        sleep .1
    done
    echo "slurm did not come up within 30 s" >&2
    sinfo >&2 || true
    tail -n 20 "$BASE"/log/*.log >&2
    return 1
}

node() { alive "$BASE/run/slurmd.$1.pid" || slurmd -N "$1"; }

case $ACTION in
up)
    configure
    start
    ;;
node) node "${3:?n1 or n2}" ;;
down)
    squeue -h -o %A 2>/dev/null | xargs -r scancel 2>/dev/null || true
    for _ in $(seq 50); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep .1; done
    for name in slurmd.n1 slurmd.n2 slurmctld munged; do stop "$BASE/run/$name.pid"; done
    ;;
*)
    echo "usage: $0 up|node|down BASE ..." >&2
    exit 2
    ;;
esac
