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

drift() { field "$1" '.drift | join(" ")'; }

@test "a record that is half written or of a newer fleet, and bytes that nobody wrote, are said and survived" {
    inventory "h1=$v0" "h2=$v0"
    jq 'del(.hosts[].system) | .defaults.system = {"file": "none.nix", "attr": "x"}' "$inventory" >"$inventory.2"
    mv "$inventory.2" "$inventory"
    on h1 'cp /var/lib/fleet/deployed.json /root/kept; printf "{\"path\": \"/nix/st" >/var/lib/fleet/deployed.json'
    fleet status --json h1
    assert_exit 3
    [ "$(drift h1)" = '"record-unreadable"' ]
    on h1 'echo "{\"format\":9,\"path\":[1],\"run\":{},\"rev\":\"\u001b[31mred\"}" >/var/lib/fleet/deployed.json
        mkdir -p /var/lib/fleet/guard /run/fleet/guard
        head -c 3000 /dev/urandom >/var/lib/fleet/guard/record
        head -c 3000 /dev/urandom >/run/fleet/guard/state
        head -c 3000 /dev/urandom >/run/fleet/lock'
    fleet status h1
    assert_exit 3
    grep -q 'half written, or of a newer fleet' "$events"
    grep -q 'a commit or a way back was cut off' "$events"
    ! grep -q $'\033' "$events" || false
    on h1 'rm -rf /var/lib/fleet/guard /run/fleet/guard /run/fleet/lock; mv /root/kept /var/lib/fleet/deployed.json'
    fleet status h1
    assert_exit 0
}

@test "a guard on its way back says which try it is and what it waits for" {
    inventory "h1=$v0"
    on h1 'systemd-run -q --unit fleet-guard sleep 100; mkdir -p /run/fleet/guard
        echo "reverting n0nce rc=1 why=abort try=4 stuck=room" >/run/fleet/guard/state'
    fleet status --json h1
    [ "$(field h1 '[.guard.phase, .guard.try, .guard.stuck]')" = '["reverting",4,"room"]' ]
    fleet status h1
    grep -q 'guard: reverting, try 4: /run or a disk is full there' "$events"
    on h1 'systemctl stop fleet-guard; rm -r /run/fleet/guard'
}

@test "a host that ssh_config sends through a ProxyCommand is refused alone, with the way out" {
    inventory "h1=$v0" "h2=$v0"
    printf 'Host %s\n ProxyCommand false\n' "$(address h2)" >"$T/ssh_config"
    local real=$FLEET
    printf '#!/bin/sh\nmount --bind %s /etc/ssh/ssh_config && exec %s "$@"\n' "$T/ssh_config" "$real" >"$T/fleet"
    printf '#!/bin/sh\nexec unshare -m %s "$@"\n' "$T/fleet" >"$T/apart"
    chmod +x "$T/fleet" "$T/apart"
    FLEET=$T/apart fleet exec -- true
    assert_exit 5
    grep -q 'h2: ssh_config gives it a ProxyCommand, .* use a ProxyJump there, or "jump" in the inventory' "$text"
    run ! grep -q h1: "$text"
}

@test "an sshd that allows one session a connection is told of before anything is copied" {
    inventory "h1=$(system good v7)"
    on h1 'cp /etc/ssh/sshd_config /root/; echo MaxSessions 1 >>/etc/ssh/sshd_config; systemctl restart sshd'
    fleet exec h1 -- true
    assert_exit 0
    update h1
    assert_exit 3
    assert_state h1 failed channel-refused 'set MaxSessions to 2 or more'
    run ! grep -q '"to":"staging"' "$events"
    on h1 'cp /root/sshd_config /etc/ssh/; systemctl restart sshd'
}

# The kernel lists locks by device and inode, and inodes are counted anew on each file system.
@test "a lock on another file system's file of the same inode is nobody's activation" {
    inventory "h1=$v0"
    on h1 'mkdir -p /run/nixos /run/elsewhere; cd /run/elsewhere; mount -t tmpfs none .; cd .
        : >/run/nixos/switch-to-configuration.lock
        wanted=$(stat -c %i /run/nixos/switch-to-configuration.lock)
        until : >lock && [ "$(stat -c %i lock)" -ge "$wanted" ]; do mv lock "taken-$((i += 1))"; done
        [ "$(stat -c %i lock)" = "$wanted" ] || exit 1
        flock lock sh -c "touch /run/held; exec sleep 300" >/dev/null 2>&1 &
        while [ ! -e /run/held ]; do sleep 0.1; done; grep -q ":$wanted 0 EOF" /proc/locks'
    fleet status --json h1
    [[ "$(drift h1)" != *switch-busy* ]]
    on h1 'pkill -x flock; pkill -x sleep; rm /run/held; umount -l /run/elsewhere'
}

@test "somebody else's activation, a host without Nix and one that has frozen are named" {
    v1=$(system good v1)
    inventory "h1=$v1" "h2=$v1"
    on h1 'mkdir -p /run/nixos
        flock /run/nixos/switch-to-configuration.lock sh -c "touch /run/held; exec sleep 300" >/dev/null 2>&1 &
        while [ ! -e /run/held ]; do sleep 0.1; done; mount --bind /etc/hostname /usr/bin/nix-store'
    fleet status --json h1
    assert_exit 3
    [[ "$(drift h1)" == *switch-busy* ]]
    [ "$(field h1 .nix)" = null ]
    fleet status h1
    grep -q 'somebody activates a system there right now' "$events"
    grep -q 'Nix was not found' "$events"
    on h1 'umount /usr/bin/nix-store; pkill -x flock; pkill -x sleep'
    "$testbed" freeze 1
    fleet status --json
    "$testbed" thaw 1
    assert_exit 5
    [ "$(field h1 '[.reachable, .current, .probes]')" = '[false,null,null]' ]
    [ "$(field h2 .in_sync)" = true ]
    grep -q 'h1: .*did not answer within 10 s' "$text"
}
