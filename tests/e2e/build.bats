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
    testbed_folder=$(cd "$BATS_TEST_DIRNAME/../testbed" && pwd)
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
    # What changed in packages is known all the same: the hosts told what they ran.
    grep -q '"type":"change".*"name":"libfoo","from":"1.2.[0-9]*","to":"1.2.'"${version#v}"'"' "$events"
    # The builder's own words came as they were said.
    grep -q '"stream":"build","line":"building ' "$events"
}

# Nothing is copied, so that the host itself is asked for both systems, beside the rollout.
@test "what changes in packages is told where nothing is copied: built there, pushed before, gone back to" {
    local version=v$((200000 + BASHPID))
    flake "$version" 'hosts.h1.build={"on": "target"}'
    fleet push --yes --json h1
    assert_exit 0
    [ ! -e "$(built_path h1)" ]
    # (A push may be over before the answer.)
    update --now h1
    assert_exit 0
    assert_serves h1 "$version"
    grep -q '"type":"change".*"name":"libfoo","from":"1.2.[0-9]*","to":"1.2.'"${version#v}"'"' "$events"
    fleet rollback --yes --json --now h1
    assert_exit 0
    grep -q '"type":"change".*"name":"libfoo","from":"1.2.'"${version#v}"'","to":"1.2.[0-9]*"' "$events"
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

@test "a system by command: its one line is the path, and two are no answer" {
    inventory h1 "hosts.h1.system={\"command\": [\"echo\", \"$(system good v4)\"]}"
    update --now
    assert_exit 0
    assert_serves h1 v4
    inventory h1 'hosts.h1.system={"command": ["echo", "/etc/passwd"]}'
    update --now
    assert_exit 9
    inventory h1 h2="$(system good v4)" h3="$(system good v4)" \
        "hosts.h1.system={\"command\": [\"printf\", \"%s\\\\n%s\\\\n\", \"$(system good v5)\", \"$v0\"]}"
    update --now
    assert_exit 9
    assert_state h1 failed eval-failed "printf printed several lines, where one store path is expected"
    assert_serves h1 v4
}

calls() { grep -c -- "$1" "$T/calls" || true; } # PATTERN

@test "nix_bin, nix_options and args are what Nix is called with; hosts share one evaluation" {
    record_tools
    "$testbed" inventory --version v6 | "$support/edit_inventory.py" h1 h2 h3 \
        "defaults.nix_bin=\"$T/tools\"" 'defaults.nix_options.cores="3"' >"$inventory"
    fleet build
    assert_exit 0
    [ "$(calls '^nix-instantiate ')" = 1 ]
    [ "$(calls '^nix-instantiate .*"version" = "v6".*--option cores 3')" = 1 ]
    [ "$(calls '^nix-store --realise .*--option cores 3')" -ge 1 ]
    # What one host has of its own it is evaluated with by itself.
    : >"$T/calls"
    "$support/edit_inventory.py" h1 h2 h3 'hosts.h3.system.args.version="v7"' <"$inventory" >"$T/other"
    inventory=$T/other
    fleet build
    assert_exit 0
    [ "$(calls '^nix-instantiate ')" = 2 ]
    [ "$(calls '^nix-instantiate .*--argstr version v7')" = 1 ]
    # A flake's hosts as well.
    : >"$T/calls"
    flake v6 "defaults.nix_bin=\"$T/tools\""
    fleet build
    assert_exit 0
    [ "$(calls '^nix .*eval')" = 1 ]
}

@test "a Nix that knows no --log-format builds as well, here and on a build host" {
    local version=v$((400000 + BASHPID))
    mkdir -p "$T/old"
    cat >"$T/old/nix-store" <<'SCRIPT'
#!/bin/sh
case " $* " in
*' --version '*) echo 'nix-store (Nix) 2.3.7' ;;
*' --log-format '*)
    echo "error: unknown flag '--log-format'" >&2
    exit 1
    ;;
*) exec /usr/bin/nix-store "$@" ;;
esac
SCRIPT
    chmod +x "$T/old/nix-store"
    ln -sf /usr/bin/nix-instantiate "$T/old/"
    on h3 'mkdir -p /usr/local/bin && cat >/usr/local/bin/nix-store && chmod +x /usr/local/bin/nix-store' \
        <"$T/old/nix-store"
    inventory h1 h2 h3 "hosts.*.system.args.version=\"$version\"" \
        "hosts.h1.nix_bin=\"$T/old\"" 'hosts.h2.build={"on": "h3"}' 'hosts.h3.build={"on": "target"}'
    fleet build --json
    on h3 'rm /usr/local/bin/nix-store'
    assert_exit 0
    grep -q '"host":"h2".*"line":"building ' "$events"
}

# The real ones: downloads Debian's Nix 2.3, 2.26 and the newest (tests/support/other_nix).
@test "each Nix from 2.3 on evaluates, builds, takes a rollout and collects its garbage" {
    [ -n "${FLEET_TEST_OTHER_NIX:-}" ] || skip "downloads; FLEET_TEST_OTHER_NIX=1 runs it"
    local version=v$((500000 + BASHPID)) suite program i=0 target
    for suite in bullseye trixie sid; do
        i=$((i + 1))
        "$support/other_nix" "$suite" "$T/$suite"
        "$testbed" down "$i"
        cp -a "$T/$suite" "$FLEET_TESTBED/hosts/$i/upper/other-nix"
        "$testbed" start "$i"
        for program in "$T/$suite"/bin/*; do
            on "h$i" "ln -sf /other-nix/bin/${program##*/} /usr/bin/${program##*/}"
        done
        on "h$i" 'nix-store --version'
    done
    for suite in bullseye trixie sid; do
        inventory h1 h2 h3 "defaults.nix_bin=\"$T/$suite/bin\"" \
            "hosts.*.system.args.version=\"$version-$suite\""
        update --now
        assert_exit 0
        for target in h1 h2 h3; do assert_serves "$target" "$version-$suite"; done
    done
    inventory h1 h2 h3 "hosts.*.system.args.version=\"$version\"" 'hosts.h1.build={"on": "h3"}' \
        'hosts.h2.build={"on": "h1"}' 'hosts.h3.build={"on": "target"}'
    update --now
    assert_exit 0
    inventory h1 h2 h3 "hosts.*.system.args.version=\"$version-bad\"" \
        'hosts.*.system.args.variant="unit-fails"'
    update --now --policy max_failed=3
    assert_exit 3
    fleet rollback --yes
    assert_exit 0
    fleet gc --keep 1 --yes
    assert_exit 0
    [ "$(grep -c ': freed [0-9]' "$events")" = 3 ]
    fleet status
    assert_exit 0
}

# Whose Nix has built each host's system: "h1:h1 h2:h2 ...".
builders() {
    local host
    for host in h1 h2 h3; do
        on "$host" 'cd /nix/var/nix/gcroots/fleet 2>/dev/null && ls -d build-* 2>/dev/null' |
            sed -n "s/^build-\(.*\)/\1:$host/p"
    done | sort | xargs
}

@test "a list shares the builds out, and goes on without a build host that is down" {
    local version=v$((200000 + BASHPID)) host
    for host in h1 h2 h3; do on "$host" 'rm -f /nix/var/nix/gcroots/fleet/build-*'; done
    inventory h1 h2 h3 "hosts.*.system.args.version=\"$version\"" \
        'defaults.build={"on": ["h1", {"address": "127.0.0.1", "port": 9}, "h2"]}'
    fleet build --json
    assert_exit 0
    [ "$(builders)" = "h1:h1 h2:h2 h3:h2" ]
    grep -q '"host":"h2".*refuses connections.*the next of \\"build.on\\" takes it' "$events"
    for host in h1 h2 h3; do [ ! -e "$(built_path "$host")" ]; done
    for host in h1 h2; do
        grep '"type":"derivation"' "$events" | grep "\"host\":\"$host\"" | grep -q "\"machine\":\"$host\""
    done
    # Where none of them is there it is a failed build, and the others go on.
    inventory h1 h2="$(system good v7)" "hosts.h1.system.args.version=\"$version-b\"" \
        'hosts.h1.build={"on": {"address": "127.0.0.1", "port": 9}}'
    update --now
    assert_exit 9
    assert_state h1 failed build-host "port 9 refuses connections"
    assert_state h2 healthy
}

@test "a build host that loses power in mid-build: the next one takes the build" {
    cat >"$T/slow.nix" <<NIX
{ version }:
let system = (import $testbed_folder/system/default.nix { inherit version; }).h1;
in derivation {
  name = "slow-system";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" ''
    PATH=/usr/bin:/bin
    read name </proc/sys/kernel/hostname
    echo "it begins on \$name"
    [ "\$name" != h3 ] || sleep 1000
    cp -a \${system} \$out
    chmod -R u+w \$out
    # Its scripts name the system that they belong to.
    grep -rlF \${system} \$out | xargs sed -i "s|\${system}|\$out|g"
  '' ];
}
NIX
    inventory h1 h2 h3 "hosts.*.system={\"file\": \"$T/slow.nix\", \"args\": {\"version\": \"v$((300000 + BASHPID))\"}}" \
        'hosts.h1.build={"on": ["h3", "local"]}' 'hosts.h2.build={"on": "h3"}'
    start_update --now --on h1,h2
    await_event 60 '"host":"h1".*"state":"building"'
    await_event 60 'it begins on h3'
    await_event 60 '"host":"h2".*"state":"building"'
    "$testbed" down 3
    end_update
    "$testbed" start 3
    assert_exit 9
    assert_state h1 healthy
    assert_state h2 failed build-host
    grep -q '"host":"h1".*it begins on '"$(cat /proc/sys/kernel/hostname)" "$events"
}

@test "a build host whose connection breaks, and that is rebooted by the run: hosts copy from it all the same" {
    local version=v$((400000 + BASHPID))
    inventory h1 h2 h3 "hosts.*.system.args.version=\"$version\"" 'hosts.*.build={"on": "h2"}' \
        'hosts.h1.system.args.paths="8"' 'hosts.h1.system.args.bytes="24000000"' \
        'hosts.h1.copy={"max_rate": "4MB", "compress": "none"}' \
        'hosts.h2.build={"on": "target"}' 'hosts.h2.policy.reboot="always"' \
        'defaults.policy.waves=[1, 2, 3]' 'defaults.policy.order="inventory"' \
        'defaults.policy.prestage="none"'
    start_update
    await_event 60 '"host":"h1".*"paths_done":[1-9]'
    on h2 "pkill -f 'sshd: root'" || true
    end_update
    assert_exit 0
    for host in h1 h2 h3; do
        assert_state "$host" healthy
        assert_serves "$host" "$version"
    done
}

@test "an evaluation without end holds nobody else up, is said, and ends with Ctrl-C" {
    local mark=endless-$BASHPID
    inventory h1 h2 h3="$(system good v8)" \
        "hosts.h1.system={\"command\": [\"sh\", \"-c\", \"while :; do echo thinking >&2; sleep 0.2; done\", \"$mark\"]}" \
        "hosts.h2.system={\"command\": [\"sh\", \"-c\", \"trap '' TERM; while :; do :; done\", \"$mark\"]}"
    start_update --now
    await_state 60 h3 healthy
    pgrep -f "$mark" >/dev/null
    kill -INT "$operator"
    end_update
    assert_exit 130
    assert_state h1 skipped stopped
    assert_state h2 skipped stopped
    grep -q '2 hosts are being built' "$text" "$events"
    run -1 pgrep -f "$mark"
    # What a build says while it works goes to its log.
    grep -q thinking "$T"/state/runs/*/build/h1.log
}

@test "a host that builds for itself and is down is unreachable, not a failed build" {
    inventory h1="$(system good v8)" 'hosts.h1.address="127.0.0.1:9"' 'hosts.h1.build={"on": "target"}'
    update --now
    assert_exit 5
    assert_state h1 unreachable
}
