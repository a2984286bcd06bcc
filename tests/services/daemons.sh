# Daemons by their pid files; for the scripts here that start some to source.

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

stop() { # the process of a pid file: TERM, then KILL after 5 s
    local pid
    if alive "$1"; then
        pid=$(cat "$1")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep .1; done
        kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$1"
}
