#!/usr/bin/env bats
# The main job: a fleet of six is taken to v1, to v2, and back from a version that dies. Then what
# else `update` and `rollback` do with a fleet in good health. The tests build on each other, as
# the updates of one fleet do.

bats_require_minimum_version 1.5.0

load fleet_driver

setup_file() { begin_hosts 6; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

# roll_out VARIANT VERSION OPTION...: as scripts/demo does it, from Nix files.
roll_out() {
    "$testbed" inventory --variant "$1" --version "$2" >"$inventory"
    fleet update --tag db --yes --policy 'min_healthy_time="1s"' "${@:3}"
}

# What a rollout may change on a host, with times, so that "touches nothing" can be seen.
footprint() {
    for i in 1 2 3 4 5 6; do
        on "h$i" /bin/sh -s <<'SCRIPT'
stat -c '%n %N %Y %Z' /nix/var/nix/profiles/system* /run/current-system /boot/loader/*
find /var/lib/fleet /nix/var/nix/gcroots/fleet /run/fleet -printf '%p %l %T@ %i\n' | sort
readlink -f /run/current-system
systemctl show -p ActiveEnterTimestamp,NRestarts web sshd worker
SCRIPT
    done
}

@test "v1 reaches all six hosts, with two logins on each" {
    for i in 1 2 3 4 5 6; do echo $(($(logins "h$i") + 2)); done >"$T/before"
    roll_out good v1 --json --waves 1,100%
    assert_exit 0
    for i in 1 2 3 4 5 6; do logins "h$i"; done >"$T/after"
    diff "$T/before" "$T/after"
    event check "$root/fleet.events.schema.json"
    for i in 1 2 3 4 5 6; do
        assert_state "h$i" healthy
        assert_serves "h$i" v1
        assert_host "h$i" "$(system good v1 "h$i")" 2
        [ "$(event states "h$i")" = \
            "connecting building staging staged activating confirming probing committing healthy" ]
    done
    [ "$(event end)" = 'run_end 0 {"healthy": 6}' ]
    # Nothing of the second wave before the first one's end.
    run -1 grep '"wave":2,.*"to":"activating"' \
        <(sed '/"type":"wave_end","wave":1/,$d' "$events")
}

@test "v2 from plain output" {
    roll_out good v2 --plain
    assert_exit 0
    for i in 1 2 3 4 5 6; do assert_serves "h$i" v2; done
    grep -q '6 of 6 hosts' "$events"
    [ "$(wc -l <"$events")" -lt 30 ]
}

@test "an unchanged redeploy touches nothing, with one login on each" {
    footprint >"$T/before"
    for i in 1 2 3 4 5 6; do echo $(($(logins "h$i") + 1)); done >"$T/logins"
    roll_out good v2 --json
    assert_exit 0
    for i in 1 2 3 4 5 6; do logins "h$i"; done | diff "$T/logins" -
    for i in 1 2 3 4 5 6; do assert_state "h$i" unchanged; done
    run -1 grep -E '"type":"(grant|copy)"' "$events"
    footprint | diff "$T/before" -
}

@test "a version that dies after 5 s is caught on the first host; v2 is served everywhere" {
    roll_out dies-after-5s v3 --plain --policy 'min_healthy_time="8s"'
    assert_exit 3
    for i in 1 2 3 4 5 6; do assert_serves "h$i" v2; done
    assert_host h1 "$(system good v2 h1)" 3
    [ "$(wc -l <"$events")" -lt 30 ]
    grep -q '^h1 *rolled back' "$events"
    grep -q 'web' "$events"
    # The others were never touched, and that is said.
    grep -q 'h2.*h6\|5 .*skipped\|5 hosts.*not started' "$events"
}

@test "a redeploy of the good version after that is unchanged, and a failed one removes nothing" {
    roll_out good v2 --json
    assert_exit 0
    for i in 1 2 3 4 5 6; do assert_state "h$i" unchanged; done
    # The version that was running all along, made to fail by a probe of its own.
    inventory h1="$(system good v2 h1)" 'hosts.h1.health=[{"name": "never", "type": "tcp", "port": 1}]'
    update
    assert_exit 0
    assert_state h1 unchanged
    assert_host h1 "$(system good v2 h1)" 3
    inventory h1="$(system good v1 h1)" 'hosts.h1.health=[{"name": "never", "type": "tcp", "port": 1}]' \
        'defaults.policy.tolerate_preexisting=false' 'defaults.policy.healthy_deadline="3s"'
    update
    assert_exit 3
    assert_state h1 rolled_back
    assert_host h1 "$(system good v2 h1)" 3
    # v1 had a generation of its own before; it is still there.
    [ "$(on h1 readlink -f "$profile-2-link")" = "$(system good v1 h1)" ]
}

@test "a retry after a rollback is not confirmed by leftovers" {
    inventory h1="$(system breaks-sshd v3 h1)" 'defaults.policy.confirm_timeout="5s"'
    for _ in 1 2; do
        update
        assert_exit 3
        assert_state h1 rolled_back confirm-timeout
        assert_host h1 "$(system good v2 h1)" 3
    done
}

@test "push keeps its copy from garbage collection and activates nothing" {
    v3=$(system good v3 h2)
    inventory h2="$v3"
    fleet push --yes --json
    assert_exit 0
    assert_state h2 staged
    assert_serves h2 v2
    on h2 nix-collect-garbage >/dev/null 2>&1
    on h2 nix-store --check-validity "$v3"
    assert_host h2 "$(system good v2 h2)" 3
}

@test "dry-activate says what would happen, test leaves the profile alone" {
    v3=$(system good v3 h2)
    inventory h2="$v3"
    update --action dry-activate
    assert_exit 0
    grep -q 'would stop the following units: web.service' "$events"
    assert_host h2 "$(system good v2 h2)" 3
    update --action test
    assert_exit 0
    assert_state h2 healthy
    assert_serves h2 v3
    assert_host h2 "$(system good v2 h2)" 3 "$v3"
}

@test "what runs uncommitted is probed and committed by the next update" {
    inventory h2="$(system good v3 h2)"
    update
    assert_exit 0
    assert_state h2 healthy
    assert_host h2 "$(system good v3 h2)" 4
}

@test "boot writes the default and a power cycle obeys it" {
    v3=$(system good v3 h3)
    inventory h3="$v3"
    update --action boot
    assert_exit 0
    assert_state h3 reboot_required
    assert_serves h3 v2
    assert_host h3 "$v3" 4 "$(system good v2 h3)"
    "$testbed" down 3
    "$testbed" start 3
    assert_host h3 "$v3" 4
    # What is committed and doesn't run goes through the whole pipeline.
    update
    assert_exit 0
    assert_state h3 unchanged
}

@test "rollback goes to the generation before, to a number, to a path" {
    inventory h2 h3
    fleet rollback --yes --json h2 --policy 'min_healthy_time="1s"'
    assert_exit 0
    assert_state h2 healthy
    assert_serves h2 v2
    assert_host h2 "$(system good v2 h2)" 3
    fleet rollback --to 2 --yes --json h2 h3 --policy 'min_healthy_time="1s"' --waves 100%
    assert_exit 0
    for h in h2 h3; do
        assert_state $h healthy
        assert_serves $h v1
        assert_host $h "$(system good v1 $h)" 2
    done
    fleet rollback --to "$(system good v3 h2)" --yes --json h2 --policy 'min_healthy_time="1s"'
    assert_exit 0
    assert_serves h2 v3
}

@test "rollback: false is committed first and never taken back" {
    inventory h4="$(system http-500 v3 h4)" 'hosts.h4.policy={"rollback": false}' \
        'defaults.policy.healthy_deadline="3s"'
    update
    assert_exit 3
    assert_state h4 failed '*' 'left running'
    assert_host h4 "$(system http-500 v3 h4)" 4
    inventory h4="$(system good v4 h4)" 'hosts.h4.policy={"rollback": false}'
    update
    assert_exit 0
    assert_state h4 healthy
    assert_host h4 "$(system good v4 h4)" 5
}

@test "exit 100 activates nothing and asks for a reboot" {
    inventory h5="$(system init-interface v3 h5)"
    update
    assert_exit 3
    assert_state h5 reboot_required
    assert_serves h5 v2
    assert_host h5 "$(system good v2 h5)" 3
}

@test "status, list, check, history and show tell the same story" {
    "$testbed" inventory --version v2 >"$inventory"
    fleet check --reach
    assert_exit 0
    fleet list --json
    assert_exit 0
    [ "$(wc -l <"$events")" = 6 ]
    grep '"host":"h6"' "$events" | grep -q "$(address h6)"
    inventory h5="$(system good v2 h5)" h6="$(system good v2 h6)"
    fleet status --json
    assert_exit 0
    grep '"host":"h6"' "$events" | grep '"in_sync":true' | grep '"generation":3' |
        grep -q "$(system good v2 h6)"
    inventory h5="$(system good v1 h5)" h6="$(system good v2 h6)"
    fleet status
    [ "$status" != 0 ]
    grep -q h5 "$events"
    fleet history
    assert_exit 0
    run_id=$(grep -o '2[0-9]*-[0-9]*-[a-z0-9]*' "$events" | head -n 1)
    fleet show "$run_id"
    assert_exit 0
    grep -q 'h5' "$events"
}

@test "a boot default that is being written is written, though its operator is gone" {
    local v5 end
    v5=$(system good v5 h3)
    inventory h3="$v5"
    on h3 'cat >/run/testbed-hook && chmod +x /run/testbed-hook' <<'HOOK'
#!/bin/sh
[ "$1" = bootloader ] || exit 0
touch /run/menu-begins
turn=0
while [ ! -e /run/menu-goes-on ] && [ $turn -lt 300 ]; do
    turn=$((turn + 1))
    sleep 0.1
done
for word in much to say; do
    printf '%9999s\n' $word
    sleep 0.3
done
HOOK
    start_update --action boot
    end=$((SECONDS + 60))
    until on h3 '[ -e /run/menu-begins ]'; do [ $SECONDS -lt $end ]; done
    kill -KILL "$operator"
    # sshd has seen it: what is left is this very question's.
    until on h3 '[ "$(pgrep -fc "[s]shd: root@")" -le 1 ]'; do [ $SECONDS -lt $end ]; done
    on h3 'touch /run/menu-goes-on'
    until on h3 "grep -q '$v5' /var/lib/fleet/deployed.json"; do [ $SECONDS -lt $end ]; done
    on h3 'rm /run/testbed-hook'
    [ "$(on h3 'readlink -f /nix/var/nix/profiles/system; cat /boot/loader/default')" = "$v5
$v5" ]
}
