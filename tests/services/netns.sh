#!/usr/bin/env bash
# Several hosts on one machine, for tests: each is a network namespace.
#
#   netns.sh up NAME [MS[,LOSS]]  make the hosts sched, w1, w2 and client, and a network between
#                                 them; with MS each frame takes so many milliseconds longer, with
#                                 LOSS so many percent of them are lost
#   netns.sh exec NAME HOST ...   run a command on a host
#   netns.sh partition NAME HOST  cut a host off; nobody is told, as when a cable is pulled
#   netns.sh heal NAME HOST       join it again
#   netns.sh slow NAME HOST RATE  let it send no more than RATE, such as 200mbit
#   netns.sh kill NAME HOST       lose a host: cut it off, then end all that runs there
#   netns.sh down NAME            end all that runs on the hosts, and remove them
#
# NAME tells several networks apart. Their addresses are 10.77.0.1, .11, .12 and .100. The switch
# has a namespace of its own, so no frame reaches the machine's own interfaces. Needs root and
# iproute2; a delay also needs /dev/net/tun, and is made by netns_wire.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
verb=$1
name=$2
switch=$name-switch
run=/run/$name
hosts=(sched w1 w2 client)
declare -A address=([sched]=10.77.0.1 [w1]=10.77.0.11 [w2]=10.77.0.12 [client]=10.77.0.100)

up() {
    local delay=${1:-} host
    mkdir -p "$run"
    ip netns add "$switch"
    if [ -z "$delay" ]; then
        ip -n "$switch" link add bridge type bridge
        ip -n "$switch" link set bridge up
    fi
    for host in "${hosts[@]}"; do
        ip netns add "$name-$host"
        ip -n "$name-$host" link set lo up
        if [ -z "$delay" ]; then
            ip -n "$name-$host" link add eth0 type veth peer name "$host" netns "$switch"
            ip -n "$switch" link set "$host" master bridge up
        else
            ip -n "$name-$host" tuntap add dev eth0 mode tap
        fi
        ip -n "$name-$host" address add "${address[$host]}/24" dev eth0
        ip -n "$name-$host" link set eth0 up
        mkdir -p "/etc/netns/$name-$host" # what `ip netns exec` shows as /etc/hosts
        {
            echo "127.0.0.1 localhost $(uname -n)"
            local other
            for other in "${hosts[@]}"; do echo "${address[$other]} $other"; done
        } > "/etc/netns/$name-$host/hosts"
    done
    if [ -n "$delay" ]; then
        setsid "${PYTHON:-python3}" "$here/netns_wire.py" "$delay" "${hosts[@]/#/$name-}" \
            > "$run/wire" 2>&1 < /dev/null &
        echo $! > "$run/wire.pid"
        for _ in $(seq 100); do
            if grep -q ready "$run/wire"; then return; fi
            sleep 0.05
        done
        cat "$run/wire" >&2
        return 1
    fi
}

end_all_on() {
    local pids
    pids=$(ip netns pids "$name-$1" 2>/dev/null || true)
    # shellcheck disable=SC2086
    if [ -n "$pids" ]; then kill -9 $pids 2>/dev/null || true; fi
}

down() {
    local host
    for host in "${hosts[@]}"; do end_all_on "$host"; done
    if [ -s "$run/wire.pid" ]; then kill "$(cat "$run/wire.pid")" 2>/dev/null || true; fi
    for host in "${hosts[@]}" switch; do
        ip netns delete "$name-$host" 2>/dev/null || true
        rm -rf "/etc/netns/$name-$host"
    done
    rm -rf "$run"
}

case $verb in
    up) up "${3:-}" ;;
    exec)
        host=$3
        shift 3
        exec ip netns exec "$name-$host" "$@"
        ;;
    partition) ip -n "$switch" link set "$3" down ;;
    heal) ip -n "$switch" link set "$3" up ;;
    slow)
        ip netns exec "$name-$3" \
            tc qdisc add dev eth0 root tbf rate "$4" burst 256kb latency 50ms
        ;;
    kill)
        ip -n "$switch" link set "$3" down
        end_all_on "$3"
        ;;
    down) down ;;
    *)
        sed -n '2,16p' "$0"
        exit 2
        ;;
esac
