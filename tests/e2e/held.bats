#!/usr/bin/env bats
# A host that another run is at work on, and substituters of a target, on real hosts.
# shellcheck disable=SC2154

load fleet_driver

setup_file() { begin_hosts 1; }
teardown_file() { end_hosts; }

setup() {
    load_hosts
    v1=$(system good v1) v2=$(system good v2)
}

teardown() { tell; }

@test "the run that holds a host is named, with what its guard is about to do; --lock-timeout waits" {
    inventory h1="$v1" 'defaults.policy.min_healthy_time="8s"'
    start_update
    await_state 30 h1 probing
    mine=$(sed -n 's/.*"run":"\([^"]*\)".*/\1/p' "$events" | head -1)
    first=$events
    events=$T/second.events
    update
    assert_exit 7
    assert_state h1 failed locked "run $mine is at work here" || assert_state h1 skipped locked "run $mine is at work here"
    grep -q 'waits to be confirmed, or goes back by itself in [0-9]* s' "$events"
    grep -q 'fleet unlock h1 --id ' "$events"
    events=$T/third.events
    update --lock-timeout 60s
    assert_exit 0
    assert_state h1 unchanged
    events=$first
    end_update
    assert_exit 0
    assert_state h1 healthy
}

# A port of which the kernel drops every new connection: its queue is full and nobody accepts. Prints
# the port, and stays until it is ended.
blackhole() {
    exec python3 -u - <<'PYTHON'
import socket, time
listener = socket.socket()
listener.bind(("127.77.0.1", 0))
listener.listen(0)
waiting = []
for _ in range(4):
    waiting.append(socket.socket())
    waiting[-1].setblocking(False)
    waiting[-1].connect_ex(listener.getsockname())
print("port", listener.getsockname()[1])
time.sleep(1000)
PYTHON
}

# await_port FILE SCRIPT: until that script of sed's finds one in the file. Sets port.
await_port() {
    local end=$((SECONDS + 60))
    until port=$(sed -n "$2" "$1") && [ -n "$port" ]; do
        [ $SECONDS -lt $end ]
        sleep 0.1
    done
}

@test "a substituter that does not answer costs no copy" {
    blackhole >"$T/blackhole" 2>&1 3>&- &
    hole=$!
    await_port "$T/blackhole" 's/^port //p'
    on h1 "cp /etc/nix/nix.conf /etc/nix/nix.conf.kept
           echo 'substituters = http://127.77.0.1:$port' >>/etc/nix/nix.conf"
    inventory h1="$v2"
    limit=120 update # Without a limit of ours Nix would wait for minutes.
    kill "$hole"
    assert_exit 0
    assert_state h1 healthy
    on h1 mv /etc/nix/nix.conf.kept /etc/nix/nix.conf
}

@test "what a substituter has is fetched by the target" {
    v3=$(system good v3)
    cache=$(mktemp -d "$T/cache.XXXXXX")
    nix copy --extra-experimental-features nix-command --to "file://$cache" "$v3"
    python3 -u -m http.server --bind 127.77.0.1 -d "$cache" 0 >"$T/web" 2>&1 3>&- &
    web=$!
    await_port "$T/web" 's/.* port \([0-9]*\) .*/\1/p'
    on h1 "mkdir -p /etc/nix && printf '%s\n' 'substituters = http://127.77.0.1:$port' 'require-sigs = false' >>/etc/nix/nix.conf"
    inventory h1="$v3"
    update
    kill "$web"
    assert_exit 0
    assert_state h1 healthy
    grep -q "GET /nar/" "$T/web"
    [ "$(sed -n 's/.*"type":"copy".*"paths_total":\([0-9]*\).*/\1/p' "$events" | tail -1)" = "" ] ||
        [ "$(sed -n 's/.*"type":"copy".*"paths_total":\([0-9]*\).*/\1/p' "$events" | tail -1)" = 0 ]
}
