#!/usr/bin/env bats
# `secrets push` and `secrets check` on real hosts: h1 as root, h2 as a user with sudo.

load fleet_driver

setup_file() {
    begin_hosts 2 --flavour ops 2
    head -c 300 /dev/urandom >"$T/binary"
    printf 'hunter2-first' >"$T/token"
}
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

secrets() {
    inventory "h1=$v0" "h2=$v0" 'defaults.secrets=[
        {"name": "token", "file": "'"$T"'/token", "path": "/run/fleet/secrets/token",
         "owner": "nobody", "group": "nogroup", "mode": "0440", "restart": ["worker.service"]},
        {"name": "binary", "command": ["cat", "'"$T"'/binary"]}]'
}

states() { jq -r '"\(.host) \(.secret) \(.state)"' "$events" | sort | xargs; }

@test "check tells what is missing and changes nothing" {
    secrets
    fleet secrets check --json
    assert_exit 3
    [ "$(states)" = "h1 binary missing h1 token missing h2 binary missing h2 token missing" ]
    on h1 'test ! -e /run/fleet'
}

@test "push writes with owner and mode, restarts, and leaves no trace of the content" {
    secrets
    pid=$(on h1 systemctl show -p MainPID --value worker)
    fleet secrets push --json -vv
    assert_exit 0
    [ "$(states)" = "h1 binary written h1 token written h2 binary written h2 token written" ]
    for i in 1 2; do
        [ "$("$testbed" ssh $i 'stat -c "%U %G %a" /run/fleet/secrets/token')" = "nobody nogroup 440" ]
        [ "$("$testbed" ssh $i cat /run/fleet/secrets/token)" = hunter2-first ]
        [ "$("$testbed" ssh $i 'stat -c "%U %G %a" /run/fleet/secrets/binary')" = "root root 400" ]
        "$testbed" ssh $i cat /run/fleet/secrets/binary | cmp - "$T/binary"
        [ -z "$("$testbed" ssh $i 'ls -A /run/fleet/secrets | grep fleet-secret')" ]
        "$testbed" ssh $i 'test ! -e /run/fleet/lock'
    done
    [ "$(on h1 systemctl show -p MainPID --value worker)" != "$pid" ]
    encoded=$(base64 -w0 <"$T/token")
    run ! grep -rqs -e hunter2 -e "$encoded" "$T/state" "$events" "$text"
    ! on h1 "journalctl --no-pager | grep -e hunter2 -e $encoded"
}

@test "a second push writes nothing and restarts nothing; what changed is found" {
    secrets
    pid=$(on h1 systemctl show -p MainPID --value worker)
    fleet secrets push --json
    assert_exit 0
    [ "$(states)" = "h1 binary current h1 token current h2 binary current h2 token current" ]
    [ "$(on h1 systemctl show -p MainPID --value worker)" = "$pid" ]
    printf 'hunter2-second' >"$T/token"
    on h1 'chmod 444 /run/fleet/secrets/binary'
    fleet secrets check --json
    assert_exit 3
    [ "$(states)" = "h1 binary mode h1 token stale h2 binary current h2 token stale" ]
    fleet secrets push h1
    assert_exit 0
    [ "$(on h1 cat /run/fleet/secrets/token)" = hunter2-second ]
    [ "$(on h1 'stat -c %a /run/fleet/secrets/binary')" = 400 ]
}

@test "a secret that can't be read touches no host; an owner who isn't there keeps the old one" {
    secrets
    jq '.defaults.secrets[1].command = ["false"]' "$inventory" >"$inventory.2"
    mv "$inventory.2" "$inventory"
    printf 'hunter2-third' >"$T/token"
    fleet secrets push h1
    assert_exit 1
    grep -q '"binary": false failed' "$text"
    [ "$(on h1 cat /run/fleet/secrets/token)" = hunter2-second ]
    secrets
    jq '.defaults.secrets[0].owner = "nosuchuser"' "$inventory" >"$inventory.2"
    mv "$inventory.2" "$inventory"
    fleet secrets push h1
    assert_exit 3
    grep -q 'no owner nosuchuser' "$text"
    [ "$(on h1 cat /run/fleet/secrets/token)" = hunter2-second ]
    [ "$(on h1 'ls -A /run/fleet/secrets' | xargs)" = "binary token" ]
}
