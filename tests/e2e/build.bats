#!/usr/bin/env bats
# Where systems come from and where they are built: flakes, the target itself, a build host; and
# what a failure of one host's evaluation or build does to the others.

bats_require_minimum_version 1.5.0
load fleet_driver

setup_file() {
    begin_hosts 3
}

teardown_file() {
    end_hosts
}

setup() {
    load_hosts
}

teardown() {
    tell
}

# flake VERSION [WORD...]: a repository with a flake and an inventory of `{}` hosts, edited by the
# words of edit_inventory.py.
flake() {
    local folder=$T/flake-$BATS_TEST_NUMBER
    "$testbed" flake "$folder" --version "$1"
    "$support/edit_inventory.py" h1 h2 h3 'defaults.policy={"min_healthy_time": "1s", "startup_grace": "1s"}' \
        "${@:2}" <"$folder/fleet.json" >"$folder/edited"
    mv "$folder/edited" "$folder/fleet.json"
    git -C "$folder" init -q
    git -C "$folder" add -A
    git -C "$folder" -c user.name=t -c user.email=t@localhost commit -q -m systems
    inventory=$folder/fleet.json
}

built_path() { # HOST
    python3 - "$events" "$1" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event["type"] == "build" and event.get("host") == sys.argv[2] and event["state"] == "built":
        print(event["path"])
PYTHON
}

@test "hosts beside a flake need no word: all are evaluated, built here and rolled out" {
    flake v1
    update --now
    assert_exit 0
    for host in h1 h2 h3; do
        assert_state "$host" healthy
        assert_serves "$host" v1
    done
    grep -q "\"rev\":\"$(git -C "$(dirname "$inventory")" rev-parse HEAD)\"" "$events"
}

@test "built on the target and on a build host, the system never lands on the operator's disk" {
    # A version that nobody on this machine has built before.
    local version=v$((100000 + BASHPID))
    echo "$version" >"$T/version"
    flake "$version" 'hosts.h1.build={"on": "target"}' 'hosts.h2.build={"on": "h1"}' \
        "hosts.h3.build={\"on\": {\"address\": \"$(address h2)\", \"user\": \"root\"}}"
    update --now
    assert_exit 0
    for host in h1 h2 h3; do
        assert_state "$host" healthy
        assert_serves "$host" "$version"
        path=$(built_path "$host")
        [[ $path == /nix/store/* ]]
        [ ! -e "$path" ]
    done
    # The builder's own words came as they were said.
    grep -q '"stream":"build","line":"building ' "$events"
}

@test "an evaluation that fails and a build that fails are their hosts' own; the others go on" {
    inventory h1 h2 h3="$(system good v3)" \
        'hosts.h1.system.args.variant="fail-eval"' 'hosts.h2.system.args.variant="fail-build"'
    update --now
    assert_exit 9
    assert_state h1 failed eval-failed
    assert_state h2 failed build-failed
    assert_state h3 healthy
    assert_serves h1 "$(cat "$T/version")"
    assert_serves h2 "$(cat "$T/version")"
    assert_serves h3 v3
    # The failing builder's own words stand in the message.
    [[ $(event state h2) == *"no member named 'colour'"* ]]
}

@test "a system by command: its one line is the path" {
    inventory h1 "hosts.h1.system={\"command\": [\"echo\", \"$(system good v4)\"]}"
    update --now
    assert_exit 0
    assert_serves h1 v4
    inventory h1 'hosts.h1.system={"command": ["echo", "/etc/passwd"]}'
    update --now
    assert_exit 9
    assert_serves h1 v4
}
