#!/usr/bin/env bash
# A real Grid Engine on this machine: master and execution daemon on loopback, all.q of 8 slots.
#
#   sge.sh up      configure and start it, wait until the queue takes jobs
#   sge.sh down    delete every job and stop both daemons
#
# Needs root, and Debian's gridengine-master, gridengine-exec and gridengine-client, whose one
# cell in /var/lib/gridengine it uses: Grid Engine has no way to keep everything in a folder.
set -euo pipefail

ACTION=${1:?up or down}
export SGE_ROOT=/var/lib/gridengine SGE_CELL=default
RUN=/run/daskexec-sge
SLOTS=8
HOST=$(hostname -s)

. "$(dirname "${BASH_SOURCE[0]}")/daemons.sh"

start_master() {
    install -d -o sgeadmin -g sgeadmin "$RUN"
    getent hosts "$HOST" >/dev/null || echo "127.0.0.1 $HOST" >>/etc/hosts
    # The master refuses a client whose own name is not the one that its address resolves to.
    echo localhost >"$SGE_ROOT/$SGE_CELL/common/act_qmaster"
    [ "$HOST" = localhost ] || echo "localhost $HOST" >"$SGE_ROOT/$SGE_CELL/common/host_aliases"
    alive "$RUN/qmaster.pid" || SGE_QMASTER_PIDFILE=$RUN/qmaster.pid sge_qmaster
    for _ in $(seq 300); do qconf -sh >/dev/null 2>&1 && return 0; sleep .1; done
    echo "the master of Grid Engine did not answer within 30 s" >&2
    return 1
}

edit() { sed -E "$(printf 's/^(%s)( +).*/\\1\\2%s/;' "$@")"; } # NAME VALUE ...

configure() {
    local folder
    folder=$(mktemp -d)
    for option in -am -ao; do qconf $option root >/dev/null 2>&1 || true; done
    for option in -ah -as; do qconf $option localhost >/dev/null 2>&1 || true; done
    # Jobs of root are refused below min_uid; login shells read files that tests do not want.
    qconf -sconf | edit login_shells none min_uid 0 min_gid 0 load_report_time 00:00:02 \
        execd_params ENABLE_ADDGRP_KILL=true mailer '\/bin\/true' \
        reporting_params 'accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00' >"$folder/global"
    qconf -Mconf "$folder/global" >/dev/null 2>&1 || true
    qconf -ssconf | edit schedule_interval 0:0:1 'flush_submit_sec|flush_finish_sec' 1 \
        job_load_adjustments NONE schedd_job_info true >"$folder/scheduler"
    qconf -Msconf "$folder/scheduler" >/dev/null 2>&1 || true
    printf '%s\n' 'group_name @allhosts' 'hostlist localhost' >"$folder/hosts"
    qconf -shgrpl 2>/dev/null | grep -qx @allhosts || qconf -Ahgrp "$folder/hosts" >/dev/null
    if ! qconf -sql 2>/dev/null | grep -qx all.q; then
        # The template of a new queue, as an editor would be shown it.
        EDITOR=true VISUAL=true qconf -sq 2>/dev/null |
            edit qname all.q hostlist @allhosts slots "$SLOTS" shell '\/bin\/bash' \
                shell_start_mode unix_behavior load_thresholds NONE pe_list NONE >"$folder/queue"
        qconf -Aq "$folder/queue" >/dev/null
    fi
    qconf -mattr queue slots "$SLOTS" all.q >/dev/null 2>&1 || true
    qconf -mattr queue load_thresholds NONE all.q >/dev/null 2>&1 || true
    rm -rf "$folder"
}

start_execution() {
    alive "$RUN/execd.pid" || SGE_EXECD_PIDFILE=$RUN/execd.pid sge_execd
    for _ in $(seq 400); do # no state in the last column: the host reports, the queue is up
        qstat -f 2>/dev/null | awk '$1 == "all.q@localhost" && NF == 5 && $4 != "-NA-" {up = 1} END {exit !up}' && return 0
        sleep .1
    done
    echo "the queue of Grid Engine did not come up within 40 s" >&2
    qstat -f >&2
    return 1
}

case $ACTION in
up)
    start_master
    configure
    start_execution
    ;;
down)
    qdel -u '*' >/dev/null 2>&1 || true
    for _ in $(seq 50); do [ -z "$(qstat -u '*' 2>/dev/null)" ] && break; sleep .1; done
    stop "$RUN/execd.pid"
    stop "$RUN/qmaster.pid"
    ;;
*)
    echo "usage: $0 up|down" >&2
    exit 2
    ;;
esac
