#!/usr/bin/env bats
# `status` on real hosts: with their probes, and on hosts that are stranger than one expects.

load fleet_driver

setup_file() { begin_hosts 2; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

field() { jq -c "select(.host == \"$1\") | $2" "$events"; }

@test "--probe runs each host's probes once; what fails makes it unhealthy, exit 3" {
    v1=$(system good v1)
    inventory "h1=$v1" "h2=$v1" 'hosts.h2.health=[
        {"name": "page", "type": "http", "url": "http://${address}:8080/health"},
        {"name": "units", "type": "systemd"},
        {"name": "shell", "type": "command", "from": "target", "run": ["sh", "-c", "echo it works"]},
        {"name": "never", "type": "command", "from": "target", "run": ["sleep", "60"],
         "timeout": "500ms"}]'
    update # what failed before is not counted
    assert_exit 0
    fleet status --probe --json
    assert_exit 3
    [ "$(field h2 '[.probes[] | select(.ok | not) | .name, .detail]')" = '["never","no answer within 500 ms"]' ]
    jq '.hosts.h2.health |= map(select(.name != "never"))' "$inventory" >"$inventory.2"
    mv "$inventory.2" "$inventory"

    fleet status --probe --json
    assert_exit 0
    [ "$(field h1 '[.probes[] | [.name, .ok]]')" = '[["units",true],["web",true]]' ]
    [ "$(field h2 '[.probes[] | [.name, .ok]]')" = '[["page",true],["units",true],["shell",true]]' ]
    [ "$(field h2 '.probes[] | select(.name == "page") | (.detail | test("200")) and .duration_ms >= 0')" = true ]
    fleet status --json
    assert_exit 0
    [ "$(field h1 .probes)" = null ]

    on h2 systemctl stop web
    fleet status --probe --json
    assert_exit 3
    [ "$(field h2 '[.in_sync, [.probes[] | select(.ok | not) | .name]]')" = '[true,["page"]]' ]
    fleet status --probe
    assert_exit 3
    grep -q '^h1 *in sync *2/2 ' "$events"
    grep -q '^h2 *unhealthy *2/3 ' "$events"
    grep -q 'probe page fails: .*refused' "$events"
    on h2 systemctl start web
}
