#!/usr/bin/env bash
# A real OAR on this machine: one node of four cores, on loopback.
#
#   oar.sh up BASE      configure and start it, state below the folder BASE; wait for the node
#   oar.sh down BASE    remove every job and stop all daemons
#
# Needs root, and what `.ci/services oar` installs. OAR keeps some of its files where Debian puts
# them: /etc/oar/oar.conf is replaced while it runs and put back by `down`, the log is
# /var/log/oar.log. Beside OAR's own daemon there are a PostgreSQL and an sshd, by which OAR starts
# jobs: all on 127.0.0.1. OAR refuses jobs of root: submit them as another user.
set -euo pipefail
export LC_ALL=C

ACTION=${1:?up or down} BASE=${2:?the folder to keep everything in}
CORES=4 DB_PORT=5439 SSH_PORT=6667
PG=$(find /usr/lib/postgresql -path '*/bin/initdb' | sort -V | tail -n 1)
PG=${PG%/initdb}

alive() { [ -s "$1" ] && kill -0 "$(head -n 1 "$1")" 2>/dev/null; }

await() { # await SECONDS WHAT COMMAND...: until the command succeeds
    local seconds=$1 what=$2
    shift 2
    for _ in $(seq $((seconds * 5))); do
        "$@" >/dev/null 2>&1 && return 0
        sleep .2
    done
    echo "$what: not within $seconds s" >&2
    return 1
}

sql() { runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p $DB_PORT "$@"; }

database() {
    install -d -m 755 "$BASE"
    install -d -o postgres -m 700 "$BASE/pg" "$BASE/pg-run"
    [ -s "$BASE/pg/PG_VERSION" ] ||
        runuser -u postgres -- "$PG/initdb" -D "$BASE/pg" -A trust -U postgres >/dev/null
    runuser -u postgres -- "$PG/pg_ctl" -D "$BASE/pg" -l "$BASE/pg/log" -w start -o \
        "-c listen_addresses=127.0.0.1 -p $DB_PORT -c unix_socket_directories=$BASE/pg-run -c fsync=off" \
        >/dev/null
    [ "$(sql -tAc "select count(*) from pg_database where datname = 'oar'")" = 0 ] || return 0
    sql -c "create role oar login password 'oar'" -c "create role oar_ro login password 'oar_ro'" \
        -c "create database oar owner oar"
    for part in pg_structure pg_default_admission_rules default_data; do
        sql -U oar -d oar -f "/usr/lib/oar/database/$part.sql" >/dev/null 2>>"$BASE/sql.log"
    done
    sql -d oar -c "grant select on all tables in schema public to oar_ro" \
        -c "grant select on all sequences in schema public to oar_ro"
}

configure() {
    [ -e "$BASE/oar.conf.before" ] || cp -p /etc/oar/oar.conf "$BASE/oar.conf.before"
    # No cpusets; and instead of a ping, which may not be installed: no node is ever missing.
    sed -E \
        -e "s/^#? *DB_PORT=.*/DB_PORT=\"$DB_PORT\"/" -e 's/^DB_HOSTNAME=.*/DB_HOSTNAME="127.0.0.1"/' \
        -e 's/^DB_BASE_PASSWD=.*/DB_BASE_PASSWD="oar"/' \
        -e 's/^DB_BASE_PASSWD_RO=.*/DB_BASE_PASSWD_RO="oar_ro"/' \
        -e 's/^SERVER_HOSTNAME=.*/SERVER_HOSTNAME="127.0.0.1"/' \
        -e 's/^(JOB_RESOURCE_MANAGER_PROPERTY_DB_FIELD|CPUSET_PATH|PINGCHECKER_.*)=/#&/' \
        -e '$a PINGCHECKER_GENERIC_COMMAND="/bin/true"' \
        -e 's/^SCHEDULER_JOB_SECURITY_TIME=.*/SCHEDULER_JOB_SECURITY_TIME="1"/' \
        -e 's/^FINAUD_FREQUENCY=.*/FINAUD_FREQUENCY="0"/' \
        "$BASE/oar.conf.before" >/etc/oar/oar.conf
    chown oar: /etc/oar/oar.conf
    chmod 600 /etc/oar/oar.conf
    usermod -p '*' oar # sshd lets no locked account in
    touch /var/log/oar.log
    chown oar: /var/log/oar.log
    install -d -o oar /run/oar
    install -d -m 755 /run/sshd
    cat >"$BASE/sshd_config" <<CONF
Port $SSH_PORT
ListenAddress 127.0.0.1
HostKey /etc/oar/oar_ssh_host_rsa_key
PidFile $BASE/sshd.pid
AllowUsers oar
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitUserEnvironment yes
AcceptEnv OAR_CPUSET OAR_USER_CPUSET OAR_USER_GPUDEVICE OAR_JOB_USER
MaxStartups 100
CONF
}

node_is_alive() { [ "$(sql -d oar -tAc "select count(*) from resources where state = 'Alive'")" = $CORES ]; }

start() {
    /usr/sbin/sshd -f "$BASE/sshd_config" -E "$BASE/sshd.log"
    setsid /usr/sbin/oar-server >"$BASE/almighty.log" 2>&1 </dev/null &
    await 20 "OAR's daemon starts" pgrep -u oar -f Almighty
    pgrep -o -u oar -f Almighty >"$BASE/almighty.pid"
    for property in cpu core mem_core; do oarproperty -q -a $property >/dev/null 2>&1 || true; done
    if [ "$(sql -d oar -tAc "select count(*) from resources")" = 0 ]; then
        for core in $(seq $CORES); do
            oarnodesetting -a -h 127.0.0.1 -p cpu=1 -p core="$core" -p mem_core=1000 \
                -p cpuset=$((core - 1)) >/dev/null
        done
    fi
    oarnodesetting -h 127.0.0.1 -s Alive >/dev/null 2>&1 || true
    if ! await 60 "OAR's node is alive" node_is_alive; then
        tail -n 20 /var/log/oar.log "$BASE"/*.log >&2
        return 1
    fi
}

stop() { # the process of a pid file: TERM, then KILL after 10 s
    local pid
    if alive "$1"; then
        pid=$(head -n 1 "$1")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep .2; done
        kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$1"
}

no_jobs() { [ -z "$(oarstat 2>/dev/null)" ]; }

case $ACTION in
up)
    database
    configure
    start
    ;;
down)
    oarstat 2>/dev/null | awk '$1 ~ /^[0-9]+$/ {print $1}' | xargs -r oardel >/dev/null 2>&1 || true
    await 15 "the jobs are gone" no_jobs || true
    stop "$BASE/almighty.pid"
    stop "$BASE/sshd.pid"
    if alive "$BASE/pg/postmaster.pid"; then
        runuser -u postgres -- "$PG/pg_ctl" -D "$BASE/pg" -m fast stop >/dev/null || true
    fi
    if [ -e "$BASE/oar.conf.before" ]; then cp -p "$BASE/oar.conf.before" /etc/oar/oar.conf; fi
    ;;
*)
    echo "usage: $0 up|down BASE" >&2
    exit 2
    ;;
esac
