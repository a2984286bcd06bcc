#!/usr/bin/env bash
# An OpenSSH server for tests: own keys, own configuration, own port, on loopback unless told.
#
#   ssh.sh up FOLDER PORT [ADDRESS...]   start it; on 127.0.0.1, .2 and .3, "three hosts", if no
#                                        address is named
#   ssh.sh down FOLDER                   end it
#
# FOLDER then has: id (the key that it takes), stranger (one that it does not), known_hosts and
# an empty nobody_known. Needs root and openssh-server; installs nothing.
set -euo pipefail
folder=$2
pid_file=$folder/sshd.pid

# The server, and those of its connections that are still open.
end() {
    [ -s "$pid_file" ] || return 0
    local pid
    pid=$(cat "$pid_file")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
}

case $1 in
    up)
        port=$3
        shift 3
        addresses=("${@:-127.0.0.1}")
        if [ $# = 0 ]; then addresses+=(127.0.0.2 127.0.0.3); fi
        install -d -m 700 "$folder"
        install -d -m 755 /run/sshd  # for sshd's separation of privileges; gone at each boot
        for name in host_key id stranger; do
            ssh-keygen -q -t ed25519 -N '' -f "$folder/$name"
        done
        install -m 600 "$folder/id.pub" "$folder/authorized_keys"
        : > "$folder/nobody_known"
        for host in "${addresses[@]}"; do
            echo "[$host]:$port $(cut -d' ' -f1,2 "$folder/host_key.pub")"
        done > "$folder/known_hosts"
        # SHLVL: or bash would take the sshd of a test for a login and read ~/.bashrc.
        cat > "$folder/sshd_config" <<END
Port $port
$(printf 'ListenAddress %s\n' "${addresses[@]}")
HostKey $folder/host_key
PidFile $pid_file
AuthorizedKeysFile $folder/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
MaxStartups 50
SetEnv SHLVL=1
END
        "$(command -v sshd || echo /usr/sbin/sshd)" -f "$folder/sshd_config" -E "$folder/sshd.log"
        for _ in $(seq 100); do
            if [ -s "$pid_file" ]; then exit 0; fi
            sleep 0.05
        done
        cat "$folder/sshd.log" >&2
        exit 1
        ;;
    down) end ;;
    *)
        sed -n '2,11p' "$0"
        exit 2
        ;;
esac
