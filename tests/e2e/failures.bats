#!/usr/bin/env bats
# Each way to fail has its own words, state and exit code; what a failure does to the other hosts
# is the budgets' to say.

load fleet_driver

setup_file() {
    begin_hosts 8 --flavour small-nix 3
    "$testbed" fail-unit 8
}
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

apart=(--waves '100%' --parallel 8)
raised=(--policy max_failed=8 --policy max_unreachable=8)

# One Nix file of the test's own where some hosts' systems fail to build.
mixed_systems() { # HOST VARIANT...
    local words=()
    while [ $# -gt 0 ]; do
        words+=("hosts.$1.system={\"file\": \"$root/tests/testbed/system/default.nix\", \"attr\": \"$1\",
                                  \"args\": {\"variant\": \"$2\", \"version\": \"v9\"}}")
        shift 2
    done
    printf '%s\n' "${words[@]}"
}

# Another host key than the one that is known; the true one comes back with -r.
change_known_key() { # HOST
    ssh-keygen -q -t ed25519 -N '' -f "$T/other-key" <<<y >/dev/null
    sed "s#^$(address "$1") .*#$(address "$1") $(cut -d' ' -f1,2 "$T/other-key.pub")#" \
        "$TESTBED_KNOWN_HOSTS" >"$T/known_hosts"
}

@test "each its own message and state; with the budgets raised the others go on" {
    change_known_key h2
    "$testbed" down 1
    "$testbed" fill 3 nix
    on h7 'head -c 3200000 /dev/zero >/boot/filler' # room for an entry, and for no other kernel
    inventory h1="$(system good v1)" h2="$(system good v1)" h3="$(system good v5 --paths 20 --bytes 9000000)" h4 h5="$(system unit-fails v1)" \
        h6="$(system exec-format v1)" h7="$(system reboot v1)" h8="$(system good v1)" \
        "defaults.known_hosts=\"$T/known_hosts\"" "$(mixed_systems h4 fail-build)"
    update "${apart[@]}" "${raised[@]}"
    "$testbed" start 1
    "$testbed" unfill 3 nix
    on h7 'rm /boot/filler'
    assert_exit 3
    event check "$root/fleet.events.schema.json"
    assert_state h1 unreachable connection-refused refuse
    assert_state h2 unreachable host-key-changed "$(address h2)"
    assert_state h3 failed '*' 'o space left'
    assert_state h4 failed build-failed "'struct greeting' has no member named 'colour'"
    assert_state h5 rolled_back units-failed migrate.service
    assert_state h6 failed activation-failed 'exec format error'
    assert_state h7 failed boot-full 'nothing was activated'
    [[ $(event states h7) != *activating* ]]
    # An old failed unit that was there before fails nobody, though it makes the activation's exit 4.
    assert_state h8 healthy
    for h in h1 h2 h3 h4 h5 h6 h7; do assert_host $h "$v0" 1; done
    assert_host h8 "$(system good v1)" 2
    # People read the same words.
    grep -q "^h5 .*migrate.service" "$text"
    # journald may lose which unit the last words of so short a process belong to; systemd's own stay.
    grep -q 'Failed to start migrate.service' "$events"
    grep -q "No space left on device" "$text"
}

@test "a host that is down: exit 5 and nobody is touched; reached with the budget raised" {
    "$testbed" down 1
    inventory h1="$(system good v1)" h2="$(system good v1)"
    update "${apart[@]}"
    assert_exit 5
    assert_state h1 unreachable connection-refused
    assert_state h2 skipped budget
    assert_host h2 "$v0" 1
    inventory h1="$(system good v1)" h2="$(system good v1)" 'hosts.h1.optional=true'
    update "${apart[@]}"
    assert_exit 0
    assert_state h1 skipped offline
    assert_state h2 healthy
    "$testbed" start 1
}

@test "a build or an evaluation that fails: exit 9, the others go on" {
    inventory h1 h4 h5="$(system good v1)" "$(mixed_systems h1 fail-eval)" "$(mixed_systems h4 fail-build)"
    update "${apart[@]}"
    assert_exit 9
    assert_state h1 failed '*' "services.web.colour"
    assert_state h4 failed build-failed "no member named 'colour'"
    assert_state h5 healthy
    for h in h1 h4; do assert_host $h "$v0" 1; done
    assert_host h5 "$(system good v1)" 2
}

@test "by default one failure stops the run: the other hosts end skipped, untouched" {
    inventory h1="$(system unit-fails v1)" h4="$(system good v1)" h6="$(system good v1)"
    update --waves 1,100%
    assert_exit 3
    assert_state h1 rolled_back units-failed migrate.service
    for h in h4 h6; do
        assert_state $h skipped budget untouched
        assert_host $h "$v0" 1
        [[ $(event states $h) != *activating* ]]
    done
}

@test "a full disk alone: exit 3, and the next update goes through once there is room" {
    "$testbed" fill 3 nix
    inventory h3="$(system good v6 --paths 20 --bytes 9000000)"
    update
    assert_exit 3
    assert_state h3 failed disk-full '/nix'
    assert_host h3 "$v0" 1
    "$testbed" unfill 3 nix
    update
    assert_exit 0
    assert_host h3 "$(system good v6 --paths 20 --bytes 9000000)" 2
}

@test "a /boot that fills up under the probes: the commit is undone, the old system runs" {
    before=$(on h5 readlink -f "$profile")
    inventory h5="$(system good v7)" 'hosts.h5.policy.min_healthy_time="4s"'
    start_update
    await_state 30 h5 probing
    "$testbed" fill 5 boot
    end_update
    # The menu could be written neither way, so it is the one from before: nothing is in doubt.
    assert_exit 3
    assert_state h5 rolled_back commit-failed /boot
    assert_host h5 "$before" "$(on h5 readlink $profile | tr -dc 0-9)"
    grep -q 'No space left on device' "$text"
    "$testbed" unfill 5 boot
    inventory h5="$(system good v7)"
    update
    assert_exit 0
    assert_host h5 "$(system good v7)" "$(on h5 readlink $profile | tr -dc 0-9)"
}

@test "on_failure leave: the new version runs on, uncommitted, and that is said" {
    inventory h4="$(system http-500 v2)" 'defaults.policy.on_failure="leave"' \
        'hosts.h4.policy.healthy_deadline="3s"'
    update
    assert_exit 3
    assert_state h4 failed '*' 'left running, not committed'
    assert_host h4 "$v0" 1 "$(system http-500 v2)"
    "$testbed" down 4
    "$testbed" start 4
    assert_host h4 "$v0" 1
}

@test "rollback-all takes back what was healthy already" {
    inventory h1="$(system good v2)" h2="$(system good v2)" h6="$(system http-500 v2)" \
        'defaults.policy.on_failure="rollback-all"' 'hosts.h6.policy.healthy_deadline="3s"'
    before=$(on h2 readlink -f "$profile")
    update --waves 2,100% --parallel 2
    assert_exit 3
    assert_state h6 rolled_back healthy-deadline
    for h in h1 h2; do assert_state $h rolled_back taken-back 'more hosts failed'; done
    assert_host h2 "$before" "$(on h2 readlink $profile | tr -dc 0-9)"
    assert_serves h1 v0
    assert_serves h2 v1
    assert_serves h6 v0
}

@test "a wave that turns bad while it bakes stops the run" {
    inventory h7="$(system dies-after-5s v2)" h8="$(system good v2)" \
        'defaults.policy.on_failure="rollback-wave"' 'defaults.policy.bake="6s"'
    update --waves 1,100%
    assert_exit 3
    assert_state h7 rolled_back bake 'as its wave was probed again'
    assert_serves h7 v0
    assert_state h8 skipped
    assert_serves h8 v1
}

@test "a host that another run holds: exit 7, with the line to break the lock" {
    inventory h1="$(system good v3)" 'hosts.h1.policy.min_healthy_time="15s"'
    start_update
    await_state 30 h1 probing
    mv "$events" "$T/first.events"
    first=$operator
    status=0
    "$FLEET" -i "$inventory" --state-dir "$T/other-state" update --yes --json >"$events" 2>"$text" || status=$?
    assert_exit 7
    assert_state h1 skipped locked
    kill -INT "$first"
    wait "$first" || true
}

@test "a lock names who has it, since when and for what; one whose lease is over is taken over with a note" {
    inventory h2="$(system good v3)"
    hold() { # UNTIL
        on h2 "mkdir -p /run/fleet; printf 'id abc\nrun r1\nwho ann@laptop pid 7\nsince 2026-01-01T00:00:00Z\nboot %s\nuntil %s\n' \
            \$(cat /proc/sys/kernel/random/boot_id) $1 >/run/fleet/lock"
    }
    hold 99999999999
    update
    assert_exit 7
    assert_state h2 skipped locked
    for word in ann@laptop 2026-01-01 'run r1' 'fleet unlock h2 --id abc'; do grep -q "$word" "$text"; done
    hold 1
    update
    assert_exit 0
    assert_state h2 healthy
    grep -q '"type":"log".*took over a lock whose lease had lapsed: abc r1 ann@laptop' "$events"
}
