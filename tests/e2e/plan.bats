#!/usr/bin/env bats
# `plan`, `update --dry-run`, `update --plan` and `gc` against real hosts: what is told is right,
# and nothing is touched but where it is said.

load fleet_driver

setup_file() { begin_hosts 3; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

# variant VARIANT VERSION: the test's inventory, from Nix files.
variant() {
    "$testbed" inventory --variant "$1" --version "$2" >"$inventory"
}

# Everything on a host that a plan could leave a trace in, with times and contents. Reading a Nix
# database makes SQLite's own short-lived files beside it, so of its folder only what stays counts.
footprint() { # HOST
    on "$1" /bin/sh -s <<'SCRIPT'
for folder in /nix/var /nix/store /var/lib /etc /boot /root /home /run/fleet /run/nixos; do
    [ -d "$folder" ] || continue
    find "$folder" ! -path '/nix/var/nix/db' ! -path '/var/lib/systemd/*' \
        -printf '%p %y %m %s %l %T@\n'
done 2>/dev/null | sort
sha256sum /nix/var/nix/db/db.sqlite
systemctl show -p ActiveEnterTimestamp,NRestarts web sshd worker
readlink -f /run/current-system /nix/var/nix/profiles/system
SCRIPT
}

total() { awk '{ sum += $1 } END { print sum }'; }

footprints() { for i in 1 2 3; do footprint "h$i"; done; }

# planned HOST FILTER: of the plan's line of that host.
planned() { jq -r "select(.host == \"$1\") | $2" "$events"; }

@test "a plan tells what would change and touches nothing" {
    variant good v1
    footprints >"$T/before"
    fleet plan --json
    assert_exit 0
    footprints | diff "$T/before" -
    for i in 1 2 3; do
        [ "$(planned "h$i" .current)" = "$v0" ]
        [ "$(planned "h$i" .desired)" = "$(system good v1 "h$i")" ]
        [ "$(planned "h$i" .change)" = true ]
        [ "$(planned "h$i" '.packages.changed[] | "\(.name) \(.from) \(.to)"' | xargs)" = \
            "libfoo 1.2.0 1.2.1 libgreet 1.0.0 1.1.0 web-server 1.0.0 1.1.0" ]
        [ "$(planned "h$i" '.units | tojson')" = \
            '{"stop":[],"start":[],"restart":["web.service"],"reload":[]}' ]
        [ "$(planned "h$i" .reboot)" = false ]
        [ "$(planned "h$i" '.drift | tojson')" = '["never-deployed"]' ]
    done
    # As Nix counts it.
    size=$(nix-store -qR "$(system good v1 h1)" | xargs nix-store -q --size | total)
    [ "$(planned h1 .closure_bytes.to)" = "$size" ]
    size=$(on h1 "nix-store -qR $v0 | xargs nix-store -q --size" | total)
    [ "$(planned h1 .closure_bytes.from)" = "$size" ]
}

@test "--dry-run of update is the plan, and agrees with the activation's own dry run" {
    variant unit-fails v2
    footprints >"$T/before"
    fleet update --dry-run --json h2
    assert_exit 0
    footprints | diff "$T/before" -
    [ "$(planned h2 '.units.start | join(" ")')" = migrate.service ]
    variant breaks-sshd v2
    fleet update --dry-run --json h2
    [ "$(planned h2 '.units.stop | join(" ")')" = sshd.service ]
    fleet update --action dry-activate --json --yes h2
    assert_exit 0
    grep -q 'would stop the following units: sshd.service, web.service' "$events"
}

@test "a system that only the host has is read from the host" {
    on h3 sh -s <<'SCRIPT'
mkdir -p /tmp/only/bin /tmp/only/etc/systemd/system
printf '#!/bin/sh\nexit 0\n' >/tmp/only/bin/switch-to-configuration
chmod +x /tmp/only/bin/switch-to-configuration
cp -L /etc/systemd/system/worker.service /tmp/only/etc/systemd/system/
mkdir -p /tmp/extra && mv /tmp/only /tmp/nixos-system-only-1.0
path=$(nix-store --add /tmp/nixos-system-only-1.0)
ln -sfn "$path" /run/current-system
SCRIPT
    variant good v1
    fleet plan --json h3
    assert_exit 0
    [[ $(planned h3 .current) == *-nixos-system-only-1.0 ]]
    [ ! -e "$(planned h3 .current)" ]
    [ "$(planned h3 '.packages.removed | join(" ")')" = nixos-system-only-1.0 ]
    planned h3 '.packages.added[]' | grep -qx 'web-server-1.1.0'
    [ "$(planned h3 '.drift | join(" ")')" = "not-committed never-deployed" ]
    [ "$(planned h3 .closure_bytes.from)" -gt 0 ]
    on h3 "ln -sfn $v0 /run/current-system"
}

@test "another kernel needs a reboot; a full /boot is told" {
    variant reboot v2
    on h1 'head -c 3200000 /dev/zero >/boot/filler'
    fleet plan --json h1 h2
    assert_exit 0
    [ "$(planned h1 '"\(.reboot) \(.boot_full)"')" = "true true" ]
    [ "$(planned h2 '"\(.reboot) \(.boot_full)"')" = "true false" ]
    fleet plan h1
    grep -q '/boot *too full' "$events"
    on h1 'rm /boot/filler'
}

@test "what does not build and who is not there have no plan, each its exit code" {
    variant fail-build v3
    fleet plan --json h1
    assert_exit 9
    [ "$(planned h1 .desired)" = null ]
    [[ $(planned h1 .message) == *"no member named 'colour'"* ]]
    variant good v1
    jq '.hosts.dead = {"address": "127.77.255.254", "connect_timeout": "2s",
        "system": .hosts.h1.system}' "$inventory" >"$inventory.dead"
    mv "$inventory.dead" "$inventory"
    fleet plan --json
    assert_exit 5
    [ "$(planned dead .reachable)" = false ]
    [ "$(planned h1 .change)" = true ]
    fleet plan --json --policy max_unreachable=1
    assert_exit 0
}

@test "a saved plan is carried out exactly, and once" {
    variant good v1
    fleet plan --out "$T/plan" h1 h2
    assert_exit 0
    fleet update --plan "$T/plan" h1
    assert_exit 2
    fleet update --plan "$T/plan" --json --yes
    assert_exit 0
    assert_state h1 healthy
    assert_state h2 healthy
    assert_serves h1 v1
    assert_host h3 "$v0" 1
    [ "$(jq -r 'select(.type == "build") | .host' "$events")" = "" ]
    footprints >"$T/before"
    fleet update --plan "$T/plan" --json --yes
    assert_exit 8
    footprints | diff "$T/before" -
    grep -q 'h1: it ran' "$text"
    grep -q 'nothing was touched' "$text"
    [ ! -s "$events" ]
}

@test "a plan is stale when the inventory or one host has changed, and touches no host then" {
    variant good v2
    fleet plan --out "$T/plan2"
    assert_exit 0
    fleet update --plan "$T/plan2" --json --yes --on 'h*'
    assert_exit 2
    variant good v3
    fleet update --plan "$T/plan2" --json --yes
    assert_exit 8
    variant good v2
    # One of the three has got another generation of the very same system.
    on h2 'nix-env -p /nix/var/nix/profiles/system --set /run/current-system/; ln -sfn system-2-link /nix/var/nix/profiles/x;
        nix-env -p /nix/var/nix/profiles/system --switch-generation 1'
    footprints >"$T/before"
    fleet update --plan "$T/plan2" --json --yes
    assert_exit 8
    footprints | diff "$T/before" -
    grep -q 'h2: its profile was generation 2' "$text"
    on h2 'rm /nix/var/nix/profiles/x; nix-env -p /nix/var/nix/profiles/system --switch-generation 2'
    echo '{"fleet_plan": 99}' >"$T/other"
    fleet update --plan "$T/other" --yes
    assert_exit 2
}

@test "gc says what it would free, removes old generations, and keeps what is needed" {
    for version in v2 v3 v4; do
        variant good "$version"
        fleet update --yes --json h1 --now
        assert_exit 0
    done
    # Nix listens for new roots on a socket while it looks for garbage.
    footprint h1 | grep -v '^/nix/var/nix[ /]' >"$T/before"
    fleet gc --keep 1 --dry-run --json h1
    assert_exit 0
    footprint h1 | grep -v '^/nix/var/nix[ /]' | diff "$T/before" -
    [ "$(on h1 'ls -d /nix/var/nix/profiles/system-*-link' | wc -l)" = 5 ]
    [ "$(planned h1 '.generations | join(" ")')" = "2 3" ]
    bytes=$(planned h1 .bytes)
    [ "$bytes" -gt 10000 ]
    fleet gc --older-than 1d --json h1
    assert_exit 0
    [ "$(planned h1 '.generations | length')" = 0 ]
    fleet gc --keep 1 --json h1
    assert_exit 0
    # Booted (1), what a rollback goes to (4), current (5).
    [ "$(on h1 'ls -d /nix/var/nix/profiles/system-*-link' | xargs)" = "$(printf \
        '/nix/var/nix/profiles/system-%s-link ' 1 4 5 | xargs)" ]
    [ "$(on h1 'ls /boot/loader/entries' | wc -l)" = 3 ]
    run -1 on h1 "test -e $(system good v2 h1)"
    on h1 "test ! -e /run/fleet/lock"
    assert_serves h1 v4
    fleet rollback --yes --json h1 --now
    assert_exit 0
    assert_serves h1 v3
}

@test "gc leaves a host alone that a run holds" {
    variant good v4
    on h1 'mkdir -p /run/fleet; printf "id abc\nrun r1\nwho someone\nsince now\nboot %s\nuntil 99999999999\n" \
        "$(cat /proc/sys/kernel/random/boot_id)" >/run/fleet/lock'
    fleet gc --keep 1 h1
    assert_exit 7
    grep -q 'fleet unlock h1 --id abc' "$text"
    # With --lock-timeout it waits for its turn.
    "$FLEET" -i "$inventory" --state-dir "$T/state" gc --lock-timeout 2m h1 >"$events" 2>"$text" \
        </dev/null 3>&- &
    operator=$!
    local end=$((SECONDS + 60))
    until grep -q 'h1: held by someone.*waiting' "$text"; do
        [ $SECONDS -lt $end ]
        sleep 0.1
    done
    on h1 'rm /run/fleet/lock'
    end_update
    assert_exit 0
    grep -q '^h1: freed' "$events"
}
