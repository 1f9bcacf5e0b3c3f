#!/usr/bin/env bats
# `rollback --run`: each host back to what it ran before a run, by that run's journal, on real hosts.
# shellcheck disable=SC2154

load fleet_driver

setup_file() { begin_hosts 3; }
teardown_file() { end_hosts; }

setup() {
    load_hosts
    v1=$(system good v1) v2=$(system good v2)
}

teardown() { tell; }

run_id() { sed -n 's/.*"run":"\([^"]*\)".*/\1/p' "$events" | head -1; }

@test "a run is undone on the hosts that it changed, also where a later one has been" {
    inventory h1="$v1" h2="$v1" h3="$v1"
    update h1 h2
    assert_exit 0
    first=$(run_id)
    inventory h1="$v2" h2="$v2" h3="$v2"
    update h2 h3
    assert_exit 0

    fleet rollback --run "$first" --yes --json
    assert_exit 0
    assert_state h1 healthy
    assert_state h2 healthy
    assert_serves h3 v2
    ! grep -q '"host":"h3"' "$events" || return 1
    [ "$(on h1 readlink -f /run/current-system)" = "$v0" ]
    [ "$(on h2 readlink -f /run/current-system)" = "$v0" ]
    [ "$(on h2 readlink -f "$profile")" = "$v0" ]

    # Once more: there is nothing left to undo.
    fleet rollback --run "$first" --yes --json
    assert_exit 0
    assert_state h1 unchanged
    assert_state h2 unchanged
}

@test "what can't be undone is said, and nothing is touched" {
    inventory h1="$v2" h2="$v2" h3="$v2"
    fleet push --json h3
    assert_exit 0
    pushed=$(run_id)
    fleet rollback --run "$pushed" --yes
    assert_exit 0
    grep -q "run $pushed changed none of the selected hosts: nothing to do" "$text"
    fleet rollback --run no-such-run --yes
    assert_exit 2
    fleet rollback --run "$pushed" --to 1 --yes
    assert_exit 2
    grep -q 'take one of the two' "$text"
    fleet rollback --to /nix/store/3k7xjq1c0v9r8l2p5n4m6a0z1y2w3v4s-nothing --yes h3
    assert_exit 3
    grep -q 'is not in this host.s store. `fleet generations` lists what it can go back to' "$events"
}
